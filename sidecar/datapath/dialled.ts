/** Where an address and port lead that this Pod dialled, by what the directory says. */
import type { DirectoryEntry, NodePort } from '../../api/identity.ts'
import type { TrafficProtocol } from '../../policy/types.ts'

export type ServiceEntry = Extract<DirectoryEntry, { kind: 'service' }>

export interface Directory {
  /** `unknown`: the issuer could not be asked; undefined: it was not asked yet. */
  get(address: string): DirectoryEntry | 'unknown' | undefined
}

export type Dialled =
  | { readonly kind: 'service'; readonly service: ServiceEntry; readonly port: number }
  | { readonly kind: 'other'; readonly entry: DirectoryEntry | 'unknown' }
  /** The directory has to be asked for this address first. */
  | { readonly kind: 'ask'; readonly address: string }

/**
 * Under which address the directory knows whom this Pod dialled: the own node's addresses, such as the Pod's gateway, are
 * not all in its Node object, and node ports answer at all of them. The first of a family is (status.hostIPs).
 */
export function knownAddress(nodeAddresses: ReadonlySet<string>, address: string): string {
  if (!nodeAddresses.has(address)) return address
  const isV6 = address.includes(':')
  for (const one of nodeAddresses) if (one.includes(':') === isV6) return one
  return address
}

/** The Service's port behind a cluster, external or load balancer address, or behind a node port; else what stands there. */
export function findDialled(directory: Directory, address: string, protocol: TrafficProtocol, port: number): Dialled {
  const entry = directory.get(address)
  if (entry === undefined) return { kind: 'ask', address }
  if (entry === 'unknown') return { kind: 'other', entry }
  if (entry.kind === 'service') return { kind: 'service', service: entry, port }
  const nodePort = findNodePort(entry, protocol, port)
  if (nodePort === undefined) return { kind: 'other', entry }
  const service = directory.get(nodePort.serviceAddress)
  if (service === undefined) return { kind: 'ask', address: nodePort.serviceAddress }
  if (service === 'unknown' || service.kind !== 'service') return { kind: 'other', entry: service }
  return { kind: 'service', service, port: nodePort.servicePort }
}

/** The node port of that number, where the entry is a node's and has one. */
export function findNodePort(entry: DirectoryEntry, protocol: TrafficProtocol, port: number): NodePort | undefined {
  if (entry.kind !== 'node') return undefined
  return entry.ports.find((one) => one.protocol === protocol && one.port === port)
}

/** True where it is a Service's port with the Pod of that uid behind it. */
export function leadsTo(dialled: Dialled, uid: string): boolean {
  if (dialled.kind !== 'service') return false
  return dialled.service.ports.some(
    (port) =>
      port.protocol === 'TCP' &&
      port.port === dialled.port &&
      port.backends.some((backend) => backend.pod?.uid === uid),
  )
}
