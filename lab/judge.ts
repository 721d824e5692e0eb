/** What the policy engine says of a connection between two places of the lab. */
import type { V1Namespace, V1Pod } from '@kubernetes/client-node'
import type { PodIdentity, Protocol } from '../api/identity.ts'
import { type ConnectionAnswer, type Endpoint, evaluateConnection } from '../policy/connection.ts'
import type { NetworkPolicy, PolicyType } from '../policy/types.ts'
import { podIdentity } from '../webhook/directory/pod-identity.ts'
import { admitsNode, type Guard, guardOf } from './guard.ts'
import { LAB_ADDRESSES } from './network.ts'

/** The sources that are no Pods. */
export const NODE = 'node'
export const EXTERNAL = 'external'

export interface Connection {
  /** `namespace/name` of a Pod, `node` or `external`. */
  readonly from: string
  /** `namespace/name` of a Pod. */
  readonly to: string
  readonly port: number
  readonly protocol: Protocol
}

export interface Place {
  readonly name: string
  /** The primary one first. */
  readonly addresses: readonly string[]
  readonly pod?: PodIdentity
  /** Absent where nobody guards it. */
  readonly guard?: Guard
  /** Declared containerPorts. */
  readonly ports: readonly { readonly port: number; readonly protocol: Protocol }[]
}

function declaredPorts(pod: V1Pod): Place['ports'] {
  const ports = new Map<string, { port: number; protocol: Protocol }>()
  for (const container of pod.spec?.containers ?? []) {
    for (const { containerPort, protocol = 'TCP' } of container.ports ?? []) {
      ports.set(`${protocol}/${containerPort}`, { port: containerPort, protocol: protocol as Protocol })
    }
  }
  return [...ports.values()]
}

/** The places of a cluster: its admitted Pods with their addresses in status, the node, and the outside. */
export function listPlaces(pods: readonly V1Pod[], namespaces: readonly V1Namespace[]): Place[] {
  const byName = new Map(namespaces.map((namespace) => [namespace.metadata?.name, namespace]))
  const places = pods.map((pod): Place => {
    const guard = guardOf(pod)
    const identity = podIdentity(pod, byName.get(pod.metadata?.namespace) ?? {}, guard !== undefined)
    return {
      name: `${identity.namespace}/${identity.name}`,
      addresses: identity.addresses,
      pod: identity,
      ...(guard !== undefined && { guard }),
      ports: declaredPorts(pod),
    }
  })
  return [
    ...places,
    { name: NODE, addresses: LAB_ADDRESSES.gateway, ports: [] },
    { name: EXTERNAL, addresses: LAB_ADDRESSES.external, ports: [] },
  ]
}

/** Every place to every declared port of every other Pod. */
export function listConnections(places: readonly Place[]): Connection[] {
  return places.flatMap((from) =>
    places
      .filter((to) => to !== from)
      .flatMap((to) => to.ports.map((port) => ({ from: from.name, to: to.name, ...port }))),
  )
}

/** The destination's primary address of a family that the source has too, and the source's of that family. */
export function addressPair(from: Place, to: Place): { source: string; destination: string } | undefined {
  for (const destination of to.addresses) {
    const source = from.addresses.find((address) => address.includes(':') === destination.includes(':'))
    if (source !== undefined) return { source, destination }
  }
  return undefined
}

/** The policies that an end enforces, for one direction only. Nobody enforces those of an end without a guard. */
function enforcedBy(place: Place, policies: readonly NetworkPolicy[], type: PolicyType): NetworkPolicy[] {
  if (place.guard === undefined || place.guard.mode !== 'enforce') return []
  return policies
    .filter(({ namespace, policyTypes }) => namespace === place.pod?.namespace && policyTypes.includes(type))
    .map((policy) => ({ ...policy, policyTypes: [type] }))
}

/**
 * A place as its peer's policies see it: where only shown identities count, a Pod without a guard is an address, and
 * so is every Pod over a protocol that shows none.
 */
function endpointFor(place: Place, address: string, judge: Place, protocol: Protocol): Endpoint {
  const isShownOnly = judge.guard?.peersWithoutIdentity === 'deny'
  const isShown = !isShownOnly || (place.guard !== undefined && protocol === 'TCP')
  return place.pod !== undefined && isShown ? { pod: place.pod, address } : { address }
}

/** The engine's answer for a connection; the node's exemption for probes is part of it. */
export function judgeConnection(
  from: Place,
  to: Place,
  { protocol, port }: Pick<Connection, 'protocol' | 'port'>,
  policies: readonly NetworkPolicy[],
): ConnectionAnswer {
  const pair = addressPair(from, to)
  if (pair === undefined) {
    return { reachable: false, decidedBy: 'none', reason: 'the two ends have no address family in common' }
  }
  const answer = evaluateConnection({
    policies: [...enforcedBy(from, policies, 'Egress'), ...enforcedBy(to, policies, 'Ingress')],
    client: endpointFor(from, pair.source, to, protocol),
    server: endpointFor(to, pair.destination, from, protocol),
    protocol,
    port,
  })
  if (from.guard === undefined && to.guard === undefined) {
    return { reachable: true, decidedBy: 'none', reason: 'no sidecar guards either end' }
  }
  if (!answer.reachable && from.name === NODE && to.guard !== undefined && admitsNode(to.guard, protocol, port)) {
    const why = to.guard.nodeAccess === 'all' ? 'node access is "all"' : 'the port is one of its probes'
    return { reachable: true, decidedBy: 'none', reason: `the Pod's own node is let through: ${why}` }
  }
  return answer
}
