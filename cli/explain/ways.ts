/** Which way a connection goes: from which address to which, through which Service, to which endpoints. */
import type { V1Pod, V1Service } from '@kubernetes/client-node'
import type { PodIdentity, Protocol, ServiceBackend } from '../../api/identity.ts'
import { findDialled } from '../../sidecar/datapath/dialled.ts'
import { familyOf, serviceEndpoints } from '../../webhook/directory/endpoints.ts'
import { isLive, namedPorts, podAddresses } from '../../webhook/directory/pod-identity.ts'
import { CliError } from '../errors.ts'
import type { Objects } from './gather.ts'
import { type EndName, formatEnd, type Query } from './query.ts'

/** The end that opens the connection. */
export interface Source {
  readonly name: string
  readonly addresses: readonly string[]
  /** Absent where it is no Pod with a network of its own. */
  readonly pod?: V1Pod
  /** What stands at its address, where it is no such Pod. */
  readonly remark?: string
}

/** The connection to one endpoint. */
export interface Way {
  readonly source: string
  /** What the source connects to. */
  readonly dialled: { readonly address: string; readonly port: number }
  /** `namespace/name` where a Service stands between. */
  readonly service?: string
  /** Absent where the Service has none. */
  readonly endpoint?: Pick<ServiceBackend, 'address' | 'port' | 'pod'>
  /** A node that puts its own address in the place of the source's, as kube-proxy does for traffic from outside. */
  readonly translatedBy?: string
}

export function findSource(objects: Objects, { from }: Query): Source {
  if (from.kind === 'address') return sourceAt(objects, from.address)
  const pod = livePod(objects, from, '--from')
  const addresses = podAddresses(pod)
  if (pod.spec?.hostNetwork === true) {
    return { name: formatEnd(from), addresses, remark: 'a Pod on the host network, which peers see as its node' }
  }
  return { name: formatEnd(from), addresses, pod }
}

function sourceAt(objects: Objects, address: string): Source {
  const entry = objects.directory.lookup(address)
  switch (entry.kind) {
    case 'pod': {
      const pod = objects.cluster.get('Pod', entry.pod.name, entry.pod.namespace)
      return { name: `${entry.pod.namespace}/${entry.pod.name}`, addresses: [address], ...(pod && { pod }) }
    }
    case 'service':
      throw new CliError(
        'cli-usage',
        `--from ${address} is Service ${entry.namespace}/${entry.name}, which opens no connections`,
      )
    case 'node':
      return { name: address, addresses: [address], remark: `an address of node ${entry.name}` }
    case 'unmatched':
      return { name: address, addresses: [address], remark: `no peer by labels: ${entry.reason}` }
    case 'external':
      return { name: address, addresses: [address], remark: 'no Pod, Service or node of the cluster' }
  }
}

type Named = Exclude<EndName, { kind: 'address' }>

function livePod({ cluster }: Objects, name: Named, option: string): V1Pod {
  const pod = cluster.get('Pod', name.name, name.namespace)
  if (pod === undefined) throw new CliError('explain-unknown', `${option}: there is no Pod ${formatEnd(name)}`)
  if (!isLive(pod)) {
    throw new CliError('explain-unknown', `${option}: Pod ${formatEnd(name)} is finished (${pod.status?.phase})`)
  }
  if (podAddresses(pod).length === 0) {
    throw new CliError('explain-unknown', `${option}: Pod ${formatEnd(name)} has no address yet`)
  }
  return pod
}

/** Every way to every endpoint, in each address family that both ends have. Throws CliError `explain-unknown`. */
export function findWays(objects: Objects, query: Query, source: Source): Way[] {
  const { to } = query
  if (to.kind === 'address') {
    const from = ofFamily(source.addresses, to.address)
    if (from === undefined) throw noFamily(source.name, to.address)
    return waysToAddress(objects, query, source, from, to.address)
  }
  const service = to.kind === 'pod' ? undefined : objects.cluster.get('Service', to.name, to.namespace)
  const isPod = to.kind !== 'service' && objects.cluster.get('Pod', to.name, to.namespace) !== undefined
  if (service !== undefined && isPod) {
    const forms = `write ${to.namespace}/pod/${to.name} or ${to.namespace}/svc/${to.name}`
    throw new CliError('cli-usage', `--to ${formatEnd(to)} is a Pod and a Service: ${forms}`)
  }
  if (service === undefined) {
    if (to.kind === 'any' && !isPod) {
      throw new CliError('explain-unknown', `--to: there is no Pod and no Service ${formatEnd(to)}`)
    }
    if (to.kind === 'service') throw new CliError('explain-unknown', `--to: there is no Service ${formatEnd(to)}`)
    return waysToPod(objects, query, source, livePod(objects, to, '--to'))
  }
  return waysToService(objects, query, source, service)
}

function waysToPod(objects: Objects, query: Query, source: Source, pod: V1Pod): Way[] {
  const port = podPort(pod, query)
  const addresses = podAddresses(pod)
  const pairs = addresses.flatMap((address) => {
    const from = ofFamily(source.addresses, address)
    return from === undefined ? [] : [{ address, from }]
  })
  if (pairs.length === 0) throw noFamily(source.name, nameOf(pod))
  return pairs.flatMap(({ address, from }) => waysToAddress(objects, { ...query, port }, source, from, address))
}

function waysToService(objects: Objects, query: Query, source: Source, service: V1Service): Way[] {
  const name = nameOf(service)
  if (service.spec?.type === 'ExternalName') {
    const target = service.spec.externalName
    throw new CliError('explain-unknown', `--to: Service ${name} is a name for ${target}: give an address of that`)
  }
  const addresses = (service.spec?.clusterIPs ?? [service.spec?.clusterIP ?? 'None']).filter((one) => one !== 'None')
  if (addresses.length === 0) return waysToHeadless(objects, query, source, service)
  const port = servicePort(service, query).port
  const ways = addresses.flatMap((address) => {
    const from = ofFamily(source.addresses, address)
    return from === undefined ? [] : waysToAddress(objects, { ...query, port }, source, from, address)
  })
  if (ways.length === 0) throw noFamily(source.name, `Service ${name}`)
  return ways
}

/** Its name leads to the endpoints themselves: no port is translated. */
function waysToHeadless(objects: Objects, query: Query, source: Source, service: V1Service): Way[] {
  const { cluster } = objects
  const name = nameOf(service)
  const slices = [...cluster.list('EndpointSlice')].filter(
    ({ metadata }) =>
      metadata?.namespace === service.metadata?.namespace &&
      metadata?.labels?.['kubernetes.io/service-name'] === service.metadata?.name,
  )
  const families = new Set(source.addresses.map(familyOf))
  const found = [...families].flatMap((family) => serviceEndpoints(service, slices, cluster.list('Pod'), family))
  const wanted = typeof query.port === 'number' ? undefined : servicePort(service, query).port
  const endpoints = found
    .filter(({ protocol, port }) => protocol === query.protocol && (wanted === undefined || port === wanted))
    .flatMap((one) => one.endpoints)
  const dialled = endpoints.map(({ address, port }) => ({
    address,
    port: typeof query.port === 'number' ? query.port : port,
  }))
  const unique = new Map(dialled.map((one) => [`${one.address} ${one.port}`, one]))
  if (unique.size === 0) throw new CliError('explain-unknown', `--to: Service ${name} is headless and has no endpoint`)
  return [...unique.values()].flatMap(({ address, port }) => {
    const from = ofFamily(source.addresses, address)
    return from === undefined ? [] : waysToAddress(objects, { ...query, port }, source, from, address)
  })
}

function waysToAddress(objects: Objects, query: Query, source: Source, from: string, address: string): Way[] {
  const { directory } = objects
  const entry = directory.lookup(address)
  const port = entry.kind === 'pod' ? podPort(podOf(objects, entry.pod), query) : portAt(objects, query, address)
  const dialled = { address, port }
  const found = findDialled({ get: directory.lookup }, address, query.protocol, port)
  if (found.kind !== 'service') {
    const pod = entry.kind === 'pod' && { pod: entry.pod }
    return [{ source: from, dialled, endpoint: { address, port, ...pod } }]
  }
  const { namespace, name, ports } = found.service
  const service = objects.cluster.get('Service', name, namespace)
  const declared = ports.find((one) => one.protocol === query.protocol && one.port === found.port)
  if (declared === undefined) throw noPort(`Service ${namespace}/${name}`, query, service?.spec?.ports ?? [])
  const through = { source: from, dialled, service: `${namespace}/${name}` }
  const translator = service && translatesSource(service, address) && nodeBetween(objects, source, address)
  if (declared.backends.length === 0) return [{ ...through, ...(translator && { translatedBy: translator }) }]
  return declared.backends.map(({ address, port, pod }) => {
    // A Pod that is its own backend must get its packets back from another address than its own.
    const isItself = pod !== undefined && pod.uid === source.pod?.metadata?.uid
    const translatedBy = translator || (isItself && nodeBetween(objects, source, from))
    const endpoint = { address, port, ...(pod && { pod }) }
    return { ...through, endpoint, ...(translatedBy && { translatedBy }) }
  })
}

/** Whether kube-proxy puts a node's address in the place of the source's: by another address than the Service's own. */
function translatesSource({ spec }: V1Service, address: string): boolean {
  const isOwn = (spec?.clusterIPs ?? [spec?.clusterIP]).includes(address)
  return !isOwn && spec?.externalTrafficPolicy !== 'Local'
}

/** The node that translates: whose address it is, or the source's own, or any. */
function nodeBetween({ cluster, directory }: Objects, { pod }: Source, address: string): string | undefined {
  if (directory.lookup(address).kind === 'node') return address
  const hosts = (pod?.status?.hostIPs ?? []).map(({ ip }) => ip)
  const nodes = [...cluster.list('Node')].flatMap(({ status }) => (status?.addresses ?? []).map((one) => one.address))
  return ofFamily(hosts, address) ?? ofFamily(nodes, address)
}

function podOf({ cluster }: Objects, { namespace, name }: PodIdentity): V1Pod {
  return cluster.get('Pod', name, namespace) ?? {}
}

function portAt({ cluster, directory }: Objects, query: Query, address: string): number {
  if (typeof query.port === 'number') return query.port
  const entry = directory.lookup(address)
  const service = entry.kind === 'service' ? cluster.get('Service', entry.name, entry.namespace) : undefined
  if (service !== undefined) return servicePort(service, query).port
  throw new CliError(
    'cli-usage',
    `--port "${query.port}" is a name, but ${address} is no Pod or Service: give a number`,
  )
}

function podPort(pod: V1Pod, query: Query): number {
  if (typeof query.port === 'number') return query.port
  const ports = namedPorts(pod)
  const found = ports.find(({ name, protocol }) => name === query.port && protocol === query.protocol)
  if (found === undefined) throw noPort(`Pod ${nameOf(pod)}`, query, ports)
  return found.port
}

function servicePort(service: V1Service, query: Query): { readonly port: number } {
  const ports = service.spec?.ports ?? []
  const found = ports.find(
    ({ name, port, protocol = 'TCP' }) => protocol === query.protocol && (port === query.port || name === query.port),
  )
  if (found === undefined) throw noPort(`Service ${nameOf(service)}`, query, ports)
  return found
}

type DeclaredPort = { readonly name?: string; readonly port: number; readonly protocol?: Protocol | string }

function noPort(whose: string, { port, protocol }: Query, declared: readonly DeclaredPort[]): CliError {
  const known = declared.map((one) => `${one.protocol ?? 'TCP'}/${one.port}${one.name ? ` (${one.name})` : ''}`)
  const rest = known.length === 0 ? 'it names none' : `it has ${known.join(', ')}`
  return new CliError('explain-unknown', `${whose} has no port ${protocol}/${port}: ${rest}`)
}

function noFamily(one: string, other: string): CliError {
  return new CliError('explain-unknown', `${one} and ${other} have no address family in common`)
}

function ofFamily(addresses: readonly string[], like: string): string | undefined {
  return addresses.find((address) => familyOf(address) === familyOf(like))
}

function nameOf({ metadata }: V1Pod | V1Service): string {
  return `${metadata?.namespace}/${metadata?.name}`
}
