/** A NetworkPolicy that would allow one connection which policies deny. */

import type { Labels } from '../api/identity.ts'
import { formatAddress, parseAddress } from './address.ts'
import { byName, isolatesDirection, selectsSubject } from './compile.ts'
import { POLICY_API_VERSION } from './read.ts'
import type { Direction, LabelSelector, NetworkPolicy, Peer, PolicyType, Subject, TrafficPort } from './types.ts'

/** As kubectl takes it. */
export interface PolicyObject {
  readonly apiVersion: string
  readonly kind: 'NetworkPolicy'
  readonly metadata: { readonly namespace: string; readonly name: string }
  readonly spec: Readonly<Record<string, unknown>>
}

/** Labels that name one Pod or one version of its workload: a rule by them would not hold for the next. */
const PASSING_LABELS = [
  'pod-template-hash',
  'controller-revision-hash',
  'pod-template-generation',
  'statefulset.kubernetes.io/pod-name',
  'apps.kubernetes.io/pod-index',
  'controller-uid',
  'job-name',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-name',
  'batch.kubernetes.io/job-completion-index',
]
const NAMESPACE_NAME = 'kubernetes.io/metadata.name'

/**
 * A policy that, beside the others, allows the peer and port to a subject that some policy isolates in this direction:
 * policies add up. It selects the same Pods as the first of those, so that it isolates nobody else. The peer is named by
 * its labels, or by its address where it is no Pod. Undefined where nothing isolates the subject, where the protocol has
 * no ports, or where the peer has no address.
 */
export function suggestPolicy(
  policies: readonly NetworkPolicy[],
  subject: Subject,
  direction: Direction,
  peer: Peer,
  { protocol, port }: TrafficPort,
): PolicyObject | undefined {
  const [isolating] = policies
    .filter((policy) => selectsSubject(policy, subject) && isolatesDirection(policy, direction))
    .sort(byName)
  const from = peerOf(peer)
  if (isolating === undefined || from === undefined || protocol === 'other') return undefined
  const type: PolicyType = direction === 'ingress' ? 'Ingress' : 'Egress'
  const rule = { [direction === 'ingress' ? 'from' : 'to']: [from], ports: [{ protocol, port }] }
  return {
    apiVersion: POLICY_API_VERSION,
    kind: 'NetworkPolicy',
    metadata: { namespace: subject.namespace, name: nameBeside(isolating.name, `-${direction}-${port}`) },
    spec: { podSelector: selectorObject(isolating.podSelector), policyTypes: [type], [direction]: [rule] },
  }
}

/** A DNS subdomain, as names of policies are: at most 253 characters. */
function nameBeside(name: string, ending: string): string {
  return name.slice(0, 253 - ending.length).replace(/[-.]+$/, '') + ending
}

function peerOf(peer: Peer): object | undefined {
  if ('pod' in peer) {
    const { namespaceLabels, labels } = peer.pod
    const name = namespaceLabels[NAMESPACE_NAME]
    const lasting = Object.entries(labels).filter(([key]) => !PASSING_LABELS.includes(key))
    return {
      namespaceSelector: labelsObject(name === undefined ? namespaceLabels : { [NAMESPACE_NAME]: name }),
      podSelector: labelsObject(Object.fromEntries(lasting)),
    }
  }
  const address = parseAddress(peer.address)
  return address && { ipBlock: { cidr: `${formatAddress(address)}/${address.length * 8}` } }
}

/** `{}`, which selects all, where there are none. */
function labelsObject(labels: Labels): object {
  return Object.keys(labels).length === 0 ? {} : { matchLabels: { ...labels } }
}

function selectorObject(selector: LabelSelector): object {
  const matchLabels: Record<string, string> = {}
  const matchExpressions: object[] = []
  for (const { key, operator, values } of selector) {
    const [value, ...others] = values
    if (operator === 'In' && value !== undefined && others.length === 0 && !Object.hasOwn(matchLabels, key)) {
      matchLabels[key] = value
    } else matchExpressions.push({ key, operator, ...(values.length > 0 && { values: [...values] }) })
  }
  return {
    ...(Object.keys(matchLabels).length > 0 && { matchLabels }),
    ...(matchExpressions.length > 0 && { matchExpressions }),
  }
}
