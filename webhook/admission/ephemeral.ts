import type { V1EphemeralContainer } from '@kubernetes/client-node'
import { ANNOTATION_KEEP_NET_RAW } from '../../api/names.ts'
import type { Injection } from './inject.ts'
import { findUnadmitted, refused } from './inject.ts'
import type { SpecifiedPod } from './pod.ts'
import { isGuarded } from './pod.ts'
import { findContainerPowers, hasDefaultNetRaw, withoutNetRaw } from './powers.ts'
import { findReservedUses } from './reserved.ts'

/** What became of an update of a Pod's ephemeral containers. */
export type EphemeralOutcome =
  | { readonly kind: 'admitted'; readonly pod: SpecifiedPod; readonly warnings: readonly string[] }
  | Extract<Injection, { kind: 'refused' }>

/**
 * Decides on the ephemeral containers that an update adds to a guarded Pod. They are held to what application
 * containers are, lose NET_RAW as those do, and must not join the sidecar's processes. Those that were there before
 * cannot be changed any more and are left alone; Pods without our sidecar are none of our business.
 */
export function admitEphemeral(
  pod: SpecifiedPod,
  oldPod: SpecifiedPod | undefined,
  healthPort: number,
): EphemeralOutcome {
  if (!isGuarded(pod.spec)) return { kind: 'admitted', pod, warnings: [] }
  const annotations = pod.metadata?.annotations ?? {}
  const known = new Set((oldPod?.spec.ephemeralContainers ?? []).map(({ name }) => name))
  const containers = pod.spec.ephemeralContainers ?? []
  const added = containers
    .map((container, index) => ({ container, field: `spec.ephemeralContainers[${index}]` }))
    .filter(({ container }) => !known.has(container.name))

  const powers = added.flatMap(findContainerPowers)
  const causes = [
    ...findUnadmitted(powers, annotations),
    ...added.flatMap((placed) => findReservedUses(placed, pod.spec, healthPort)),
  ]
  const first = causes[0]
  if (first !== undefined) return refused(first, causes)

  const keeps = annotations[ANNOTATION_KEEP_NET_RAW] === 'true'
  const guard = (container: V1EphemeralContainer) =>
    keeps || known.has(container.name) ? container : withoutNetRaw(container)
  const kept = added
    .filter(({ container }) => keeps && hasDefaultNetRaw(container))
    .map(({ container }) => `${container.name}: NET_RAW`)
  const labels = new Set([...powers.map(({ label }) => label), ...kept])
  return {
    kind: 'admitted',
    pod: { ...pod, spec: { ...pod.spec, ephemeralContainers: containers.map(guard) } },
    warnings: [...labels].map((power) => `the Pod is degraded, as it keeps ${power}`),
  }
}
