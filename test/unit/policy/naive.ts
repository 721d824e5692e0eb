/**
 * A second evaluator, written from the sentences of the Kubernetes API reference (networking.k8s.io/v1) over the raw
 * objects, without a look at policy/: slow, and nothing shared with it.
 */

import type { PodIdentity } from '../../../api/identity.ts'

export interface RawPolicy {
  metadata: { namespace: string; name: string }
  spec: RawSpec
}
export interface RawSpec {
  podSelector: RawSelector
  policyTypes?: string[]
  ingress?: { from?: RawPeer[]; ports?: RawPort[] }[]
  egress?: { to?: RawPeer[]; ports?: RawPort[] }[]
}
export interface RawSelector {
  matchLabels?: Record<string, string>
  matchExpressions?: { key: string; operator: string; values?: string[] }[]
}
export interface RawPeer {
  podSelector?: RawSelector
  namespaceSelector?: RawSelector
  ipBlock?: { cidr: string; except?: string[] }
}
export interface RawPort {
  protocol?: string
  port?: number | string
  endPort?: number
}
export interface RawEnd {
  pod?: PodIdentity
  address: string
}

/** Whether traffic between `subject` and `other` may pass at the subject. */
export function naiveAllows(
  policies: RawPolicy[],
  subject: PodIdentity,
  direction: 'ingress' | 'egress',
  other: RawEnd,
  protocol: string,
  port: number,
): boolean {
  // "podSelector selects the pods to which this NetworkPolicy object applies", in the policy's namespace
  const applying = policies.filter(
    ({ metadata, spec }) => metadata.namespace === subject.namespace && selects(spec.podSelector, subject.labels),
  )
  // "policyTypes ... If this field is not specified, it will default based on the existence of ingress or egress rules;
  // policies that contain an egress section are assumed to affect egress, and all policies (whether or not they contain
  // an ingress section) are assumed to affect ingress."
  const isolating = applying.filter(({ spec }) => {
    if (spec.policyTypes !== undefined && spec.policyTypes.length > 0) {
      return spec.policyTypes.some((type) => type.toLowerCase() === direction)
    }
    return direction === 'ingress' || (spec.egress ?? []).length > 0
  })
  // "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod"
  if (isolating.length === 0) return true
  // "Pods cannot block access to themselves"
  if (other.pod !== undefined && other.pod.uid === subject.uid) return true
  // "... OR if the traffic matches at least one rule across all of the NetworkPolicy objects whose podSelector matches"
  const destination = direction === 'ingress' ? subject : other.pod
  for (const { metadata, spec } of isolating) {
    const rules =
      direction === 'ingress'
        ? (spec.ingress ?? []).map((rule) => ({ peers: rule.from ?? [], ports: rule.ports ?? [] }))
        : (spec.egress ?? []).map((rule) => ({ peers: rule.to ?? [], ports: rule.ports ?? [] }))
    for (const { peers, ports } of rules) {
      // "If this field is empty or missing, this rule matches all sources"
      const peerMatches = peers.length === 0 || peers.some((peer) => isPeer(peer, metadata.namespace, other))
      // "If this field is empty or missing, this rule matches all ports"
      const portMatches = ports.length === 0 || ports.some((item) => isPort(item, destination, protocol, port))
      // "must match both ports and from"
      if (peerMatches && portMatches) return true
    }
  }
  return false
}

function isPeer(peer: RawPeer, policyNamespace: string, other: RawEnd): boolean {
  if (peer.ipBlock !== undefined) {
    const { cidr, except = [] } = peer.ipBlock
    return isInside(other.address, cidr) && !except.some((block) => isInside(other.address, block))
  }
  if (other.pod === undefined) return false
  // "If namespaceSelector is also set, then the NetworkPolicyPeer as a whole selects the pods matching podSelector in
  // the namespaces selected by namespaceSelector. Otherwise it selects the pods matching podSelector in the policy's
  // own namespace."
  const namespaceMatches =
    peer.namespaceSelector === undefined
      ? other.pod.namespace === policyNamespace
      : selects(peer.namespaceSelector, other.pod.namespaceLabels)
  // "Otherwise it selects all pods in the namespaces selected by namespaceSelector."
  const podMatches = peer.podSelector === undefined || selects(peer.podSelector, other.pod.labels)
  return namespaceMatches && podMatches
}

function isPort(item: RawPort, destination: PodIdentity | undefined, protocol: string, port: number): boolean {
  // "If not specified, this field defaults to TCP."
  if ((item.protocol ?? 'TCP') !== protocol) return false
  // "If this field is not provided, this matches all port names and numbers."
  if (item.port === undefined) return true
  if (typeof item.port === 'number') {
    // "endPort indicates that the range of ports from port to endPort if set, inclusive, should be allowed"
    return item.endPort === undefined ? port === item.port : item.port <= port && port <= item.endPort
  }
  // "This can either be a numerical or named port on a pod."
  return (destination?.ports ?? []).some(
    (named) => named.name === item.port && named.port === port && named.protocol === protocol,
  )
}

function selects(selector: RawSelector, labels: Record<string, string>): boolean {
  const present = new Map(Object.entries(labels))
  // "A single {key,value} in the matchLabels map is equivalent to an element of matchExpressions, whose key field is
  // "key", the operator is "In", and the values array contains only "value". The requirements are ANDed."
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) if (present.get(key) !== value) return false
  for (const { key, operator, values = [] } of selector.matchExpressions ?? []) {
    const value = present.get(key)
    if (operator === 'In' && (value === undefined || !values.includes(value))) return false
    if (operator === 'NotIn' && value !== undefined && values.includes(value)) return false
    if (operator === 'Exists' && value === undefined) return false
    if (operator === 'DoesNotExist' && value !== undefined) return false
  }
  return true
}

function isInside(address: string, cidr: string): boolean {
  const [base = '', prefix = ''] = cidr.split('/')
  if (base.includes(':') !== address.includes(':')) return false
  const free = BigInt((base.includes(':') ? 128 : 32) - Number(prefix))
  return toNumber(address) >> free === toNumber(base) >> free
}

function toNumber(address: string): bigint {
  if (!address.includes(':')) return address.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n)
  const [left = '', right = ''] = address.split('::')
  const head = left === '' ? [] : left.split(':')
  const tail = right === '' ? [] : right.split(':')
  const middle = address.includes('::') ? Array<string>(8 - head.length - tail.length).fill('0') : []
  return [...head, ...middle, ...tail].reduce((sum, group) => sum * 65536n + BigInt(`0x${group}`), 0n)
}
