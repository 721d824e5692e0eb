import { randomBytes } from 'node:crypto'
import type { V1Namespace, V1Node, V1Pod, V1Service } from '@kubernetes/client-node'
import { CONTAINER_SIDECAR } from '../../api/names.ts'
import { pause } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { ApiError } from '../../kubernetes/errors.ts'
import { canonicalAddress, formatAddress, parseAddress, unmapAddress } from '../../policy/address.ts'
import { type InjectionSettings, parseInjectionSettings } from '../../webhook/admission/settings.ts'
import { awaitPod } from './await-pod.ts'
import { kernelOf } from './checks/cluster.ts'
import {
  type Facts,
  type KernelFacts,
  known,
  type PathFacts,
  type PodFacts,
  type RunPod,
  type Seen,
  seen,
  unseen,
} from './facts.ts'
import { injectionOf, labelOf, stateOf } from './installation.ts'
import { describeFailure } from './look.ts'
import { applicationPod, clientPod, kernelPod, serverPod, serverService } from './pod-specs.ts'

export interface RunOptions {
  readonly client: ApiClient
  /** In place of the settings'. */
  readonly image: string | undefined
  /** Tells the user what is done. */
  readonly note: (line: string) => void
}

type Gathered = Omit<Facts, 'pods'>

/** The image may have to be pulled. */
const POD_LIMIT_MS = 90_000
/** A sidecar that does not become ready is started again after 120 s. */
const GUARDED_LIMIT_MS = 110_000
/** A fresh namespace gets its service account within moments. */
const ACCOUNT_LIMIT_MS = 10_000
/** Kernels that differ; more nodes than that are hardly all looked at. */
const KERNELS = 6

/** Runs Pods in a namespace of their own, which is removed afterwards. */
export function runPodsIn(options: RunOptions): (facts: Gathered) => Promise<PodFacts> {
  return async (facts) => {
    const settings = settingsOf(facts, options.image)
    if (settings === undefined) return nothing('the image is not known before the installation; --image IMAGE names it')
    const name = `synguard-check-${randomBytes(3).toString('hex')}`
    const path = `/api/v1/namespaces/${name}`
    try {
      const labels = { 'pod-security.kubernetes.io/enforce': 'privileged' }
      const body = { metadata: { name, labels } } satisfies V1Namespace
      await options.client.send({ method: 'POST', path: '/api/v1/namespaces', body })
    } catch (error) {
      return nothing(`${describeFailure(error)}, for Pods of our own`)
    }
    options.note(`synguard: running Pods in namespace ${name}, which goes in the end; --no-pods runs none`)
    const remove = () => options.client.send({ method: 'DELETE', path }).catch(() => {})
    const onSignal = () => void remove().then(() => process.exit(130))
    process.once('SIGINT', onSignal).once('SIGTERM', onSignal)
    try {
      return await runAll({ ...options, namespace: name, settings, facts })
    } finally {
      process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
      await remove()
    }
  }
}

function nothing(reason: string): PodFacts {
  return { kernels: unseen(reason), guarded: unseen(reason), paths: unseen(reason) }
}

function settingsOf({ installation }: Gathered, image: string | undefined): InjectionSettings | undefined {
  const found = injectionOf(installation)
  if (found !== undefined) return image === undefined ? found : { ...found, image }
  if (image === undefined) return undefined
  return parseInjectionSettings({ image, issuerUrl: 'https://192.0.2.1:443', issuerName: 'synguard-webhook.invalid' })
}

interface Run extends RunOptions {
  readonly namespace: string
  readonly settings: InjectionSettings
  readonly facts: Gathered
}

async function runAll(run: Run): Promise<PodFacts> {
  const nodes = usableNodes(run.facts)
  const [kernels, paths] = await Promise.all([tryKernels(run, nodes), tryPaths(run, nodes)])
  // Last, as the namespace is labelled for it.
  return { kernels, paths, guarded: await tryGuarded(run) }
}

/** Ready Linux nodes that take Pods; undefined where nodes cannot be seen: then the scheduler chooses. */
function usableNodes({ cluster }: Gathered): readonly V1Node[] | undefined {
  return known(cluster.nodes)?.filter(
    ({ spec, status }) =>
      status?.nodeInfo?.operatingSystem === 'linux' &&
      spec?.unschedulable !== true &&
      status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true,
  )
}

const podsPath = ({ namespace }: Run): string => `/api/v1/namespaces/${namespace}/pods`

/** Creates a Pod, as soon as the namespace has its service account. */
async function createPod(run: Run, body: V1Pod): Promise<V1Pod> {
  const limit = AbortSignal.timeout(ACCOUNT_LIMIT_MS)
  for (;;) {
    try {
      return await run.client.send<V1Pod>({ method: 'POST', path: podsPath(run), body })
    } catch (error) {
      const isEarly = error instanceof ApiError && /service account/.test(error.message)
      if (!isEarly || limit.aborted) throw error
      await pause(250, limit)
    }
  }
}

async function runToEnd(run: Run, body: V1Pod): Promise<RunPod> {
  try {
    await createPod(run, body)
    return (await awaitPod(run.client, `${podsPath(run)}/${body.metadata?.name}`, POD_LIMIT_MS)).run
  } catch (error) {
    return { kind: 'failed', reason: describeFailure(error) }
  }
}

async function tryKernels(run: Run, nodes: readonly V1Node[] | undefined): Promise<Seen<readonly KernelFacts[]>> {
  const kernels = Map.groupBy(nodes ?? [], kernelOf)
  const wanted = [...kernels].slice(0, KERNELS).map(([kernel, [first, ...others]]) => ({
    kernel,
    node: first?.metadata?.name,
    nodes: 1 + others.length,
  }))
  if (nodes === undefined) wanted.push({ kernel: 'of some node', node: undefined, nodes: 1 })
  const results = wanted.map(async ({ kernel, node, nodes: number }, index): Promise<KernelFacts> => {
    const body = kernelPod(`synguard-check-kernel-${index}`, node, run.settings)
    const ended = await runToEnd(run, body)
    const log = ended.kind === 'succeeded' ? await readBackend(run, body.metadata?.name ?? '') : undefined
    const withLog = log === undefined ? ended : { ...ended, log }
    return { kernel, node: node ?? 'where it was put', nodes: number, run: withLog }
  })
  return seen(await Promise.all(results))
}

/** `by iptables-nft, IPv4 and IPv6`, as the init step's last line says; undefined where it may not be read. */
async function readBackend(run: Run, pod: string): Promise<string | undefined> {
  try {
    const path = `${podsPath(run)}/${pod}/log`
    const line = await run.client.send<{ backend?: string; families?: string[] }>({
      method: 'GET',
      path,
      query: { tailLines: '1' },
    })
    return line.backend === undefined ? undefined : `by iptables-${line.backend}, ${line.families?.join(' and ')}`
  } catch {
    return undefined
  }
}

async function tryPaths(run: Run, nodes: readonly V1Node[] | undefined): Promise<Seen<readonly PathFacts[]>> {
  try {
    const [first, second] = nodes?.map(({ metadata }) => metadata?.name) ?? []
    const server = await createPod(run, serverPod(first, run.settings))
    const service = await run.client.send<V1Service>({
      method: 'POST',
      path: `/api/v1/namespaces/${run.namespace}/services`,
      body: serverService(),
    })
    const isReady = ({ status }: V1Pod) =>
      status?.podIP !== undefined && status.containerStatuses?.every(({ ready }) => ready) === true
    const at = `${podsPath(run)}/${server.metadata?.name}`
    const started = await awaitPod(run.client, at, POD_LIMIT_MS, isReady)
    if (started.run.kind === 'failed') return unseen(`a Pod to connect to: ${started.run.reason}`)
    const to = started.pod.spec?.nodeName ?? 'a node'
    const targets = [started.pod.status?.podIP ?? '', service.spec?.clusterIP ?? '']
    const clients = second === undefined ? [first] : [first, second]
    const tried = await Promise.all(clients.map((node, index) => tryPath(run, { node, to, index, targets })))
    return seen(tried.flat())
  } catch (error) {
    return unseen(describeFailure(error))
  }
}

interface Path {
  readonly node: string | undefined
  readonly to: string
  readonly index: number
  /** The server's address, and its Service's. */
  readonly targets: readonly string[]
}

async function tryPath(run: Run, { node, to, index, targets }: Path): Promise<PathFacts[]> {
  const name = `synguard-check-client-${index}`
  await createPod(run, clientPod(name, node, run.settings, targets))
  const { pod, run: ended } = await awaitPod(run.client, `${podsPath(run)}/${name}`, POD_LIMIT_MS)
  const path = `${pod.spec?.nodeName ?? 'a node'} to ${to}`
  const from = (pod.status?.podIPs ?? []).map(({ ip }) => canonicalAddress(ip) ?? ip)
  const message = pod.status?.containerStatuses?.[0]?.state?.terminated?.message ?? '[]'
  const answers = ended.kind === 'succeeded' ? (JSON.parse(message) as { seenAs?: string; failure?: string }[]) : []
  return (['its address', 'a Service'] as const).map((through, place) => {
    const { seenAs, failure } = answers[place] ?? {}
    const reason = failure ?? (ended.kind === 'failed' ? ended.reason : 'it said nothing')
    return { path, through, from, seenAs: seenAs === undefined ? unseen(reason) : seen(unmapped(seenAs)) }
  })
}

/** `10.244.0.5` for `::ffff:10.244.0.5`, as a server on both families sees it. */
function unmapped(text: string): string {
  const bytes = parseAddress(text)
  return bytes === undefined ? text : formatAddress(unmapAddress(bytes))
}

/** A Pod as anybody makes one in a labelled namespace: admission, the rules, an identity, policies, and then itself. */
async function tryGuarded(run: Run): Promise<Seen<RunPod>> {
  const { installation } = run.facts
  if (stateOf(installation) !== 'installed') return unseen('Synguard is not installed')
  if (!installation.deployment.seen) return installation.deployment
  const body = installation.deployment.value && applicationPod(installation.deployment.value, run.settings)
  if (body === undefined) return unseen("there is no Deployment with the webhook's image")
  try {
    const { key, value } = labelOf(installation)
    await run.client.send({
      method: 'PATCH',
      path: `/api/v1/namespaces/${run.namespace}`,
      contentType: 'application/merge-patch+json',
      body: { metadata: { labels: { [key]: value ?? '' } } },
    })
    const made = await createPod(run, body)
    if (!made.spec?.initContainers?.some(({ name }) => name === CONTAINER_SIDECAR)) {
      return seen({ kind: 'failed', reason: 'it got no sidecar' })
    }
    const ended = await awaitPod(run.client, `${podsPath(run)}/${body.metadata?.name}`, GUARDED_LIMIT_MS)
    return seen(ended.run)
  } catch (error) {
    return seen({ kind: 'failed', reason: describeFailure(error) })
  }
}
