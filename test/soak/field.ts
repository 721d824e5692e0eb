/** The Pods of the soak: guarded clients and servers, and as many paths between plain Pods. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { runCommand } from '../../lab/command.ts'
import { createLab, type Lab } from '../../lab/lab.ts'
import type { RunningPod } from '../../lab/pod.ts'
import { CHECKOUT } from '../../lab/sandbox.ts'
import { compileLoad, ECHO_PORT } from '../bench/load.ts'
import { putNamespaces, putPolicy, runIdlePod } from '../lab/objects.ts'
import { inside } from '../lab/programs.ts'
import type { Path } from './load.ts'
import type { TransferReport } from './transfers.ts'

/** The shortest that the issuer takes: renewed every ten seconds. */
export const WIT_LIFETIME_SECONDS = 20
const TRANSFER_PORT = 7100

/** What each client is for. None but the victims' sidecars is killed, and none but `turned` and `labelled` denied. */
export const CLIENTS = ['steady', 'victim', 'turned', 'labelled'] as const
export type ClientName = (typeof CLIENTS)[number]
export const SERVERS = ['server', 'victim-server'] as const
/** Pods whose sidecars are killed, one of each end. */
export const VICTIMS = ['victim', 'victim-server'] as const

export const LABELS = {
  allowed: { app: 'labelled', role: 'client', access: 'granted' },
  denied: { app: 'labelled', role: 'client', access: 'none' },
} as const

export interface Field {
  readonly lab: Lab
  readonly load: string
  /** All guarded Pods by name. */
  readonly guarded: ReadonlyMap<string, RunningPod>
  readonly paths: readonly Path[]
  readonly plainClient: RunningPod
  /** The same kinds of paths, by the names of `paths`. */
  readonly plainPaths: ReadonlyMap<string, Path>
  /** Writes the policies, with or without the client `turned` on either side. */
  putPolicies(turned: { readonly ingress: boolean; readonly egress: boolean }): void
  /** Begins the long-lived transfers: two from each client that is never denied to each path. */
  startTransfers(): Promise<void>
  /** Asks all transfers for their figures, or to finish first; the sum. */
  transfers(what: 'report' | 'finish'): Promise<TransferReport>
}

function putPolicies(lab: Lab, turned: { readonly ingress: boolean; readonly egress: boolean }): void {
  const put = (name: string, spec: object) => putPolicy(lab, name, spec)
  const apps = ['steady', 'victim', ...(turned.ingress ? ['turned'] : [])]
  put('servers', {
    podSelector: { matchLabels: { role: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [
      { from: [{ podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: apps }] } }] },
      { from: [{ podSelector: { matchLabels: { access: 'granted' } } }] },
    ],
  })
  const toServers = [{ to: [{ podSelector: { matchLabels: { role: 'server' } } }] }]
  put('clients', {
    podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['steady', 'victim', 'labelled'] }] },
    policyTypes: ['Egress'],
    egress: toServers,
  })
  put('turned', {
    podSelector: { matchLabels: { app: 'turned' } },
    policyTypes: ['Egress'],
    egress: turned.egress ? toServers : [],
  })
}

/** A program in a Pod that answers a line with a line; its first says that it is ready. It ends with the lab. */
async function startProgram(
  pod: RunningPod,
  ...command: readonly string[]
): Promise<(line: string) => Promise<string>> {
  const child: ChildProcessWithoutNullStreams = spawn('ip', inside(pod, ...command))
  child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<string> => {
    const { value, done } = await answers.next()
    if (done === true) throw new Error(`${command.join(' ')} ended`)
    return value
  }
  await next()
  return async (line) => {
    child.stdin.write(`${line}\n`)
    return await next()
  }
}

/** Each server over both families, and the Service before them all over both. */
async function pathsTo(lab: Lab, namespace: string, servers: readonly RunningPod[]): Promise<Path[]> {
  const service = await lab.putService({
    metadata: { namespace, name: 'servers' },
    spec: {
      selector: { role: 'server' },
      ipFamilyPolicy: 'RequireDualStack',
      ports: [
        { name: 'echo', port: ECHO_PORT, targetPort: ECHO_PORT },
        { name: 'transfers', port: TRANSFER_PORT, targetPort: TRANSFER_PORT },
      ],
    },
  })
  const family = (address: string) => (address.includes(':') ? 'IPv6' : 'IPv4')
  const toPods = servers.flatMap((pod, index) =>
    pod.network.addresses.map((address) => {
      const name = SERVERS[index] ?? ''
      return { name: `${name} ${family(address)}`, address, port: ECHO_PORT, servers: [name] }
    }),
  )
  const toService = (service.spec?.clusterIPs ?? []).map((address) => ({
    name: `Service ${family(address)}`,
    address,
    port: ECHO_PORT,
    servers: SERVERS,
  }))
  return [...toPods, ...toService]
}

const program = [process.execPath, '--no-warnings', join(import.meta.dirname, 'transfers.ts')]

/** The figures of all of a client's transfers. */
type Ask = (line: string) => Promise<string>

async function sumReports(clients: readonly Ask[], what: string): Promise<TransferReport> {
  const reports = await Promise.all(clients.map(async (ask): Promise<TransferReport> => JSON.parse(await ask(what))))
  const sum = (pick: (report: TransferReport) => number) => reports.reduce((total, report) => total + pick(report), 0)
  return {
    whole: sum(({ whole }) => whole),
    broken: sum(({ broken }) => broken),
    sentBytes: sum(({ sentBytes }) => sentBytes),
    echoedBytes: sum(({ echoedBytes }) => echoedBytes),
    wrongBytes: sum(({ wrongBytes }) => wrongBytes),
  }
}

/** Runs the Pods of one namespace, two at a time on most machines' cores. */
async function runServers(lab: Lab, load: string, namespace: string): Promise<RunningPod[]> {
  return await Promise.all(
    SERVERS.map(async (name) => {
      const pod = await runIdlePod(lab, namespace, name, { app: name, role: 'server' })
      await startProgram(pod, load, 'server', String(ECHO_PORT))
      return pod
    }),
  )
}

/** Makes it all; `folder` keeps what is built. `onLab` hears of the lab, to stop it, before anything can fail. */
export async function createField(
  folder: string,
  onLab: (lab: Lab) => void,
  say: (line: string) => void,
): Promise<Field> {
  say('compiling, bundling')
  const load = await compileLoad(folder)
  const bundle = join(folder, 'bundle')
  await runCommand(process.execPath, ['--no-warnings', join(CHECKOUT, 'scripts', 'bundle.ts'), bundle])
  const lab = await createLab({ bundle, witLifetimeSeconds: WIT_LIFETIME_SECONDS })
  onLab(lab)
  await putNamespaces(lab)
  putPolicies(lab, { ingress: true, egress: true })

  say('starting Pods')
  const servers = await runServers(lab, load, 'guarded')
  const clients = await Promise.all(
    CLIENTS.map((name) =>
      runIdlePod(lab, 'guarded', name, name === 'labelled' ? LABELS.allowed : { app: name, role: 'client' }),
    ),
  )
  const plainServers = await runServers(lab, load, 'plain')
  const plainClient = await runIdlePod(lab, 'plain', 'client', { app: 'client' })
  const paths = await pathsTo(lab, 'guarded', servers)
  const plainPaths = await pathsTo(lab, 'plain', plainServers)
  const asks: Ask[] = []
  return {
    lab,
    load,
    guarded: new Map([...clients, ...servers].map((pod) => [pod.pod.metadata?.name ?? '', pod])),
    paths,
    plainClient,
    plainPaths: new Map(plainPaths.map((path) => [path.name, path])),
    putPolicies: (turned) => putPolicies(lab, turned),
    async startTransfers() {
      await Promise.all(servers.map((pod) => startProgram(pod, ...program, 'server', String(TRANSFER_PORT))))
      const addresses = paths.flatMap(({ address }) => [address, address])
      const senders = clients.filter((_, index) => CLIENTS[index] === 'steady' || CLIENTS[index] === 'victim')
      const started = senders.map((pod) => startProgram(pod, ...program, 'client', String(TRANSFER_PORT), ...addresses))
      asks.push(...(await Promise.all(started)))
    },
    transfers: (what) => sumReports(asks, what),
  }
}
