import type { V1EndpointSlice, V1Node, V1PodSpec, V1Service } from '@kubernetes/client-node'
import type { DirectoryEntry, PodIdentity, ServiceBackend } from '../../api/identity.ts'
import { canonicalAddress } from '../../policy/address.ts'
import type { Cluster, ClusterChange } from '../cluster.ts'
import { NODE_PORTS, SERVICE_BACKENDS } from '../limits.ts'
import { createKeyIndex } from './address-index.ts'
import { familyOf, serviceEndpoints } from './endpoints.ts'
import { nodePortsOf, withoutClashes } from './node-ports.ts'
import { isLive, podAddresses, podIdentity } from './pod-identity.ts'

/** Who has an address: what the API server knows of peers that show no WIT. */
export interface Directory {
  /** What stands at an address in canonical text. */
  lookup(address: string): DirectoryEntry
  /** Calls `listener` with the addresses whose entries may have changed; the result ends that. */
  subscribe(listener: (addresses: ReadonlySet<string>) => void): () => void
  close(): void
}

export interface DirectoryOptions {
  readonly cluster: Cluster
  /** Whether a Pod's spec holds our sidecar: never by label, never by annotation. */
  readonly isGuarded: (spec: V1PodSpec) => boolean
}

const LABEL_SERVICE_NAME = 'kubernetes.io/service-name'

export function createDirectory({ cluster, isGuarded }: DirectoryOptions): Directory {
  const pods = createKeyIndex()
  const podsOfNamespace = createKeyIndex()
  const nodes = createKeyIndex()
  const services = createKeyIndex()
  const servicesWithNodePorts = new Set<string>()
  const servicesOfNamespace = createKeyIndex()
  const slicesOfService = createKeyIndex()
  const slicesOfAddress = createKeyIndex()
  const listeners = new Set<(addresses: ReadonlySet<string>) => void>()

  function index(change: ClusterChange): void {
    const { kind, after } = change
    const key = keyOf(after ?? change.before)
    if (kind === 'Pod') {
      pods.set(key, after === undefined ? [] : podAddresses(after))
      podsOfNamespace.set(key, after === undefined ? [] : [namespaceOf(key)])
    } else if (kind === 'Node') {
      nodes.set(key, after === undefined ? [] : nodeAddresses(after))
    } else if (kind === 'Service') {
      services.set(key, after === undefined ? [] : serviceAddresses(after))
      servicesOfNamespace.set(key, after === undefined ? [] : [namespaceOf(key)])
      if (nodePortsText(after) === NO_NODE_PORTS) servicesWithNodePorts.delete(key)
      else servicesWithNodePorts.add(key)
    } else if (kind === 'EndpointSlice') {
      slicesOfService.set(key, after === undefined ? [] : serviceOfSlice(after))
      slicesOfAddress.set(key, after === undefined ? [] : sliceAddresses(after))
    }
  }

  /** Every address whose entry an object's presence takes part in. */
  function affected(change: ClusterChange): Set<string> {
    const key = keyOf(change.after ?? change.before)
    if (change.kind === 'Node') return new Set(nodes.valuesOf(key))
    if (change.kind === 'Service') {
      const moved = nodePortsText(change.before) !== nodePortsText(change.after)
      return new Set([...services.valuesOf(key), ...(moved ? nodes.values() : [])])
    }
    if (change.kind === 'EndpointSlice') return addressesOfServices(slicesOfService.valuesOf(key))
    const podKeys = change.kind === 'Pod' ? [key] : podsOfNamespace.keysOf(key.slice(1))
    const namespace = change.kind === 'Pod' ? namespaceOf(key) : key.slice(1)
    const addresses = addressesOfServices(servicesOfNamespace.keysOf(namespace))
    for (const podKey of podKeys) {
      for (const address of pods.valuesOf(podKey)) {
        addresses.add(address)
        for (const slice of slicesOfAddress.keysOf(address)) {
          for (const found of addressesOfServices(slicesOfService.valuesOf(slice))) addresses.add(found)
        }
      }
    }
    return addresses
  }

  function addressesOfServices(keys: Iterable<string>): Set<string> {
    return new Set([...keys].flatMap((key) => [...services.valuesOf(key)]))
  }

  function onChange(change: ClusterChange): void {
    const addresses = affected(change)
    index(change)
    for (const address of affected(change)) addresses.add(address)
    if (addresses.size > 0) for (const listener of [...listeners]) listener(addresses)
  }

  function podAt(address: string): { identity: PodIdentity; guarded: boolean } | string | undefined {
    const found = [...pods.keysOf(address)].flatMap((key) => get('Pod', key) ?? [])
    const live = found.filter((pod) => isLive(pod) && pod.spec?.hostNetwork !== true)
    const [pod] = live
    if (live.length > 1) return `${live.length} live Pods have this address`
    if (pod === undefined) return found.length > 0 ? 'the Pod of this address is finished or on the host network' : pod
    const namespace = cluster.get('Namespace', pod.metadata?.namespace ?? '')
    if (namespace === undefined) return 'the namespace of the Pod at this address is not known'
    const guarded = pod.spec !== undefined && isGuarded(pod.spec)
    return { identity: podIdentity(pod, namespace, guarded), guarded }
  }

  function get<Kind extends 'Pod' | 'Service' | 'EndpointSlice'>(kind: Kind, key: string) {
    const slash = key.indexOf('/')
    return cluster.get(kind, key.slice(slash + 1), key.slice(0, slash))
  }

  function backend(endpoint: { address: string; port: number }): ServiceBackend {
    // By the Pod's own status, never by the slice's targetRef: who may write slices could claim any Pod.
    const pod = podAt(endpoint.address)
    if (pod === undefined || typeof pod === 'string') return { ...endpoint, guarded: false }
    return { ...endpoint, guarded: pod.guarded, pod: pod.identity }
  }

  function serviceEntry(key: string, service: V1Service, address: string): DirectoryEntry {
    const slices = [...slicesOfService.keysOf(key)].flatMap((slice) => get('EndpointSlice', slice) ?? [])
    const { namespace = '', name = '' } = service.metadata ?? {}
    const candidates = [...podsOfNamespace.keysOf(namespace)].flatMap((pod) => get('Pod', pod) ?? [])
    const ports = serviceEndpoints(service, slices, candidates, familyOf(address))
    const backends = ports.reduce((sum, { endpoints }) => sum + endpoints.length, 0)
    if (backends > SERVICE_BACKENDS) return unmatched(`the Service has more than ${SERVICE_BACKENDS} backends`)
    return {
      kind: 'service',
      namespace,
      name,
      ports: ports.map(({ protocol, port, endpoints }) => ({ protocol, port, backends: endpoints.map(backend) })),
    }
  }

  function nodeEntry(name: string, address: string): DirectoryEntry {
    const found = [...servicesWithNodePorts].flatMap((key) => get('Service', key) ?? [])
    const ports = found.flatMap((service) => nodePortsOf(service, familyOf(address)))
    if (ports.length > NODE_PORTS) return unmatched(`the cluster has more than ${NODE_PORTS} node ports`)
    return { kind: 'node', name, ports: withoutClashes(ports) }
  }

  function lookup(address: string): DirectoryEntry {
    const [node] = nodes.keysOf(address)
    const [service, ...others] = services.keysOf(address)
    const pod = podAt(address)
    const isPod = pod !== undefined && typeof pod !== 'string'
    // Nodes and their host network Pods share addresses, and Services may name a node's: the node is what is sure.
    if (node !== undefined) {
      return isPod ? unmatched('a Pod and a node have this address') : nodeEntry(node.slice(1), address)
    }
    if (isPod && service !== undefined) return unmatched('a Pod and a Service have this address')
    if (isPod) return { kind: 'pod', guarded: pod.guarded, pod: pod.identity }
    if (service !== undefined) {
      const object = get('Service', service)
      if (others.length > 0 || object === undefined) return unmatched('several Services have this address')
      return serviceEntry(service, object, address)
    }
    return pod === undefined ? { kind: 'external' } : unmatched(pod)
  }

  // Subscribed before listing: an object that changes meanwhile is indexed twice rather than missed.
  const unsubscribe = cluster.subscribe(onChange)
  for (const kind of ['Node', 'Pod', 'Service', 'EndpointSlice'] as const) {
    for (const after of cluster.list(kind)) index({ kind, before: undefined, after } as ClusterChange)
  }

  return {
    lookup,
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    close: unsubscribe,
  }
}

function unmatched(reason: string): DirectoryEntry {
  return { kind: 'unmatched', reason }
}

function keyOf(object: { metadata?: { name?: string; namespace?: string } } | undefined): string {
  return `${object?.metadata?.namespace ?? ''}/${object?.metadata?.name ?? ''}`
}

function namespaceOf(key: string): string {
  return key.slice(0, key.indexOf('/'))
}

function nodeAddresses(node: V1Node): string[] {
  return (node.status?.addresses ?? []).flatMap(({ address }) => canonicalAddress(address) ?? [])
}

function serviceAddresses({ spec, status }: V1Service): string[] {
  const texts = [
    ...(spec?.clusterIPs ?? []),
    spec?.clusterIP,
    ...(spec?.externalIPs ?? []),
    ...(status?.loadBalancer?.ingress ?? []).map(({ ip }) => ip),
  ]
  return texts.flatMap((text) => (text === undefined ? [] : (canonicalAddress(text) ?? [])))
}

const FAMILIES = ['IPv4', 'IPv6'] as const
const NO_NODE_PORTS = '[[],[]]'

/** The same text where two states of a Service have the same node ports. */
function nodePortsText(service: V1Service | undefined): string {
  return JSON.stringify(FAMILIES.map((family) => (service === undefined ? [] : nodePortsOf(service, family))))
}

function serviceOfSlice({ metadata }: V1EndpointSlice): string[] {
  const name = metadata?.labels?.[LABEL_SERVICE_NAME]
  return name === undefined ? [] : [`${metadata?.namespace ?? ''}/${name}`]
}

function sliceAddresses({ endpoints = [] }: V1EndpointSlice): string[] {
  return endpoints.flatMap(({ addresses }) => canonicalAddress(addresses[0] ?? '') ?? [])
}
