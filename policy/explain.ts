/** Why a connection is allowed or denied: every policy and rule with what it asked for and what it found. */

import { cidrContains, formatCidr, parseAddress } from './address.ts'
import { byName, compile, isolatesDirection } from './compile.ts'
import { evaluate } from './evaluate.ts'
import { failedRequirement, formatRequirement, formatSelector } from './selector.ts'
import {
  type Decision,
  type Direction,
  type NetworkPolicy,
  type Peer,
  type PolicyPeer,
  type PolicyPort,
  type PolicyRule,
  policyName,
  type Subject,
  type TrafficPort,
} from './types.ts'

export interface Explanation {
  readonly direction: Direction
  readonly decision: Decision
  readonly policies: readonly PolicyExplanation[]
  /** What would allow a denied connection, a line each; empty where it is allowed. */
  readonly wouldAllow: readonly string[]
}

export interface PolicyExplanation {
  readonly policy: string
  readonly selects: boolean
  /** It selects the Pod and its policyTypes name the direction. */
  readonly isolates: boolean
  readonly reason: string
  /** Of the direction; none where the policy does not isolate. */
  readonly rules: readonly RuleExplanation[]
}

export interface RuleExplanation {
  readonly rule: number
  readonly allows: boolean
  readonly peers: readonly EntryExplanation[]
  readonly ports: readonly EntryExplanation[]
}

/** One item of `from`, `to` or `ports`, or the absence of the list, which matches everything. */
export interface EntryExplanation {
  /** `ingress[0].from[1]` */
  readonly path: string
  readonly matches: boolean
  readonly reason: string
}

/** Explains what evaluate() decides for the subject, over all policies (those of other namespaces too). */
export function explain(
  policies: readonly NetworkPolicy[],
  subject: Subject,
  direction: Direction,
  peer: Peer,
  port: TrafficPort,
): Explanation {
  const decision = evaluate(compile(policies, subject), direction, peer, port)
  const explained = [...policies].sort(byName).map((policy) => explainPolicy(policy, subject, direction, peer, port))
  return {
    direction,
    decision,
    policies: explained,
    wouldAllow: decision.allowed ? [] : explained.flatMap((policy) => wouldAllow(policy, direction)),
  }
}

function explainPolicy(
  policy: NetworkPolicy,
  subject: Subject,
  direction: Direction,
  peer: Peer,
  port: TrafficPort,
): PolicyExplanation {
  const name = policyName(policy)
  const unselected = whyNotSelected(policy, subject)
  if (unselected !== undefined) return { policy: name, selects: false, isolates: false, reason: unselected, rules: [] }
  if (!isolatesDirection(policy, direction)) {
    const reason = `policyTypes is ${policy.policyTypes.join(', ')}: it says nothing about ${direction}`
    return { policy: name, selects: true, isolates: false, reason, rules: [] }
  }
  const rules = policy[direction].map((rule, index) => explainRule(policy, rule, index, subject, direction, peer, port))
  return {
    policy: name,
    selects: true,
    isolates: true,
    reason: `podSelector ${formatSelector(policy.podSelector)} selects the Pod`,
    rules,
  }
}

function whyNotSelected(policy: NetworkPolicy, subject: Subject): string | undefined {
  if (policy.namespace !== subject.namespace) return `it is in another namespace than the Pod (${subject.namespace})`
  const failed = failedRequirement(policy.podSelector, subject.labels)
  return failed === undefined ? undefined : `podSelector asks for ${formatRequirement(failed)}`
}

function explainRule(
  policy: NetworkPolicy,
  rule: PolicyRule,
  index: number,
  subject: Subject,
  direction: Direction,
  peer: Peer,
  port: TrafficPort,
): RuleExplanation {
  const path = `${direction}[${index}]`
  const peersPath = `${path}.${direction === 'ingress' ? 'from' : 'to'}`
  const destination = direction === 'ingress' ? subject : 'pod' in peer ? peer.pod : undefined
  const peers = rule.peers.map((entry, item) => ({
    path: `${peersPath}[${item}]`,
    ...explainPeer(policy, entry, peer),
  }))
  const ports = rule.ports.map((entry, item) => ({
    path: `${path}.ports[${item}]`,
    ...explainPort(entry, port, destination),
  }))
  if (peers.length === 0) peers.push({ path: peersPath, matches: true, reason: 'absent: all peers' })
  if (ports.length === 0) ports.push({ path: `${path}.ports`, matches: true, reason: 'absent: all ports' })
  const allows = peers.some((entry) => entry.matches) && ports.some((entry) => entry.matches)
  return { rule: index, allows, peers, ports }
}

type Match = Omit<EntryExplanation, 'path'>

function explainPeer(policy: NetworkPolicy, entry: PolicyPeer, peer: Peer): Match {
  if (entry.kind === 'ipBlock') {
    const address = parseAddress(peer.address)
    const block = formatCidr(entry.cidr)
    if (address === undefined || !cidrContains(entry.cidr, address)) {
      return { matches: false, reason: `${peer.address} is not in ${block}` }
    }
    const except = entry.except.find((inner) => cidrContains(inner, address))
    if (except !== undefined) return { matches: false, reason: `${peer.address} is excepted by ${formatCidr(except)}` }
    return { matches: true, reason: `${peer.address} is in ${block}` }
  }
  if (!('pod' in peer)) {
    const kind = peer.kind === 'node' ? 'a node' : 'no Pod of the cluster'
    return { matches: false, reason: `selectors match Pods only; ${peer.address} is ${kind}` }
  }
  const { pod } = peer
  if (entry.namespaceSelector === undefined) {
    if (pod.namespace !== policy.namespace) {
      const reason = `without namespaceSelector only Pods of ${policy.namespace} match; the peer is in ${pod.namespace}`
      return { matches: false, reason }
    }
  } else {
    const failed = failedRequirement(entry.namespaceSelector, pod.namespaceLabels)
    if (failed !== undefined) {
      const reason = `namespaceSelector asks for ${formatRequirement(failed)}; ${pod.namespace} has ${found(failed.key, pod.namespaceLabels)}`
      return { matches: false, reason }
    }
  }
  const failed = failedRequirement(entry.podSelector ?? [], pod.labels)
  if (failed === undefined) return { matches: true, reason: `${describePeer(peer)} has the labels` }
  const reason = `podSelector asks for ${formatRequirement(failed)}; ${describePeer(peer)} has ${found(failed.key, pod.labels)}`
  return { matches: false, reason }
}

function found(key: string, labels: Readonly<Record<string, string>>): string {
  return Object.hasOwn(labels, key) ? `${key}=${labels[key]}` : `no ${key}`
}

function explainPort(entry: PolicyPort, { protocol, port }: TrafficPort, destination?: Pick<Subject, 'ports'>): Match {
  const asked = formatPolicyPort(entry)
  const given = formatTrafficPort({ protocol, port })
  if (entry.protocol !== protocol) return { matches: false, reason: `${asked} is not ${given}` }
  if (typeof entry.port !== 'string') {
    const first = entry.port ?? 0
    const last = entry.endPort ?? entry.port ?? 65535
    const matches = port >= first && port <= last
    return { matches, reason: matches ? `${asked} has ${given}` : `${asked} is not ${given}` }
  }
  if (destination === undefined) {
    return { matches: false, reason: `${asked} is a Pod's port name; the destination is no Pod` }
  }
  const named = destination.ports.filter((candidate) => candidate.name === entry.port)
  if (named.length === 0) return { matches: false, reason: `the destination Pod has no port named ${entry.port}` }
  const matches = named.some((candidate) => candidate.protocol === protocol && candidate.port === port)
  const numbers = named.map(formatTrafficPort).join(', ')
  return { matches, reason: `${entry.port} is ${numbers} of the destination Pod, ${matches ? 'as' : 'not'} ${given}` }
}

/** `TCP/8080`; `other` for a protocol without ports. */
export function formatTrafficPort({ protocol, port }: TrafficPort): string {
  return protocol === 'other' ? 'another protocol' : `${protocol}/${port}`
}

function formatPolicyPort({ protocol, port, endPort }: PolicyPort): string {
  if (port === undefined) return `${protocol}, all ports`
  return endPort === undefined ? `${protocol}/${port}` : `${protocol}/${port}-${endPort}`
}

/** `default/web` for a Pod, else its address. */
export function describePeer(peer: Peer): string {
  if ('pod' in peer) return `${peer.pod.namespace}/${peer.pod.name}`
  return peer.kind === 'node' ? `node ${peer.address}` : peer.address
}

/** What each isolating policy lacks: the rules that are one step away first, or any rule at all. */
function wouldAllow({ policy, isolates, rules }: PolicyExplanation, direction: Direction): string[] {
  if (!isolates) return []
  const near = rules.flatMap(({ peers, ports }) => {
    const peerMatches = peers.some((entry) => entry.matches)
    const portMatches = ports.some((entry) => entry.matches)
    if (peerMatches === portMatches) return []
    const missing = peerMatches ? ports : peers
    return missing.map((entry) => `${policy} ${entry.path}: ${entry.reason}`)
  })
  if (near.length > 0) return near
  return [`${policy}: ${rules.length === 0 ? `has no ${direction} rule; add one` : `add a rule to ${direction}`}`]
}

/** The explanation as text, one line a fact, for a terminal. */
export function formatExplanation(explanation: Explanation): string {
  const { direction, decision, policies } = explanation
  const lines = [formatDecision(direction, decision), ...formatPolicies(direction, policies).map((line) => `  ${line}`)]
  if (explanation.wouldAllow.length > 0) {
    lines.push('  What would allow it:', ...explanation.wouldAllow.map((line) => `    ${line}`))
  }
  return lines.join('\n')
}

/** The policies with their rules, one line a fact. */
export function formatPolicies(direction: Direction, policies: readonly PolicyExplanation[]): string[] {
  return policies.flatMap(({ policy, isolates, reason, rules }) => [
    `${policy}: ${isolates ? 'isolates' : 'does not apply'}, ${reason}`,
    ...rules.flatMap(({ rule, allows, peers, ports }) => [
      `  ${direction}[${rule}] ${allows ? 'allows' : 'does not match'}`,
      ...[...peers, ...ports].map(({ path, matches, reason: why }) => `    ${matches ? 'yes' : 'no '} ${path}: ${why}`),
    ]),
  ])
}

/** `ingress allowed by default/web rule 0`, in one line. */
export function formatDecision(direction: Direction, decision: Decision): string {
  if (!decision.allowed) return `${direction} denied: isolated by ${decision.isolatedBy.join(', ')}, no rule allows it`
  if (decision.by === 'not-isolated') return `${direction} allowed: no policy isolates the Pod`
  if (decision.by === 'itself') return `${direction} allowed: a Pod always reaches itself`
  return `${direction} allowed by ${decision.by.policy} rule ${decision.by.rule}`
}
