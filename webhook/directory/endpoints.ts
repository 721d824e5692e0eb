import type { V1EndpointSlice, V1Pod, V1Service } from '@kubernetes/client-node'
import type { Protocol } from '../../api/identity.ts'
import { canonicalAddress } from '../../policy/address.ts'
import { isLive, podAddresses, servingContainers } from './pod-identity.ts'

export interface Endpoint {
  readonly address: string
  /** The real port of this backend. */
  readonly port: number
}

export interface EndpointPort {
  readonly protocol: Protocol
  readonly port: number
  readonly endpoints: readonly Endpoint[]
}

/**
 * Where a Service's ports lead, of one address family: by its EndpointSlices, or where it has none by its selector and
 * the readiness of Pods, as the endpoint controller would compute them.
 */
export function serviceEndpoints(
  service: V1Service,
  slices: readonly V1EndpointSlice[],
  pods: Iterable<V1Pod>,
  family: 'IPv4' | 'IPv6',
): EndpointPort[] {
  const selected = slices.length === 0 ? selectedPods(service, pods) : []
  return (service.spec?.ports ?? []).map(({ name, port, protocol = 'TCP', targetPort = port }) => {
    const found =
      slices.length === 0
        ? podEndpoints(selected, { protocol, targetPort, family })
        : sliceEndpoints(slices, { name: name ?? '', protocol, port, family })
    const unique = new Map(found.map((endpoint) => [`${endpoint.address} ${endpoint.port}`, endpoint]))
    return { protocol: protocol as Protocol, port, endpoints: [...unique.values()] }
  })
}

/** The Pods of the Service's selector that are ready, or serve anyway. Services without selector have none. */
function selectedPods(service: V1Service, pods: Iterable<V1Pod>): V1Pod[] {
  const selector = Object.entries(service.spec?.selector ?? {})
  if (selector.length === 0) return []
  return [...pods].filter((pod) => {
    const labels = pod.metadata?.labels ?? {}
    const ready = pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false
    return (
      pod.metadata?.namespace === service.metadata?.namespace &&
      pod.metadata?.deletionTimestamp === undefined &&
      isLive(pod) &&
      (ready || service.spec?.publishNotReadyAddresses === true) &&
      selector.every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value)
    )
  })
}

function podEndpoints(
  pods: readonly V1Pod[],
  port: { protocol: string; targetPort: number | string; family: 'IPv4' | 'IPv6' },
): Endpoint[] {
  return pods.flatMap((pod) => {
    const number = containerPort(pod, port.targetPort, port.protocol)
    const address = podAddresses(pod).find((address) => familyOf(address) === port.family)
    return number === undefined || address === undefined ? [] : [{ address, port: number }]
  })
}

/** A targetPort in numbers; undefined where the Pod names no such port: it then is no backend of this port. */
function containerPort(pod: V1Pod, targetPort: number | string, protocol: string): number | undefined {
  if (typeof targetPort === 'number') return targetPort
  return servingContainers(pod)
    .flatMap(({ ports = [] }) => ports)
    .find((port) => port.name === targetPort && (port.protocol ?? 'TCP') === protocol)?.containerPort
}

function sliceEndpoints(
  slices: readonly V1EndpointSlice[],
  port: { name: string; protocol: string; port: number; family: 'IPv4' | 'IPv6' },
): Endpoint[] {
  const endpoints = slices
    .filter(({ addressType }) => addressType === port.family)
    .flatMap((slice) => {
      const declared = (slice.ports ?? []).find(
        ({ name, protocol }) => (name ?? '') === port.name && (protocol ?? 'TCP') === port.protocol,
      )
      if (declared === undefined) return []
      return (slice.endpoints ?? []).map(({ addresses, conditions }) => ({
        // Only the first address of an endpoint is used (discovery/v1), by kube-proxy too.
        address: canonicalAddress(addresses[0] ?? ''),
        // A slice port without number stands for every port.
        port: declared.port ?? port.port,
        ready: conditions?.ready !== false,
        terminating: conditions?.serving === true && conditions.terminating === true,
      }))
    })
  // kube-proxy falls back to terminating endpoints that still serve where no endpoint is ready.
  const ready = endpoints.filter((endpoint) => endpoint.ready)
  const usable = ready.length > 0 ? ready : endpoints.filter((endpoint) => endpoint.terminating)
  return usable.flatMap(({ address, port }) => (address === undefined ? [] : [{ address, port }]))
}

/** The family of an address in canonical text, in the words of EndpointSlices. */
export function familyOf(address: string): 'IPv4' | 'IPv6' {
  return address.includes(':') ? 'IPv6' : 'IPv4'
}
