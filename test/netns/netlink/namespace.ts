/** A network namespace for one test file, entered by this thread: its sockets and child processes live there. */

import { execFileSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import koffi from 'koffi'
import { createRun } from '../../../lab/run.ts'

/** <linux/sched.h> */
const CLONE_NEWNET = 0x40000000
const setns = koffi.load(null).func('int setns(int, int)') as unknown as (fd: number, type: number) => number

/** Moves this thread into the namespace behind a file descriptor, and closes that. */
function enter(fd: number): void {
  const result = setns(fd, CLONE_NEWNET)
  closeSync(fd)
  if (result !== 0) throw new Error(`setns: errno ${koffi.errno()}`)
}

export interface EnteredNamespace {
  readonly name: string
  run(command: string): void
  leave(): Promise<void>
}

/** Makes a namespace with its loopback up and enters it. `leave` goes back and removes it, as the end of this process does. */
export function enterNewNamespace(): EnteredNamespace {
  const home = openSync('/proc/thread-self/ns/net', 'r')
  // Before this thread enters: what cleans up must not live in what it removes.
  const { id, stop } = createRun()
  const name = `sgl-${id}-entered`
  execFileSync('ip', ['netns', 'add', name])
  enter(openSync(`/run/netns/${name}`, 'r'))
  const run = (command: string): void => {
    const [program = '', ...words] = command.split(' ')
    execFileSync(program, words, { stdio: ['ignore', 'ignore', 'inherit'] })
  }
  const leave = async (): Promise<void> => {
    enter(home)
    await stop()
  }
  try {
    run('ip link set lo up')
  } catch (error) {
    void leave()
    throw error
  }
  return { name, run, leave }
}
