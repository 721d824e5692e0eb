/** load.c: compiled once, run in Pods. */
import { join } from 'node:path'
import { runCommand } from '../../lab/command.ts'
import type { RunningPod } from '../../lab/pod.ts'

/** Where `load server` echoes; its sink is one port higher. */
export const ECHO_PORT = 7000

/** What `load connect` prints; times in microseconds. */
export interface LoadFigures {
  readonly connections: number
  readonly succeeded: number
  readonly stalls: number
  readonly perSecond: number
  readonly echoP50: number
  readonly echoP99: number
  readonly connectP50: number
  readonly firstError: string
}

/** Compiles a C file of this folder; returns the program's path. */
export async function compile(name: string, folder: string): Promise<string> {
  const program = join(folder, name)
  const source = join(import.meta.dirname, `${name}.c`)
  await runCommand('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source])
  return program
}

/** The arguments of `ip` that run a command in a Pod's network namespace. */
export const inside = (pod: RunningPod, ...command: readonly string[]): string[] => [
  ...['netns', 'exec', pod.network.netns],
  ...command,
]

/** Where a client's load goes. */
export interface Target {
  readonly client: RunningPod
  readonly address: string
  readonly port: number
}

export async function connect(load: string, to: Target, count: number, parallel: number): Promise<LoadFigures> {
  const command = [load, 'connect', to.address, String(to.port), String(count), String(parallel)]
  return JSON.parse(await runCommand('ip', inside(to.client, ...command), { timeoutMs: 70_000 }))
}

/** Gigabits per second into the sink. */
export async function bulk(load: string, to: Target, seconds: number): Promise<number> {
  const command = [load, 'bulk', to.address, String(to.port + 1), String(seconds)]
  return JSON.parse(await runCommand('ip', inside(to.client, ...command))).gigabitsPerSecond
}
