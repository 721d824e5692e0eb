import type { AdmissionErrorCode } from './errors.ts'
import { AdmissionError } from './errors.ts'
import type { PatchOperation } from './patch.ts'
import type { Refusal } from './reserved.ts'
import { flag, isJsonObject, object, required, text } from './shape.ts'

const API_VERSION = 'admission.k8s.io/v1'
/** The API server cuts warnings at 4,096 characters in all and asks for short ones. */
const WARNING_CHARACTERS = 256
const WARNINGS = 16

/** The part of an AdmissionReview's request that is read. */
export interface AdmissionRequest {
  readonly uid: string
  readonly resource: { readonly group: string; readonly resource: string }
  readonly subResource: string
  readonly operation: string
  readonly namespace: string
  readonly dryRun: boolean
  readonly object: unknown
  readonly oldObject: unknown
}

/** metav1.Status of a refusal. */
export interface AdmissionStatus {
  readonly code: number
  readonly reason: string
  readonly message: string
  readonly details: { readonly causes: readonly { reason: string; message: string; field?: string }[] }
}

export interface AdmissionResponse {
  readonly uid: string
  readonly allowed: boolean
  readonly patchType?: 'JSONPatch'
  /** base64 of the JSON Patch. */
  readonly patch?: string
  readonly warnings?: readonly string[]
  readonly status?: AdmissionStatus
}

export interface AdmissionReview {
  readonly apiVersion: typeof API_VERSION
  readonly kind: 'AdmissionReview'
  readonly response: AdmissionResponse
}

const groupResource = object({ group: text, resource: required(text) })
const request = object({
  uid: required(text),
  resource: required(groupResource),
  subResource: text,
  operation: required(text),
  namespace: text,
  dryRun: flag,
})
const review = object({ apiVersion: required(text), kind: required(text), request: required(request) })

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** Returns the request; throws AdmissionError `malformed-review` that names the field. */
export function parseReview(value: unknown): AdmissionRequest {
  if (!isJsonObject(value)) throw new AdmissionError('malformed-review', 'the body must be a JSON object')
  review(value, '', 'malformed-review')
  if (value.apiVersion !== API_VERSION || value.kind !== 'AdmissionReview' || !isJsonObject(value.request)) {
    throw new AdmissionError('malformed-review', `apiVersion and kind must be ${API_VERSION} AdmissionReview`)
  }
  const { uid, resource, subResource, operation, namespace, dryRun, object: target, oldObject } = value.request
  const fields = isJsonObject(resource) ? resource : {}
  return {
    uid: textOf(uid),
    resource: { group: textOf(fields.group), resource: textOf(fields.resource) },
    subResource: textOf(subResource),
    operation: textOf(operation),
    namespace: textOf(namespace),
    dryRun: dryRun === true,
    object: target,
    oldObject,
  }
}

/** The uid of a body that may not be a review at all: an answer without it never reaches the user. */
export function reviewUid(value: unknown): string {
  return isJsonObject(value) && isJsonObject(value.request) ? textOf(value.request.uid) : ''
}

function answer(response: AdmissionResponse): AdmissionReview {
  return { apiVersion: API_VERSION, kind: 'AdmissionReview', response }
}

/** An admission with a patch (none where it is empty) and warnings. */
export function allow(uid: string, patch: readonly PatchOperation[], warnings: readonly string[]): AdmissionReview {
  const shown = warnings.slice(0, WARNINGS).map((warning) => `synguard: ${warning}`.slice(0, WARNING_CHARACTERS))
  return answer({
    uid,
    allowed: true,
    ...(patch.length > 0 && {
      patchType: 'JSONPatch' as const,
      patch: Buffer.from(JSON.stringify(patch)).toString('base64'),
    }),
    ...(shown.length > 0 && { warnings: shown }),
  })
}

const HTTP_STATUS: Partial<Record<AdmissionErrorCode, { code: number; reason: string }>> = {
  'malformed-review': { code: 400, reason: 'BadRequest' },
  'malformed-object': { code: 400, reason: 'BadRequest' },
  'unexpected-resource': { code: 400, reason: 'BadRequest' },
  'namespace-unknown': { code: 503, reason: 'ServiceUnavailable' },
  'namespace-lookup-failed': { code: 503, reason: 'ServiceUnavailable' },
  'internal-error': { code: 500, reason: 'InternalError' },
}

/** A refusal: 403 for what a Pod must not have, else the kind of fault. The code stands in front of the message. */
export function deny(
  uid: string,
  code: AdmissionErrorCode,
  message: string,
  causes: readonly Refusal[] = [],
): AdmissionReview {
  const { code: status, reason } = HTTP_STATUS[code] ?? { code: 403, reason: 'Forbidden' }
  return answer({
    uid,
    allowed: false,
    status: {
      code: status,
      reason,
      message: `${code}: ${message}`,
      details: {
        causes:
          causes.length === 0
            ? [{ reason: code, message }]
            : causes.map((cause) => ({ reason: cause.code, message: cause.message, field: cause.field })),
      },
    },
  })
}
