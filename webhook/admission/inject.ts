import type { V1Container, V1PodSpec } from '@kubernetes/client-node'
import { ANNOTATION_ALLOW_OPT_OUT, ANNOTATION_STATUS, LABEL_INJECT } from '../../api/names.ts'
import type { CombinedChoices } from './choices.ts'
import { combineChoices } from './choices.ts'
import { renderContainers, renderVolumes } from './containers.ts'
import type { AdmissionErrorCode, SkipCode } from './errors.ts'
import { SKIP_REASONS } from './errors.ts'
import type { NamespaceFacts } from './namespace.ts'
import type { SpecifiedPod } from './pod.ts'
import { withoutOurs, workloadContainers } from './pod.ts'
import type { Power } from './powers.ts'
import { findDegradations, findPowers, withoutNetRaw } from './powers.ts'
import { findProbePorts } from './probe-ports.ts'
import type { Refusal } from './reserved.ts'
import { findCollisions } from './reserved.ts'
import type { InjectionSettings } from './settings.ts'

/** What became of a Pod. */
export type Injection =
  | {
      readonly kind: 'injected'
      readonly pod: SpecifiedPod
      /** Powers that the Pod keeps by annotation, with which it could bypass its sidecar. */
      readonly degraded: readonly string[]
      readonly warnings: readonly string[]
    }
  | {
      readonly kind: 'skipped'
      readonly code: SkipCode
      readonly reason: string
      /** The Pod to store: without containers of our names, with its status, or as it came. */
      readonly pod: SpecifiedPod
    }
  | {
      readonly kind: 'refused'
      /** The first cause's. */
      readonly code: AdmissionErrorCode
      /** All causes, the first 32 of very many. */
      readonly reason: string
      readonly causes: readonly Refusal[]
    }

/** Whether the namespace's labels select it for injection. */
export function isSelected(labels: NamespaceFacts['labels'], selector: InjectionSettings['namespaceLabel']): boolean {
  const value = labels[selector.key]
  return selector.value === undefined ? value !== undefined : value === selector.value
}

function withStatus(pod: SpecifiedPod, status: string): SpecifiedPod {
  const { metadata } = pod
  return { ...pod, metadata: { ...metadata, annotations: { ...metadata?.annotations, [ANNOTATION_STATUS]: status } } }
}

function skipCode(pod: SpecifiedPod, namespace: NamespaceFacts): SkipCode | undefined {
  if (pod.spec.hostNetwork === true) return 'host-network'
  if (pod.spec.os?.name === 'windows') return 'windows'
  const optsOut = pod.metadata?.labels?.[LABEL_INJECT] === 'disabled'
  return optsOut && namespace.annotations[ANNOTATION_ALLOW_OPT_OUT] === 'true' ? 'opted-out' : undefined
}

function skipped(code: SkipCode, pod: SpecifiedPod): Injection {
  return { kind: 'skipped', code, reason: SKIP_REASONS[code], pod }
}

/** More are more than anybody reads, and each may name a container with a name as long as the request. */
const CAUSES = 32
const MESSAGE_CHARACTERS = 1_024

/** A refusal that lists the causes, 32 at most, so that one round mends all of them. */
export function refused(first: Refusal, causes: readonly Refusal[]): Extract<Injection, { kind: 'refused' }> {
  const shown = causes
    .slice(0, CAUSES)
    .map((cause) => ({ ...cause, message: cause.message.slice(0, MESSAGE_CHARACTERS) }))
  const more = causes.length > CAUSES ? `; and ${causes.length - CAUSES} more` : ''
  const reason = shown.map(({ message }) => message).join('; ') + more
  return { kind: 'refused', code: first.code, reason, causes: shown }
}

/** The powers for which the Pod lacks the annotation. */
export function findUnadmitted(powers: readonly Power[], annotations: NamespaceFacts['annotations']): Refusal[] {
  return powers
    .filter(({ annotation }) => annotations[annotation] !== 'true')
    .map(({ code, field, message }) => ({ code, field, message }))
}

function surroundingWarnings(pod: SpecifiedPod, namespace: NamespaceFacts): string[] {
  const warnings: string[] = []
  const label = pod.metadata?.labels?.[LABEL_INJECT]
  if (label === 'disabled') {
    warnings.push(
      `label ${LABEL_INJECT}: disabled has no effect, as namespace ${namespace.name} lacks ${ANNOTATION_ALLOW_OPT_OUT}: "true"`,
    )
  } else if (label !== undefined && label !== 'enabled') {
    warnings.push(`label ${LABEL_INJECT}: "${label}" has no effect; a Pod can only say "disabled"`)
  }
  const level = namespace.labels['pod-security.kubernetes.io/enforce']
  if (level === 'baseline' || level === 'restricted') {
    warnings.push(
      `namespace ${namespace.name} enforces Pod Security "${level}", which refuses the sidecar's NET_ADMIN; it needs "privileged"`,
    )
  }
  if (pod.spec.resources) {
    warnings.push(
      "spec.resources is shared with the sidecar, which needs about 64Mi of it; the sidecar's own are left out",
    )
  }
  return warnings
}

/** NET_RAW is taken from the workload unless the Pod keeps it; both ours come first and wait for nobody. */
function renderSpec(
  spec: V1PodSpec,
  combined: CombinedChoices,
  namespace: NamespaceFacts,
  settings: InjectionSettings,
  probePorts: readonly string[],
): V1PodSpec {
  const guard = (container: V1Container) => (combined.keepNetRaw ? container : withoutNetRaw(container))
  const cpuLimitRequired = namespace.cpuLimitRequired === true
  const ours = renderContainers({ spec, choices: combined.choices, probePorts, cpuLimitRequired, settings })
  return {
    ...spec,
    containers: spec.containers.map(guard),
    initContainers: [...ours, ...(spec.initContainers ?? []).map(guard)],
    volumes: [...(spec.volumes ?? []), ...renderVolumes(settings)],
  }
}

/**
 * Decides on a Pod that is being created, and renders it with our containers and volumes. Pure; the same for a Pod
 * that was injected before, whatever of ours was changed in it since: `inject(inject(x)) = inject(x)`.
 */
export function inject(pod: SpecifiedPod, namespace: NamespaceFacts, settings: InjectionSettings): Injection {
  if (!isSelected(namespace.labels, settings.namespaceLabel)) return skipped('namespace-not-selected', pod)
  if (pod.metadata?.annotations?.['kubernetes.io/config.mirror'] !== undefined) return skipped('mirror-pod', pod)

  // A Pod that is skipped loses containers of our names too: nobody may make a sidecar of their own by hand.
  const bare = withoutOurs(pod)
  const skip = skipCode(bare, namespace)
  if (skip !== undefined) return skipped(skip, withStatus(bare, `skipped: ${skip}`))

  const combined = combineChoices(bare, namespace, settings.defaults)
  const causes = [
    ...combined.refusals,
    // A mesh brings capabilities of its own: it is named first.
    ...findCollisions(bare, namespace, settings.healthPort),
    ...findUnadmitted(findPowers(bare.spec), bare.metadata?.annotations ?? {}),
  ]
  const first = causes[0]
  if (first !== undefined) return refused(first, causes)

  const { ports, warnings } = findProbePorts(workloadContainers(bare.spec))
  const spec = renderSpec(bare.spec, combined, namespace, settings, ports)
  const degraded = findDegradations(spec)
  const degradedNote = degraded.map((power) => `the Pod is degraded, as it keeps ${power}`)
  return {
    kind: 'injected',
    pod: withStatus(
      { ...bare, spec },
      degraded.length === 0 ? 'injected' : `injected; degraded: ${degraded.join(', ')}`,
    ),
    degraded,
    warnings: [...surroundingWarnings(bare, namespace), ...combined.warnings, ...warnings, ...degradedNote],
  }
}
