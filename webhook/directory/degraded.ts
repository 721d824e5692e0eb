import type { V1Pod, V1SecurityContext } from '@kubernetes/client-node'
import { CONTAINER_INIT, CONTAINER_SIDECAR, SIDECAR_UID } from '../../api/names.ts'

/** Capabilities that reach into a network namespace or another process (design, section 13). */
const POWERS = ['NET_RAW', 'NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'BPF', 'ALL']
const OURS: readonly string[] = [CONTAINER_INIT, CONTAINER_SIDECAR]

/**
 * The powers that let the Pod's workload get around its own sidecar, by its spec: short words, as a WIT carries them;
 * sorted, each once. Empty for a Pod as injection leaves it.
 */
export function degradedReasons(pod: V1Pod): string[] {
  const { spec } = pod
  const reasons = new Set<string>()
  if (spec?.hostPID) reasons.add('hostPID')
  if (spec?.shareProcessNamespace) reasons.add('shareProcessNamespace')
  const containers = [
    ...(spec?.initContainers ?? []),
    ...(spec?.containers ?? []),
    ...(spec?.ephemeralContainers ?? []),
  ]
  for (const { name, securityContext } of containers) {
    if (OURS.includes(name)) continue
    for (const power of powersOf(securityContext)) reasons.add(power)
    // The rules recognise the sidecar's own raw packets by its user.
    if ((securityContext?.runAsUser ?? spec?.securityContext?.runAsUser) === SIDECAR_UID) reasons.add('runAsUser')
  }
  return [...reasons].sort()
}

function powersOf(context: V1SecurityContext | undefined): string[] {
  if (context?.privileged) return ['privileged']
  const add = (context?.capabilities?.add ?? []).map(capabilityName)
  const drop = (context?.capabilities?.drop ?? []).map(capabilityName)
  const added = POWERS.filter((power) => add.includes(power))
  // Container runtimes give NET_RAW unless told otherwise.
  return drop.includes('NET_RAW') || drop.includes('ALL') ? added : [...added, 'NET_RAW']
}

function capabilityName(text: string): string {
  return text.toUpperCase().replace(/^CAP_/, '')
}
