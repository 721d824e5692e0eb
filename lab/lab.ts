import { randomUUID } from 'node:crypto'
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { V1Namespace, V1Node, V1Pod, V1Service } from '@kubernetes/client-node'
import { CONFIGMAP_CA } from '../api/names.ts'
import { type Agent, startAgent } from './agent-client.ts'
import { createServiceAddresses } from './cluster-addresses.ts'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import { serviceEndpoints } from './endpoints.ts'
import { LabError } from './errors.ts'
import { labInjectionSettings } from './injection.ts'
import { createNetwork, LAB_ADDRESSES, LAB_NODE_NAME, type Network } from './network.ts'
import { type RunningPod, startPod } from './pod.ts'
import { createRun, type Run } from './run.ts'
import { applyServices } from './services.ts'
import type { VolumeSources } from './volumes.ts'

export interface LabOptions {
  readonly mtuBytes?: number
  /** CIDRs of Pods whose addresses lie outside of the private ranges. */
  readonly podNetworks?: readonly string[]
  /** A folder that `npm run build` made: sidecars run from it, in place of the sources. Containers must see it. */
  readonly bundle?: string
  /** Of the issuer's WITs, where not its default. */
  readonly witLifetimeSeconds?: number
  /** A module that the webhook's process loads first: a test puts faults before the issuer's answers with it. */
  readonly webhookPreload?: string
  /** Hears what the lab is doing, a line each. */
  readonly onProgress?: (line: string) => void
}

/** A small cluster of one node on this machine: Pods are network namespaces, run from their specs as the webhook makes them. */
export interface Lab {
  readonly run: Run
  readonly network: Network
  readonly controlPlane: ControlPlane
  /** Agents in the node's and the outside's network namespace. */
  readonly node: Agent
  readonly external: Agent
  /** Running Pods by `namespace/name`. */
  readonly pods: ReadonlyMap<string, RunningPod>
  /** Creates or relabels a namespace. */
  putNamespace(namespace: V1Namespace): Promise<void>
  /** Creates or changes a Service; answers it with its cluster addresses. */
  putService(service: V1Service): Promise<V1Service>
  /** Writes a NetworkPolicy for the sidecars' directory source; `undefined` deletes it. */
  putPolicy(namespace: string, name: string, object: unknown): void
  /** What the webhook makes of a Pod, with uid and node; throws `lab-admission`. */
  admitPod(pod: V1Pod): Promise<V1Pod>
  /** Runs an admitted Pod until it is ready. */
  runPod(admitted: V1Pod): Promise<RunningPod>
  /** Replaces a running Pod's labels in the cluster, as `kubectl label` does. */
  relabelPod(key: string, labels: Readonly<Record<string, string>>): Promise<void>
  /** Deletes a Pod: it is terminating while its containers end, then it and its network are gone. */
  stopPod(key: string): Promise<void>
  /** Removes everything. */
  stop(): Promise<void>
}

const keyOf = (object: { metadata?: { namespace?: string; name?: string } }) =>
  `${object.metadata?.namespace}/${object.metadata?.name}`

function nodeObject(): V1Node {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: LAB_NODE_NAME, uid: randomUUID(), labels: { 'kubernetes.io/hostname': LAB_NODE_NAME } },
    spec: { podCIDR: LAB_ADDRESSES.podNetworks[0], podCIDRs: [...LAB_ADDRESSES.podNetworks] },
    status: {
      addresses: LAB_ADDRESSES.node.map((address) => ({ type: 'InternalIP', address })),
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  }
}

function withStatus(pod: V1Pod, addresses: readonly string[], isReady: boolean): V1Pod {
  const ready = isReady ? 'True' : 'False'
  return {
    ...pod,
    status: {
      ...pod.status,
      phase: isReady ? 'Running' : 'Pending',
      podIP: addresses[0] ?? '',
      podIPs: addresses.map((ip) => ({ ip })),
      hostIP: LAB_ADDRESSES.node[0],
      hostIPs: LAB_ADDRESSES.node.map((ip) => ({ ip })),
      conditions: ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map((type) => ({ type, status: ready })),
      containerStatuses: (pod.spec?.containers ?? []).map(({ name, image }) => ({
        name,
        image: image ?? '',
        imageID: '',
        ready: isReady,
        restartCount: 0,
        started: isReady,
      })),
    },
  }
}

/** Starts an empty lab; throws `lab-needs-root`. */
export async function createLab(options: LabOptions = {}): Promise<Lab> {
  const run = createRun()
  try {
    return await assembleLab(run, options)
  } catch (error) {
    await run.stop()
    throw error
  }
}

async function assembleLab(run: Run, options: LabOptions): Promise<Lab> {
  const { mtuBytes, podNetworks, bundle, witLifetimeSeconds, webhookPreload, onProgress = () => undefined } = options
  chmodSync(run.directory, 0o755) // containers' users reach their bind mounts through it
  const rootMountPoint = join(run.directory, 'root')
  const policyDirectory = join(run.directory, 'policies')
  for (const directory of [rootMountPoint, policyDirectory]) mkdirSync(directory, { mode: 0o755 })

  onProgress(`run ${run.id}: network`)
  const network = await createNetwork({ runId: run.id, ...(mtuBytes !== undefined && { mtuBytes }) })
  const node = startAgent(network.node, rootMountPoint, 'the node')
  const external = startAgent(network.external, rootMountPoint, 'the outside')
  const injection = labInjectionSettings(policyDirectory, podNetworks, bundle)
  const controlPlane = await startControlPlane(network.node, run.directory, injection, {
    ...(witLifetimeSeconds !== undefined && { witLifetimeSeconds }),
    ...(webhookPreload !== undefined && { preload: webhookPreload }),
  })
  await controlPlane.put('Node', nodeObject())

  const namespaces = new Map<string, V1Namespace>()
  const services = new Map<string, V1Service>()
  const running = new Map<string, RunningPod>()
  /** As the cluster knows them, with their status. */
  const pods = new Map<string, V1Pod>()
  const serviceAddresses = createServiceAddresses()
  const stopping = new AbortController()
  const { signal } = stopping

  const sources: VolumeSources = {
    mintToken: (pod, audience, lifetimeSeconds) =>
      controlPlane.mintToken(pod.metadata?.namespace ?? '', pod.metadata?.name ?? '', audience, lifetimeSeconds),
    configMap: (_, name) => (name === CONFIGMAP_CA ? { 'ca.crt': controlPlane.caCertificatePem } : undefined),
  }

  let proxied: Promise<void> = Promise.resolve()
  let isProxyPending = false
  /** Brings the node's rules up to date; calls that come while one waits share it. */
  const syncProxy = (): Promise<void> => {
    if (isProxyPending) return proxied
    isProxyPending = true
    proxied = proxied
      .catch(() => undefined)
      .then(() => {
        isProxyPending = false
        return applyServices(network.node, serviceEndpoints([...services.values()], [...pods.values()]))
      })
    return proxied
  }
  await syncProxy() // the drop of INVALID belongs to the node without any Service too

  const putPod = async (pod: V1Pod) => {
    pods.set(keyOf(pod), pod)
    await controlPlane.put('Pod', pod)
    if (services.size > 0) await syncProxy()
  }

  const removePod = async (key: string) => {
    const pod = pods.get(key)
    if (pod === undefined) return
    pods.delete(key)
    await controlPlane.delete('Pod', pod.metadata?.name ?? '', pod.metadata?.namespace)
    await syncProxy()
  }

  return {
    run,
    network,
    controlPlane,
    node,
    external,
    pods: running,
    async putNamespace(namespace) {
      const name = namespace.metadata?.name ?? ''
      const uid = namespaces.get(name)?.metadata?.uid ?? randomUUID()
      const stored = { ...namespace, metadata: { ...namespace.metadata, uid }, status: { phase: 'Active' } }
      namespaces.set(name, stored)
      await controlPlane.put('Namespace', stored)
    },
    async putService(service) {
      const known = services.get(keyOf(service))
      const addresses = known && { clusterIP: known.spec?.clusterIP ?? '', clusterIPs: known.spec?.clusterIPs ?? [] }
      const stored = known
        ? { ...service, spec: { ...service.spec, ...addresses } }
        : serviceAddresses.assign({ ...service, metadata: { ...service.metadata, uid: randomUUID() } })
      services.set(keyOf(stored), stored)
      await controlPlane.put('Service', stored)
      await syncProxy()
      return stored
    },
    putPolicy(namespace, name, object) {
      const path = join(policyDirectory, `${namespace}.${name}.yaml`)
      if (object === undefined) {
        rmSync(path, { force: true })
        return
      }
      const fresh = join(policyDirectory, `.${namespace}.${name}.fresh`)
      writeFileSync(fresh, JSON.stringify(object, undefined, 2), { mode: 0o644 })
      renameSync(fresh, path)
    },
    async admitPod(pod) {
      if (pod.spec?.hostNetwork === true) {
        throw new LabError(
          'lab-unsupported',
          `Pod ${keyOf(pod)}: spec.hostNetwork: the lab's Pods have their own network`,
        )
      }
      const admitted = await controlPlane.admit(pod)
      return {
        ...admitted,
        metadata: { ...admitted.metadata, uid: randomUUID(), creationTimestamp: new Date() },
        spec: { ...admitted.spec, containers: admitted.spec?.containers ?? [], nodeName: LAB_NODE_NAME },
      }
    },
    async runPod(admitted) {
      const key = keyOf(admitted)
      if (pods.has(key)) throw new LabError('lab-unsupported', `Pod ${key} runs already`)
      const podNetwork = await network.addPod((admitted.status?.podIPs ?? []).map(({ ip }) => ip))
      const pod = withStatus(admitted, podNetwork.addresses, false)
      try {
        await putPod(pod)
        const directory = join(run.directory, 'pods', admitted.metadata?.uid ?? '')
        const runningPod = await startPod(pod, podNetwork, {
          directory,
          rootMountPoint,
          sources,
          nodeAgent: node,
          signal,
        })
        running.set(key, runningPod)
        await putPod(withStatus(pod, podNetwork.addresses, true))
        onProgress(`Pod ${key} is ready at ${podNetwork.addresses.join(', ')}`)
        return runningPod
      } catch (error) {
        await removePod(key)
        await network.removePod(podNetwork)
        throw error
      }
    },
    async relabelPod(key, labels) {
      const pod = pods.get(key)
      if (pod === undefined) throw new LabError('lab-unsupported', `Pod ${key} does not run`)
      await putPod({ ...pod, metadata: { ...pod.metadata, labels: { ...labels } } })
    },
    async stopPod(key) {
      const runningPod = running.get(key)
      const pod = pods.get(key)
      if (runningPod === undefined || pod === undefined) return
      running.delete(key)
      const terminating = withStatus(pod, runningPod.network.addresses, false)
      const metadata = { ...pod.metadata, deletionTimestamp: new Date(), deletionGracePeriodSeconds: 30 }
      await putPod({ ...terminating, metadata, status: { ...terminating.status, phase: 'Running' } })
      await runningPod.stop()
      await removePod(key)
      await network.removePod(runningPod.network)
    },
    async stop() {
      stopping.abort()
      await run.stop()
    },
  }
}
