/**
 * Policies prepared for one Pod: which of them isolate it in which direction, and their rules with everything resolved
 * that depends on the Pod alone. Compiled once a change; evaluate.ts asks it for each connection.
 */

import type { NamedPort, Protocol } from '../api/identity.ts'
import type { Cidr } from './address.ts'
import { matchesSelector } from './selector.ts'
import {
  type Allowed,
  type Denied,
  type Direction,
  type LabelSelector,
  type NetworkPolicy,
  type PolicyPeer,
  type PolicyPort,
  type PolicyRule,
  policyName,
  type Subject,
  type TrafficProtocol,
} from './types.ts'

export interface CompiledPolicy {
  readonly namespace: string
  /** '' where the subject's uid was not told. */
  readonly uid: string
  readonly ingress: CompiledDirection
  readonly egress: CompiledDirection
}

export interface CompiledDirection {
  readonly isolated: boolean
  /** The decision when no rule allows; one object for all connections. */
  readonly denied: Denied
  readonly rules: readonly CompiledRule[]
  /** Some rule has an ipBlock, so that decisions depend on the peer's address beside its identity. */
  readonly dependsOnAddress: boolean
}

export interface CompiledRule {
  /** The decision when this rule allows; one object for all connections. */
  readonly allowed: Allowed
  /** undefined: all peers. */
  readonly peers: readonly CompiledPeer[] | undefined
  /** undefined: all ports of all protocols. */
  readonly ports: readonly CompiledPort[] | undefined
}

export type CompiledPeer =
  /** `namespace` where the policy's own is meant, else the selector of the namespace's labels. */
  | { readonly kind: 'pods'; readonly namespace: string; readonly podSelector: LabelSelector }
  | { readonly kind: 'namespaces'; readonly namespaceSelector: LabelSelector; readonly podSelector: LabelSelector }
  | { readonly kind: 'ipBlock'; readonly cidr: Cidr; readonly except: readonly Cidr[] }

/** Inclusive numbers, or the name of a port of the peer Pod (egress only). */
export type CompiledPort =
  | { readonly protocol: Protocol; readonly first: number; readonly last: number }
  | { readonly protocol: Protocol; readonly name: string }

const ALL_LABELS: LabelSelector = []

/** Prepares the policies that select the subject; those of other namespaces never do. */
export function compile(policies: readonly NetworkPolicy[], subject: Subject): CompiledPolicy {
  const selecting = policies.filter((policy) => selectsSubject(policy, subject)).sort(byName)
  return {
    namespace: subject.namespace,
    uid: subject.uid ?? '',
    ingress: compileDirection(selecting, 'ingress', subject),
    egress: compileDirection(selecting, 'egress', subject),
  }
}

/** Whether the policy applies to the Pod: its own namespace and its podSelector. */
export function selectsSubject(policy: NetworkPolicy, subject: Pick<Subject, 'namespace' | 'labels'>): boolean {
  return policy.namespace === subject.namespace && matchesSelector(policy.podSelector, subject.labels)
}

/** Whether the policy isolates the Pods that it selects in this direction. */
export function isolatesDirection(policy: NetworkPolicy, direction: Direction): boolean {
  return policy.policyTypes.includes(direction === 'ingress' ? 'Ingress' : 'Egress')
}

/** Order by namespace and name in code units, so that the policy that a decision names does not depend on a watch's order. */
export function byName(one: NetworkPolicy, other: NetworkPolicy): number {
  const [left, right] = [policyName(one), policyName(other)]
  return left < right ? -1 : left > right ? 1 : 0
}

function compileDirection(
  selecting: readonly NetworkPolicy[],
  direction: Direction,
  subject: Subject,
): CompiledDirection {
  const isolating = selecting.filter((policy) => isolatesDirection(policy, direction))
  const rules = isolating.flatMap((policy) =>
    policy[direction].map((rule, index) => compileRule(policy, rule, index, direction, subject.ports)),
  )
  return {
    isolated: isolating.length > 0,
    denied: { allowed: false, isolatedBy: isolating.map(policyName) },
    rules,
    dependsOnAddress: rules.some((rule) => rule.peers?.some((peer) => peer.kind === 'ipBlock')),
  }
}

function compileRule(
  policy: NetworkPolicy,
  rule: PolicyRule,
  index: number,
  direction: Direction,
  subjectPorts: readonly NamedPort[],
): CompiledRule {
  const ports = rule.ports.flatMap((port) => compilePort(port, direction, subjectPorts))
  return {
    allowed: { allowed: true, by: { policy: policyName(policy), rule: index } },
    peers: rule.peers.length === 0 ? undefined : rule.peers.map((peer) => compilePeer(peer, policy.namespace)),
    // A rule whose ports resolve to none has an empty list here and allows nothing.
    ports: rule.ports.length === 0 ? undefined : ports,
  }
}

function compilePeer(peer: PolicyPeer, namespace: string): CompiledPeer {
  if (peer.kind === 'ipBlock') return peer
  const podSelector = peer.podSelector ?? ALL_LABELS
  return peer.namespaceSelector === undefined
    ? { kind: 'pods', namespace, podSelector }
    : { kind: 'namespaces', namespaceSelector: peer.namespaceSelector, podSelector }
}

function compilePort(
  { protocol, port, endPort }: PolicyPort,
  direction: Direction,
  subjectPorts: readonly NamedPort[],
): CompiledPort[] {
  if (port === undefined) return [{ protocol, first: 0, last: 65535 }]
  if (typeof port === 'number') return [{ protocol, first: port, last: endPort ?? port }]
  // Names are those of the destination: the subject itself for ingress, each peer for egress.
  if (direction === 'egress') return [{ protocol, name: port }]
  return subjectPorts
    .filter((named) => named.name === port && named.protocol === protocol)
    .map((named) => ({ protocol, first: named.port, last: named.port }))
}

/**
 * Whether any peer at all could be allowed: the direction is not isolated, or has a rule that could match some port of
 * the protocol. The port is not asked for, because a Service may translate it.
 */
export function couldAllowAnyPeer(compiled: CompiledPolicy, direction: Direction, protocol: TrafficProtocol): boolean {
  const { isolated, rules } = compiled[direction]
  if (!isolated) return true
  return rules.some((rule) => rule.ports === undefined || rule.ports.some((port) => port.protocol === protocol))
}
