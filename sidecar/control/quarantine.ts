import type { NetworkPolicy } from '../../policy/types.ts'

/**
 * All that is left of a Pod's policies once an operator revoked it: nobody reaches it, and it reaches nobody. Peers refuse
 * its identity; this is for those that have no sidecar, and for what shows no identity, such as UDP.
 */
export function quarantine(namespace: string): NetworkPolicy {
  return {
    namespace,
    name: 'revoked-by-an-operator',
    podSelector: [],
    policyTypes: ['Ingress', 'Egress'],
    ingress: [],
    egress: [],
  }
}
