import { admitEphemeral } from './ephemeral.ts'
import { AdmissionError } from './errors.ts'
import { inject } from './inject.ts'
import type { NamespaceFacts } from './namespace.ts'
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

async function mutateCreate(
  request: AdmissionRequest,
  lookup: LookupNamespace,
  settings: InjectionSettings,
): Promise<AdmissionReview> {
  const pod = parsePod(request.object)
  const result = inject(pod, await findNamespace(request.namespace, lookup), settings)
  if (result.kind === 'refused') return deny(request.uid, result.code, result.reason, result.causes)
  return allow(request.uid, createPatch(request.object, result.pod), result.kind === 'injected' ? result.warnings : [])
}

function mutateEphemeral(request: AdmissionRequest, settings: InjectionSettings): AdmissionReview {
  const oldPod = request.oldObject === undefined || request.oldObject === null ? undefined : parsePod(request.oldObject)
  const outcome = admitEphemeral(parsePod(request.object), oldPod, settings.healthPort)
  if (outcome.kind === 'refused') return deny(request.uid, outcome.code, outcome.reason, outcome.causes)
  return allow(request.uid, createPatch(request.object, outcome.pod), outcome.warnings)
}

async function answerRequest(
  request: AdmissionRequest,
  lookup: LookupNamespace,
  settings: InjectionSettings,
): Promise<AdmissionReview> {
  const { group, resource } = request.resource
  if (group !== '' || resource !== 'pods') {
    const message = `the webhook decides on pods only, not on ${resource}.${group}: correct the webhook's rules`
    throw new AdmissionError('unexpected-resource', message)
  }
  if (request.operation === 'CREATE' && request.subResource === '') return mutateCreate(request, lookup, settings)
  if (request.operation === 'UPDATE' && request.subResource === 'ephemeralcontainers') {
    return mutateEphemeral(request, settings)
  }
  // Nothing else about a Pod can change its containers' powers.
  return allow(request.uid, [], [])
}

/**
 * Answers an AdmissionReview (admission.k8s.io/v1): the Pod is patched, admitted as it is, or refused with a reason.
 * Never rejects, whatever JSON the body holds: what cannot be read is refused with its code (errors.ts). It has no side
 * effects, so a dry run is answered like any other.
 */
export async function mutate(
  body: unknown,
  lookup: LookupNamespace,
  settings: InjectionSettings,
  onError: (error: unknown) => void = () => {},
): Promise<AdmissionReview> {
  try {
    return await answerRequest(parseReview(body), lookup, settings)
  } catch (error) {
    onError(error)
    if (error instanceof AdmissionError) return deny(reviewUid(body), error.code, error.message)
    return deny(reviewUid(body), 'internal-error', "the webhook's log says more")
  }
}
