import type { V1Service } from '@kubernetes/client-node'
import type { NodePort, Protocol } from '../../api/identity.ts'
import { canonicalAddress } from '../../policy/address.ts'
import { familyOf } from './endpoints.ts'

/**
 * The node ports of a Service on node addresses of one family. The health check's port is none of them: the node's own
 * proxy answers there. Nor is the traffic policy asked: with Local too, what Pods send to a node port may reach every
 * backend (kube-proxy sends it the way of the cluster address).
 */
export function nodePortsOf({ spec }: V1Service, family: 'IPv4' | 'IPv6'): NodePort[] {
  if (spec?.type !== 'NodePort' && spec?.type !== 'LoadBalancer') return []
  const clusterIps = spec.clusterIPs ?? [spec.clusterIP ?? '']
  const serviceAddress = clusterIps
    .map((text) => canonicalAddress(text))
    .find((address) => address !== undefined && familyOf(address) === family)
  // A Service of the other family alone: the port of this one is the node's.
  if (serviceAddress === undefined) return []
  return (spec.ports ?? []).flatMap(({ nodePort, port, protocol = 'TCP' }) =>
    nodePort ? [{ protocol: protocol as Protocol, port: nodePort, serviceAddress, servicePort: port }] : [],
  )
}

/** Node ports by protocol and number, without those that two Services claim: no one knows where these lead. */
export function withoutClashes(ports: readonly NodePort[]): NodePort[] {
  const claims = Map.groupBy(ports, ({ protocol, port }) => `${protocol} ${port}`)
  return [...claims.values()].flatMap((claimed) => (claimed.length === 1 ? claimed : []))
}
