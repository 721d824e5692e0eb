import type { V1Container, V1EphemeralContainer, V1PodSpec } from '@kubernetes/client-node'
import { ANNOTATION_ALLOW_PRIVILEGED, ANNOTATION_KEEP_NET_RAW } from '../../api/names.ts'
import type { AdmissionErrorCode } from './errors.ts'
import type { PlacedContainer } from './pod.ts'
import { workloadContainers } from './pod.ts'

/**
 * Capabilities with which a container could change the Pod's rules, enter the sidecar, or load code into the kernel.
 * The ValidatingAdmissionPolicy denies the same ones.
 */
export const DANGEROUS_CAPABILITIES: readonly string[] = ['NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'BPF']
const NET_RAW = 'NET_RAW'

/** Something that lets a workload bypass or disturb its own sidecar. */
export interface Power {
  readonly code: AdmissionErrorCode
  /** Short, for the degraded claim of the Pod's WIT: `app: NET_RAW`. */
  readonly label: string
  /** Where it stands, with the container's name, and what to do: a sentence for people. */
  readonly message: string
  readonly field: string
  /** The Pod annotation that admits it. */
  readonly annotation: string
}

/** Runtimes take `CAP_NET_RAW` and lower case too. */
function normalizeCapability(name: string): string {
  return name.toUpperCase().replace(/^CAP_/, '')
}

type AnyContainer = V1Container | V1EphemeralContainer

function capabilities(container: AnyContainer): { add: string[]; drop: string[] } {
  const { add, drop } = container.securityContext?.capabilities ?? {}
  return { add: (add ?? []).map(normalizeCapability), drop: (drop ?? []).map(normalizeCapability) }
}

function admitBy(annotation: string): string {
  return `remove it, or annotate the Pod with ${annotation}: "true"`
}

function addedCapabilities({ container, field }: PlacedContainer): Power[] {
  const at = `${field}.securityContext.capabilities.add`
  const { add } = capabilities(container)
  const power = (capability: string, code: AdmissionErrorCode, annotation: string): Power => ({
    code,
    label: `${container.name}: ${capability}`,
    message: `container "${container.name}" (${at}) adds ${capability}: ${admitBy(annotation)}`,
    field: at,
    annotation,
  })
  return [
    ...['ALL', ...DANGEROUS_CAPABILITIES]
      .filter((capability) => add.includes(capability))
      .map((capability) => power(capability, 'dangerous-capability', ANNOTATION_ALLOW_PRIVILEGED)),
    ...(add.includes(NET_RAW) ? [power(NET_RAW, 'net-raw-added', ANNOTATION_KEEP_NET_RAW)] : []),
  ]
}

/** What one container asks for explicitly. */
export function findContainerPowers(placed: PlacedContainer): Power[] {
  const { container, field } = placed
  if (container.securityContext?.privileged !== true) return addedCapabilities(placed)
  const at = `${field}.securityContext.privileged`
  return [
    {
      code: 'privileged-container',
      label: `${container.name}: privileged`,
      message: `container "${container.name}" (${at}) is privileged: ${admitBy(ANNOTATION_ALLOW_PRIVILEGED)}`,
      field: at,
      annotation: ANNOTATION_ALLOW_PRIVILEGED,
    },
    ...addedCapabilities(placed),
  ]
}

/**
 * What a Pod's spec asks for explicitly, at Pod level and in each container that is not ours.
 *
 * A shared process namespace is among it because a workload that is root, or takes the sidecar's user id, may signal
 * the sidecar; its memory stays closed to it without SYS_PTRACE, as the sidecar's binary has file capabilities.
 */
export function findPowers(spec: V1PodSpec): Power[] {
  const powers: Power[] = []
  const pod = (code: AdmissionErrorCode, name: 'hostPID' | 'shareProcessNamespace', effect: string) =>
    powers.push({
      code,
      label: `pod: ${name}`,
      message: `spec.${name} ${effect}: ${admitBy(ANNOTATION_ALLOW_PRIVILEGED)}`,
      field: `spec.${name}`,
      annotation: ANNOTATION_ALLOW_PRIVILEGED,
    })
  if (spec.hostPID === true) pod('host-pid', 'hostPID', "shares the node's processes")
  if (spec.shareProcessNamespace === true) {
    pod('shared-process-namespace', 'shareProcessNamespace', 'lets containers signal and inspect the sidecar')
  }
  return [...powers, ...workloadContainers(spec).flatMap(findContainerPowers)]
}

/** Whether the container has NET_RAW without asking for it: runtimes give it by default. */
export function hasDefaultNetRaw(container: AnyContainer): boolean {
  const { drop } = capabilities(container)
  return !drop.includes(NET_RAW) && !drop.includes('ALL')
}

/** The container with NET_RAW dropped; the same object where it was dropped before. */
export function withoutNetRaw<T extends AnyContainer>(container: T): T {
  if (!hasDefaultNetRaw(container)) return container
  const { securityContext } = container
  const existing = securityContext?.capabilities
  return {
    ...container,
    securityContext: {
      ...securityContext,
      capabilities: { ...existing, drop: [...(existing?.drop ?? []), NET_RAW] },
    },
  }
}

/**
 * Why a Pod of this spec is degraded: every power that its workload holds, NET_RAW by default included, as short
 * labels. It goes by the spec alone, so the issuer may use it on any Pod; annotations prove nothing.
 */
export function findDegradations(spec: V1PodSpec): string[] {
  const byDefault = workloadContainers(spec)
    .filter(({ container }) => hasDefaultNetRaw(container))
    .map(({ container }) => `${container.name}: ${NET_RAW}`)
  return [...new Set([...findPowers(spec).map(({ label }) => label), ...byDefault])]
}
