import { admitEphemeral } from './ephemeral.ts'
import { AdmissionError } from './errors.ts'
import { inject } from './inject.ts'
import type { NamespaceFacts } from './namespace.ts'
import type { ReviewOutcome } from './outcome.ts'
import { createPatch } from './patch.ts'
import { parsePod } from './pod.ts'
import type { AdmissionRequest, AdmissionReview } from './review.ts'
import { allow, deny, parseReview, reviewUid } from './review.ts'
import type { InjectionSettings } from './settings.ts'

/** Finds a namespace's labels and annotations; undefined where there is none of that name. */
export type LookupNamespace = (name: string) => NamespaceFacts | undefined | Promise<NamespaceFacts | undefined>

async function findNamespace(name: string, lookup: LookupNamespace): Promise<NamespaceFacts> {
  let facts: NamespaceFacts | undefined
  try {
    facts = await lookup(name)
  } catch (error) {
    throw new AdmissionError('namespace-lookup-failed', `namespace "${name}" could not be read`, { cause: error })
  }
  if (facts === undefined)
    throw new AdmissionError('namespace-unknown', `namespace "${name}" is not known yet: try again`)
  return facts
}

/** Hears what becomes of each review, once. */
type Report = (outcome: Pick<ReviewOutcome, 'subject' | 'outcome'> & Partial<ReviewOutcome>) => void

async function mutateCreate(
  request: AdmissionRequest,
  lookup: LookupNamespace,
  settings: InjectionSettings,
  report: Report,
): Promise<AdmissionReview> {
  const pod = parsePod(request.object)
  const result = inject(pod, await findNamespace(request.namespace, lookup), settings)
  const reasons = result.kind === 'injected' ? {} : { code: result.code, reason: result.reason }
  report({ subject: 'pod', outcome: result.kind, pod, ...reasons })
  if (result.kind === 'refused') return deny(request.uid, result.code, result.reason, result.causes)
  return allow(request.uid, createPatch(request.object, result.pod), result.kind === 'injected' ? result.warnings : [])
}

function mutateEphemeral(request: AdmissionRequest, settings: InjectionSettings, report: Report): AdmissionReview {
  const oldPod = request.oldObject === undefined || request.oldObject === null ? undefined : parsePod(request.oldObject)
  const pod = parsePod(request.object)
  const outcome = admitEphemeral(pod, oldPod, settings.healthPort)
  const reasons = outcome.kind === 'refused' ? { code: outcome.code, reason: outcome.reason } : {}
  report({ subject: 'ephemeral-containers', outcome: outcome.kind, pod, ...reasons })
  if (outcome.kind === 'refused') return deny(request.uid, outcome.code, outcome.reason, outcome.causes)
  return allow(request.uid, createPatch(request.object, outcome.pod), outcome.warnings)
}

async function answerRequest(
  request: AdmissionRequest,
  lookup: LookupNamespace,
  settings: InjectionSettings,
  report: Report,
): Promise<AdmissionReview> {
  const { group, resource } = request.resource
  if (group !== '' || resource !== 'pods') {
    const message = `the webhook decides on pods only, not on ${resource}.${group}: correct the webhook's rules`
    throw new AdmissionError('unexpected-resource', message)
  }
  if (request.operation === 'CREATE' && request.subResource === '') {
    return mutateCreate(request, lookup, settings, report)
  }
  if (request.operation === 'UPDATE' && request.subResource === 'ephemeralcontainers') {
    return mutateEphemeral(request, settings, report)
  }
  report({ subject: 'other', outcome: 'admitted' })
  // Nothing else about a Pod can change its containers' powers.
  return allow(request.uid, [], [])
}

function subjectOf(request: AdmissionRequest | undefined): ReviewOutcome['subject'] {
  if (request?.resource.resource !== 'pods') return 'other'
  return request.subResource === '' ? 'pod' : 'ephemeral-containers'
}

/**
 * Answers an AdmissionReview (admission.k8s.io/v1): the Pod is patched, admitted as it is, or refused with a reason.
 * Never rejects, whatever JSON the body holds: what cannot be read is refused with its code (errors.ts). It has no
 * effects of its own, so a dry run is answered like any other; whoever hears of an outcome looks at `dryRun`.
 */
export async function mutate(
  body: unknown,
  lookup: LookupNamespace,
  settings: InjectionSettings,
  onError: (error: unknown) => void = () => {},
  onOutcome: (outcome: ReviewOutcome) => void = () => {},
): Promise<AdmissionReview> {
  let request: AdmissionRequest | undefined
  const report: Report = (outcome) => {
    const { namespace = '', dryRun = false } = request ?? {}
    onOutcome({ code: 'ok', reason: '', namespace, dryRun, ...outcome })
  }
  try {
    request = parseReview(body)
    return await answerRequest(request, lookup, settings, report)
  } catch (error) {
    onError(error)
    const code = error instanceof AdmissionError ? error.code : 'internal-error'
    report({ subject: subjectOf(request), outcome: 'failed', code })
    if (error instanceof AdmissionError) return deny(reviewUid(body), error.code, error.message)
    return deny(reviewUid(body), code, "the webhook's log says more")
  }
}
