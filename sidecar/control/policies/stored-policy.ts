/** A NetworkPolicy as the API server has it, read so that it never allows more than it says. */
import { SynguardError } from '../../../api/errors.ts'
import type { StoredObject } from '../../../kubernetes/reflector.ts'
import { salvageNetworkPolicy } from '../../../policy/salvage.ts'
import { type NetworkPolicy, policyName } from '../../../policy/types.ts'
import { ControlError } from '../errors.ts'

/** What is kept of the object: all of it is several times as much. */
export interface StoredPolicy extends StoredObject {
  readonly policy: NetworkPolicy
  /** What could not be read of it; empty where the policy is whole. */
  readonly problems: readonly SynguardError[]
}

/**
 * The policy of an object in the namespace's collection; never throws. Of one that this version does not understand
 * stands what isolates, and of its rules those that are understood; where nothing is, it isolates every Pod.
 */
export function readStoredPolicy(object: StoredObject, namespace: string): StoredPolicy {
  const { name = '', resourceVersion } = object.metadata ?? {}
  const metadata = { name, namespace, ...(resourceVersion !== undefined && { resourceVersion }) }
  const where = `NetworkPolicy ${policyName({ namespace, name })}`
  try {
    return { metadata, ...salvageNetworkPolicy(object, where) }
  } catch (error) {
    const problem =
      error instanceof SynguardError
        ? error
        : new ControlError('policies-unreadable', `${where}: ${(error as Error).message}`, { cause: error })
    const policy: NetworkPolicy = {
      namespace,
      name,
      podSelector: [],
      policyTypes: ['Ingress', 'Egress'],
      ingress: [],
      egress: [],
    }
    return { metadata, policy, problems: [problem] }
  }
}
