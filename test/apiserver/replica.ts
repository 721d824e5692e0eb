import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { stringify } from 'yaml'
import { until } from '../contract/stage.ts'
import type { ControlPlane } from './control-plane.ts'
import { ACCOUNT, type InstalledNames, SYSTEM } from './permissions.ts'
import { writeKubeconfig } from './users.ts'

const MAIN = resolve(import.meta.dirname, '..', '..', 'webhook', 'main.ts')

export interface LogLine {
  readonly level: string
  readonly msg: string
  readonly [field: string]: unknown
}

/** A process of webhook/main.ts. */
export interface ReplicaProcess {
  readonly log: readonly LogLine[]
  /** The first line with that message, once it is there. */
  line(msg: string): Promise<LogLine>
  readyz(): Promise<{ status: number; body: { conditions: Record<string, boolean> } }>
  /** Its HTTPS port, once it listens. */
  port(): Promise<number>
  /** Sends SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>
}

export interface ReplicaOptions {
  readonly control: ControlPlane
  readonly names: InstalledNames
  readonly settings?: Record<string, unknown>
  /** Where the API server is said to be, where not where it is. */
  readonly apiPort?: number
}

let serial = 0

export async function spawnReplica({
  control,
  names,
  settings = {},
  apiPort,
}: ReplicaOptions): Promise<ReplicaProcess> {
  const kubeconfig = await writeKubeconfig(control, {
    account: ACCOUNT,
    ...(apiPort === undefined ? {} : { port: apiPort }),
  })
  const path = join(control.statePath, 'conf', `settings-${++serial}.yaml`)
  const all = {
    webhook: { host: '127.0.0.1', port: 0, healthPort: 0 },
    injection: { image: 'registry.test/sidecar:1' },
    certificateAddresses: ['127.0.0.1'],
    drainMs: 200,
    names,
    ...settings,
  }
  writeFileSync(path, stringify(all))
  return startProcess({
    SYNGUARD_SETTINGS: path,
    SYNGUARD_NAMESPACE: SYSTEM,
    SYNGUARD_POD_NAME: `replica-${serial}`,
    KUBECONFIG: kubeconfig,
  })
}

export function startProcess(environment: Record<string, string>): ReplicaProcess {
  const { PATH = '', HOME = '' } = process.env
  const child: ChildProcess = spawn(process.execPath, ['--no-warnings', MAIN], {
    env: { PATH, HOME, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log: LogLine[] = []
  let rest = ''
  let errors = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    log.push(...lines.map((line) => JSON.parse(line) as LogLine))
  })
  const exited = new Promise<number | null>((done) => child.once('exit', done))

  async function line(msg: string): Promise<LogLine> {
    return until(`the log to say "${msg}"`, () => {
      const found = log.find((one) => one.msg === msg)
      if (found === undefined && child.exitCode !== null) {
        throw new Error(`the replica ended: ${JSON.stringify(log.at(-1))} ${errors}`)
      }
      return found
    })
  }
  return {
    log,
    line,
    async readyz() {
      const { healthPort } = await line('starting')
      const response = await fetch(`http://127.0.0.1:${healthPort}/readyz`)
      return { status: response.status, body: (await response.json()) as { conditions: Record<string, boolean> } }
    },
    port: async () => Number((await line('listening')).port),
    async stop() {
      if (child.exitCode === null) child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
      const code = await exited
      clearTimeout(timer)
      return code
    },
  }
}
