import type { Labels } from '../../api/identity.ts'

/** What injection needs to know of a Pod's namespace. */
export interface NamespaceFacts {
  readonly name: string
  readonly labels: Labels
  readonly annotations: Labels
  /** A ResourceQuota on limits.cpu refuses Pods with a container that has no CPU limit. */
  readonly cpuLimitRequired?: boolean
}
