/**
 * Decides one connection by compiled policies. Rules only ever allow, so the first that matches ends the search.
 * What is no business of policies (the Pod's own node, probes, modes) is decided by the callers.
 */

import type { PodIdentity } from '../api/identity.ts'
import { cidrContains, parseAddress } from './address.ts'
import type { CompiledPeer, CompiledPolicy, CompiledPort } from './compile.ts'
import { matchesSelector } from './selector.ts'
import type { Allowed, Decision, Direction, Peer, TrafficPort, TrafficProtocol } from './types.ts'

const NOT_ISOLATED: Allowed = { allowed: true, by: 'not-isolated' }
const ITSELF: Allowed = { allowed: true, by: 'itself' }

/**
 * The decision for one connection between the subject and a peer. `port` is the destination's real one: the subject's
 * for ingress, the peer's for egress. Decisions are shared objects: the same rule gives the same object.
 */
export function evaluate(compiled: CompiledPolicy, direction: Direction, peer: Peer, port: TrafficPort): Decision {
  const { isolated, rules, denied, dependsOnAddress } = compiled[direction]
  if (!isolated) return NOT_ISOLATED
  const pod = 'pod' in peer ? peer.pod : undefined
  // "Pods cannot block access to themselves" (Kubernetes, concepts/services-networking/network-policies).
  if (pod !== undefined && pod.uid === compiled.uid && compiled.uid !== '') return ITSELF
  const address = dependsOnAddress ? parseAddress(peer.address) : undefined
  for (const rule of rules) {
    if (rule.ports !== undefined && !matchesAnyPort(rule.ports, port, pod)) continue
    if (rule.peers === undefined || matchesAnyPeer(rule.peers, pod, address)) return rule.allowed
  }
  return denied
}

function matchesAnyPort(ports: readonly CompiledPort[], { protocol, port }: TrafficPort, pod?: PodIdentity): boolean {
  for (const candidate of ports) {
    if (candidate.protocol !== protocol) continue
    if ('name' in candidate) {
      if (pod !== undefined && hasNamedPort(pod, candidate.name, protocol, port)) return true
    } else if (port >= candidate.first && port <= candidate.last) return true
  }
  return false
}

function hasNamedPort(pod: PodIdentity, name: string, protocol: TrafficProtocol, port: number): boolean {
  return pod.ports.some((named) => named.name === name && named.protocol === protocol && named.port === port)
}

function matchesAnyPeer(
  peers: readonly CompiledPeer[],
  pod: PodIdentity | undefined,
  address: Uint8Array | undefined,
): boolean {
  for (const peer of peers) if (matchesPeer(peer, pod, address)) return true
  return false
}

function matchesPeer(peer: CompiledPeer, pod: PodIdentity | undefined, address: Uint8Array | undefined): boolean {
  if (peer.kind === 'ipBlock') {
    if (address === undefined || !cidrContains(peer.cidr, address)) return false
    return !peer.except.some((except) => cidrContains(except, address))
  }
  if (pod === undefined || !matchesSelector(peer.podSelector, pod.labels)) return false
  return peer.kind === 'pods'
    ? pod.namespace === peer.namespace
    : matchesSelector(peer.namespaceSelector, pod.namespaceLabels)
}
