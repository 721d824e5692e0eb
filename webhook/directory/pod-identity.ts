import type { V1Container, V1Namespace, V1Pod } from '@kubernetes/client-node'
import type { NamedPort, PodIdentity, Protocol } from '../../api/identity.ts'
import { CONTAINER_SIDECAR } from '../../api/names.ts'
import { canonicalAddress } from '../../policy/address.ts'
import { findDegradations } from '../admission/powers.ts'

/** The Pod's addresses in canonical text, the first of each family; empty until its network is set up. */
export function podAddresses(pod: V1Pod): string[] {
  const { podIPs = [], podIP } = pod.status ?? {}
  const texts = podIPs.length > 0 ? podIPs.map(({ ip }) => ip) : [podIP]
  const addresses = texts.map((text) => (text === undefined ? undefined : canonicalAddress(text)))
  const ofFamily = (isV6: boolean) => addresses.findIndex((address) => address?.includes(':') === isV6)
  return addresses.filter(
    (address, index): address is string => address !== undefined && index === ofFamily(address.includes(':')),
  )
}

/** Whether the Pod may still hold its addresses: neither Succeeded nor Failed. */
export function isLive(pod: V1Pod): boolean {
  return pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed'
}

/** Containers that serve while the Pod runs: the ordinary ones and native sidecars. */
export function servingContainers(pod: V1Pod): V1Container[] {
  const sidecars = (pod.spec?.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always')
  return [...(pod.spec?.containers ?? []), ...sidecars]
}

/**
 * The named container ports of the Pod's spec; the first holds where two share name and protocol, as for Services.
 * Without our own sidecar's: policies do not judge its traffic, and a WIT has no room to spare.
 */
export function namedPorts(pod: V1Pod): NamedPort[] {
  const ports = new Map<string, NamedPort>()
  for (const { name: container, ports: declared = [] } of servingContainers(pod)) {
    if (container === CONTAINER_SIDECAR) continue
    for (const { name, containerPort, protocol = 'TCP' } of declared) {
      const key = `${protocol}/${name}`
      if (name && !ports.has(key)) ports.set(key, { name, port: containerPort, protocol: protocol as Protocol })
    }
  }
  return [...ports.values()]
}

/** What a WIT has room for. */
const DEGRADED_REASONS = 4
const DEGRADED_CHARACTERS = 48

/** The Pod as policies see it; a guarded Pod with the powers that let its workload get around its sidecar. */
export function podIdentity(pod: V1Pod, namespace: V1Namespace, guarded: boolean): PodIdentity {
  const degraded = guarded && pod.spec !== undefined ? shorten(findDegradations(pod.spec)) : []
  return {
    namespace: pod.metadata?.namespace ?? '',
    name: pod.metadata?.name ?? '',
    uid: pod.metadata?.uid ?? '',
    serviceAccount: pod.spec?.serviceAccountName ?? 'default',
    labels: { ...pod.metadata?.labels },
    namespaceLabels: { ...namespace.metadata?.labels },
    addresses: podAddresses(pod),
    ports: namedPorts(pod),
    ...(degraded.length === 0 ? {} : { degraded }),
  }
}

function shorten(reasons: readonly string[]): string[] {
  const shown = reasons.slice(0, DEGRADED_REASONS).map((reason) => reason.slice(-DEGRADED_CHARACTERS))
  const more = reasons.length - shown.length
  return more > 0 ? [...shown, `and ${more} more`] : shown
}
