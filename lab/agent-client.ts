import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { AgentAnswers, AgentRequest } from './agent-protocol.ts'
import { type Channel, createChannel } from './channel.ts'
import { CHECKOUT, sandboxCommand } from './sandbox.ts'

export type Agent = Channel<AgentRequest, AgentAnswers>

/** nobody: an agent acts for an application without any power. */
const AGENT_UID = 65534

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
  return createChannel(child, `the agent of ${what}`)
}
