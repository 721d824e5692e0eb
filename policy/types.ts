/** A NetworkPolicy (networking.k8s.io/v1) after validation and defaults, and the parties that it decides about. */

import type { PodIdentity, Protocol } from '../api/identity.ts'
import type { Cidr } from './address.ts'

export type Direction = 'ingress' | 'egress'

export interface NetworkPolicy {
  readonly namespace: string
  readonly name: string
  readonly podSelector: LabelSelector
  /** The directions that the policy isolates, defaults applied. */
  readonly policyTypes: readonly PolicyType[]
  readonly ingress: readonly PolicyRule[]
  readonly egress: readonly PolicyRule[]
}

export type PolicyType = 'Ingress' | 'Egress'

/** An ingress or egress rule: `peers` is its `from` or `to`. An empty list matches all peers, or all ports. */
export interface PolicyRule {
  readonly peers: readonly PolicyPeer[]
  readonly ports: readonly PolicyPort[]
}

/** Selectors match Pods only: without namespaceSelector those of the policy's own namespace. ipBlock matches any address. */
export type PolicyPeer =
  | { readonly kind: 'pods'; readonly namespaceSelector?: LabelSelector; readonly podSelector?: LabelSelector }
  | { readonly kind: 'ipBlock'; readonly cidr: Cidr; readonly except: readonly Cidr[] }

/** Without `port` every port of the protocol; a string names a port of the destination Pod; endPort is inclusive. */
export interface PolicyPort {
  readonly protocol: Protocol
  readonly port?: number | string
  readonly endPort?: number
}

/** All requirements hold (AND); none at all (`{}`) selects everything. matchLabels has become operator In. */
export type LabelSelector = readonly LabelRequirement[]

export interface LabelRequirement {
  readonly key: string
  readonly operator: LabelOperator
  readonly values: readonly string[]
}

export type LabelOperator = 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'

/** The Pod that policies select. With a uid, the Pod itself as peer is always allowed. */
export type Subject = Pick<PodIdentity, 'namespace' | 'labels' | 'ports'> & { readonly uid?: string }

/** The other end of a connection. `address` is canonical text; only ipBlock rules look at it. */
export type Peer =
  | { readonly kind: 'identified' | 'attested'; readonly pod: PodIdentity; readonly address: string }
  | { readonly kind: 'node' | 'external'; readonly address: string }

/** What policies can say of a packet's protocol; `other` (no ports) matches only rules that do not list ports. */
export type TrafficProtocol = Protocol | 'other'

/** The destination port as the destination itself sees it: behind any Service. */
export interface TrafficPort {
  readonly protocol: TrafficProtocol
  readonly port: number
}

export type Decision = Allowed | Denied

/** `rule` is the index in the policy's list of its direction. */
export interface Allowed {
  readonly allowed: true
  readonly by: { readonly policy: string; readonly rule: number } | 'not-isolated' | 'itself'
}

/** `isolatedBy` has the policies, as `namespace/name`, sorted. */
export interface Denied {
  readonly allowed: false
  readonly isolatedBy: readonly string[]
}

/** `namespace/name`, as decisions and people name a policy. */
export function policyName(policy: Pick<NetworkPolicy, 'namespace' | 'name'>): string {
  return `${policy.namespace}/${policy.name}`
}
