/** A guarded server and its guarded clients: one that is always allowed, and two whose permission comes and goes. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { runCommand } from '../../../lab/command.ts'
import type { Lab } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { CHECKOUT } from '../../../lab/sandbox.ts'
import { addressOf, createTestLab, putPolicy, runIdlePod } from '../../lab/objects.ts'
import { compile, inside } from '../../lab/programs.ts'
import { type End, endOf } from '../growth/flow-ends.ts'
import { compileLoad, ECHO_PORT } from '../load.ts'

export const CLIENTS = ['steady', 'turned', 'labelled'] as const
export type ClientName = (typeof CLIENTS)[number]

/** A server that answers at once, asked one connection at a time. */
const PROBE_PORT = 7200
const STREAM_PORT = 7300
const FIRST_FLOW_PORT = 7100

/** Labels of the client `labelled`, with and without the one that the server's policy asks for. */
export const LABELS = {
  allowed: { app: 'labelled', access: 'granted' },
  denied: { app: 'labelled', access: 'none' },
} as const

/** The policies that are added and removed: without either the client `turned` reaches nobody. */
export const REMOVED = ['ingress', 'egress'] as const
export type Removed = (typeof REMOVED)[number]

/** What pace.c prints; times in milliseconds. */
export interface Paced {
  readonly opened: number
  readonly succeeded: number
  readonly stalls: number
  readonly p50: number
  readonly p99: number
  readonly slowest: number
  readonly firstError: string
}

export interface StreamReport {
  readonly open: number
  readonly ended: number
  readonly wrong: number
  readonly exchanged: number
}

export interface Field {
  readonly lab: Lab
  /** Each client's connections that stay, and the same at the server. */
  readonly flows: ReadonlyMap<ClientName, { readonly client: End; readonly server: End }>
  /** Whether a new connection of the client is answered. */
  reaches(client: ClientName): Promise<boolean>
  /** `count` connections of `steady` at this rate, each with an echo. */
  pace(perSecond: number, count: number): Promise<Paced>
  /** Opens connections of `steady` that compare what comes back; asks for their figures later. */
  stream(count: number): Promise<() => Promise<StreamReport>>
  putTurned(which: Removed, present: boolean): void
  stop(): Promise<void>
}

function putBasePolicies(lab: Lab): void {
  const toServer = [{ to: [{ podSelector: { matchLabels: { app: 'server' } } }] }]
  putPolicy(lab, 'server', {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [
      { from: [{ podSelector: { matchLabels: { app: 'steady' } } }] },
      { from: [{ podSelector: { matchLabels: { access: 'granted' } } }] },
    ],
  })
  putPolicy(lab, 'clients', {
    podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['steady', 'labelled'] }] },
    policyTypes: ['Egress'],
    egress: toServer,
  })
  putPolicy(lab, 'turned', { podSelector: { matchLabels: { app: 'turned' } }, policyTypes: ['Egress'], egress: [] })
}

function putTurned(lab: Lab, which: Removed, present: boolean): void {
  if (!present) return lab.putPolicy('guarded', `turned-${which}`, undefined)
  const [subject, peer] = which === 'ingress' ? ['server', 'turned'] : ['turned', 'server']
  const peers = [{ podSelector: { matchLabels: { app: peer } } }]
  putPolicy(lab, `turned-${which}`, {
    podSelector: { matchLabels: { app: subject } },
    ...(which === 'ingress'
      ? { policyTypes: ['Ingress'], ingress: [{ from: peers }] }
      : { policyTypes: ['Egress'], egress: [{ to: peers }] }),
  })
}

/** Makes it all; `folder` keeps what is built. `onLab` hears of the lab, to stop it, before anything can fail. */
export async function createField(folder: string, onLab: (lab: Lab) => void): Promise<Field> {
  const [load, flows, pace] = await Promise.all([
    compileLoad(folder),
    compile(join(import.meta.dirname, '../growth/flows.c'), folder),
    compile(join(import.meta.dirname, '../../netns/exhaustion/pace.c'), folder),
  ])
  const bundle = process.env.SYNGUARD_TEST_BUNDLE ?? join(folder, 'bundle')
  if (process.env.SYNGUARD_TEST_BUNDLE === undefined) {
    await runCommand(process.execPath, ['--no-warnings', join(CHECKOUT, 'scripts', 'bundle.ts'), bundle])
  }
  const lab = await createTestLab({ bundle })
  onLab(lab)
  putBasePolicies(lab)
  for (const which of REMOVED) putTurned(lab, which, true)
  const server = await runIdlePod(lab, 'guarded', 'server')
  const pods = new Map<ClientName, RunningPod>()
  await Promise.all(
    CLIENTS.map(async (name) => {
      const labels = name === 'labelled' ? LABELS.allowed : { app: name }
      pods.set(name, await runIdlePod(lab, 'guarded', name, labels))
    }),
  )
  const podOf = (name: ClientName): RunningPod => {
    const pod = pods.get(name)
    if (pod === undefined) throw new Error(`no Pod ${name}`)
    return pod
  }
  const children: ChildProcessWithoutNullStreams[] = []
  const start = (pod: RunningPod, ...command: readonly string[]): ChildProcessWithoutNullStreams => {
    const child = spawn('ip', inside(pod, ...command))
    child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
    children.push(child)
    return child
  }
  const firstLine = async (child: ChildProcessWithoutNullStreams): Promise<void> =>
    await new Promise((done) => child.stdout.once('data', () => done()))

  await firstLine(start(server, load, 'server', String(ECHO_PORT)))
  await server.agent.ask({ do: 'serve', ports: [{ protocol: 'TCP', port: PROBE_PORT }], name: 'server' })
  const ends = new Map<ClientName, { client: End; server: End }>()
  for (const [index, name] of CLIENTS.entries()) {
    const port = String(FIRST_FLOW_PORT + index)
    const serving = endOf(start(server, flows, 'serve', port))
    await serving.next()
    ends.set(name, { client: endOf(start(podOf(name), flows, 'hold', addressOf(server), port)), server: serving })
  }
  const streams = [process.execPath, '--no-warnings', join(import.meta.dirname, '../../netns/connections/streams.ts')]
  await firstLine(start(server, ...streams, 'server', String(STREAM_PORT)))

  return {
    lab,
    flows: ends,
    async reaches(client) {
      const target = { protocol: 'TCP', address: addressOf(server), port: PROBE_PORT } as const
      const { outcome } = await podOf(client).agent.ask({ do: 'reach', target, timeoutMs: 5_000 })
      return outcome === 'answered'
    },
    async pace(perSecond, count) {
      const words = [pace, addressOf(server), ...[ECHO_PORT, perSecond, count, 20].map(String)]
      const timeoutMs = (count / perSecond + 40) * 1_000
      return JSON.parse(await runCommand('ip', inside(podOf('steady'), ...words), { timeoutMs }))
    },
    async stream(count) {
      const parameters = ['client', addressOf(server), String(STREAM_PORT), String(count)]
      const child = start(podOf('steady'), ...streams, ...parameters)
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      await lines.next()
      return async () => {
        child.stdin.write('report\n')
        return JSON.parse((await lines.next()).value ?? '')
      }
    },
    putTurned: (which, present) => putTurned(lab, which, present),
    async stop() {
      for (const child of children) child.kill('SIGKILL')
      await lab.stop()
    },
  }
}
