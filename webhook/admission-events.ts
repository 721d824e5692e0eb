import { controllerOf, nameOf, type ReviewOutcome } from './admission/outcome.ts'
import type { EventSubject, EventToWrite } from './events.ts'

/**
 * The Event that says why a Pod is not guarded or not let in; undefined where it is both, in a dry run, and where the
 * fault is not the Pod's. It is about the controller, or else the namespace: the Pod may never exist.
 */
export function admissionEvent(outcome: ReviewOutcome, namespaceUid: string | undefined): EventToWrite | undefined {
  const { namespace, pod, code, reason, dryRun } = outcome
  const isSkipped = outcome.outcome === 'skipped' && code !== 'namespace-not-selected'
  if (dryRun || pod === undefined || (!isSkipped && outcome.outcome !== 'refused')) return undefined
  return {
    subject: subjectOf(outcome, namespaceUid),
    type: isSkipped ? 'Normal' : 'Warning',
    reason: isSkipped ? 'InjectionSkipped' : 'InjectionRefused',
    code,
    message: `Pod ${namespace}/${nameOf(pod)}: ${code}: ${reason}`,
  }
}

function subjectOf({ namespace, pod, subject }: ReviewOutcome, namespaceUid: string | undefined): EventSubject {
  const controller = controllerOf(pod)
  const { name, uid } = pod?.metadata ?? {}
  if (subject === 'ephemeral-containers' && name !== undefined) {
    return { apiVersion: 'v1', kind: 'Pod', name, namespace, ...(uid !== undefined && { uid }) }
  }
  // A Node makes mirror Pods, but has no namespace whose Events anybody would look at.
  if (controller !== undefined && controller.kind !== 'Node') return { ...controller, namespace }
  return {
    apiVersion: 'v1',
    kind: 'Namespace',
    name: namespace,
    namespace,
    ...(namespaceUid !== undefined && { uid: namespaceUid }),
  }
}
