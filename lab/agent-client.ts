import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import type { AgentAnswers, AgentMessage, AgentRequest } from './agent-protocol.ts'
import { LabError } from './errors.ts'
import { CHECKOUT, sandboxCommand } from './sandbox.ts'

export interface Agent {
  readonly pid: number
  /** What the agent answers; throws `lab-agent-gone` when it ends first, or an Error with its words. */
  ask<R extends AgentRequest>(request: R): Promise<AgentAnswers[R['do']]>
}

/** nobody: an agent acts for an application without any power. */
const AGENT_UID = 65534

interface Pending {
  readonly resolve: (value: never) => void
  readonly reject: (error: Error) => void
}

function createAgent(child: ChildProcess, what: string): Agent {
  const pending = new Map<number, Pending>()
  let nextId = 1
  let gone: LabError | undefined
  child.on('message', (message: AgentMessage) => {
    const waiting = pending.get(message.id)
    pending.delete(message.id)
    if ('error' in message) waiting?.reject(new Error(`${what}: ${message.error}`))
    else waiting?.resolve(message.value as never)
  })
  const end = (how: string) => {
    gone ??= new LabError('lab-agent-gone', `the agent of ${what} ended (${how})`)
    for (const { reject } of pending.values()) reject(gone)
    pending.clear()
  }
  child.once('error', (error) => end(error.message))
  child.once('exit', (code, signal) => end(`${signal ?? `status ${code}`}`))
  return {
    pid: child.pid ?? 0,
    ask(request) {
      return new Promise((resolve, reject) => {
        if (gone !== undefined) return reject(gone)
        const id = nextId++
        pending.set(id, { resolve, reject })
        child.send({ id, request }, (error) => {
          if (error !== null) end(error.message)
        })
      })
    },
  }
}

/** Starts an agent in a network namespace; `what` names its place in errors. */
export function startAgent(netns: string, rootMountPoint: string, what: string): Agent {
  const [file = '', ...args] = sandboxCommand({
    netns,
    rootMountPoint,
    mounts: [],
    readOnlyRoot: true,
    privileges: { uid: AGENT_UID, gid: AGENT_UID, capabilities: [], ambient: false, noNewPrivileges: true },
    command: [process.execPath, '--no-warnings', '--max-semi-space-size=1', join(CHECKOUT, 'lab', 'agent.ts')],
  })
  const child = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], cwd: '/' })
  return createAgent(child, what)
}
