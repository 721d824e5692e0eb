import type { SpecifiedPod } from './pod.ts'

/** What became of a review, for Events, metrics and the log. */
export interface ReviewOutcome {
  readonly subject: 'pod' | 'ephemeral-containers' | 'other'
  readonly outcome: 'injected' | 'admitted' | 'skipped' | 'refused' | 'failed'
  /** Of the reason to skip or refuse; `ok` without one. */
  readonly code: string
  /** A sentence; empty without a reason. */
  readonly reason: string
  readonly namespace: string
  /** Nothing will come of the request, so nothing may come of this. */
  readonly dryRun: boolean
  /** The Pod as it was sent, where it was one. */
  readonly pod?: SpecifiedPod
}

/** The controller that makes the Pod; undefined for Pods that people make. */
export function controllerOf(pod: SpecifiedPod | undefined) {
  const owner = pod?.metadata?.ownerReferences?.find(({ controller }) => controller === true)
  if (owner === undefined) return undefined
  const { apiVersion, kind, name, uid } = owner
  return { apiVersion, kind, name, uid }
}

/** How people know a Pod that may have no name yet. */
export function nameOf(pod: SpecifiedPod | undefined): string {
  const { name, generateName } = pod?.metadata ?? {}
  return name ?? (generateName === undefined ? 'without a name' : `${generateName}…`)
}
