import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { stringify } from 'yaml'
import { until } from '../contract/stage.ts'
import type { ControlPlane } from './control-plane.ts'
import { ACCOUNT, type InstalledNames, SYSTEM } from './permissions.ts'
import { writeKubeconfig, writeServiceAccount } from './users.ts'

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
  /** With a service account's files in place of a kubeconfig. */
  readonly asPod?: boolean
}

/**
 * Shows what a kubelet mounts into each Pod to the command behind it alone: token and CA, from the folder named by
 * $ACCOUNT.
 */
const AS_POD = [
  ...['unshare', '--mount', 'bash', '-c'],
  'set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/secrets/kubernetes.io; ' +
    'cp -r "$ACCOUNT" /run/secrets/kubernetes.io/serviceaccount; exec "$@"',
  'as-pod',
]

let serial = 0

export async function spawnReplica(options: ReplicaOptions): Promise<ReplicaProcess> {
  const { control, names, settings = {}, apiPort = control.port, asPod = false } = options
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
  const environment = {
    SYNGUARD_SETTINGS: path,
    SYNGUARD_NAMESPACE: SYSTEM,
    SYNGUARD_POD_NAME: `replica-${serial}`,
  }
  if (!asPod) {
    const kubeconfig = await writeKubeconfig(control, { account: ACCOUNT, port: apiPort })
    return startProcess({ ...environment, KUBECONFIG: kubeconfig })
  }
  const account = await writeServiceAccount(control, ACCOUNT)
  const service = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(apiPort) }
  return startProcess({ ...environment, ...service, ACCOUNT: account }, AS_POD)
}

/** `wrapper` is a command that becomes the one behind it, such as env. */
export function startProcess(environment: Record<string, string>, wrapper: readonly string[] = []): ReplicaProcess {
  const { PATH = '', HOME = '' } = process.env
  const [program = '', ...parameters] = [...wrapper, process.execPath, '--no-warnings', MAIN]
  const child: ChildProcess = spawn(program, parameters, {
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
