import { SynguardError } from '../api/errors.ts'

/** Why the webhook's HTTP interface refuses a request. Its clients also see codes of certs/errors.ts and admission. */
export const WEBHOOK_ERRORS = {
  'request-invalid': 'The request body, query or a header does not have the documented shape.',
  'request-too-large': 'The request body is larger than its endpoint takes.',
  'request-timeout': 'The request did not arrive in time.',
  'not-found': 'The webhook has no such path.',
  'method-not-allowed': 'The path takes another HTTP method.',
  'token-refused': 'The API server does not accept the service account token for the audience synguard.',
  'token-unbound': 'The token is bound to no Pod: it must be the projected token of the sidecar.',
  'pod-unknown': 'No live Pod has the name and uid that the token is bound to.',
  'pod-mismatch': 'The Pod has another node or service account than the token says.',
  'pod-deleted': 'The Pod is finished or past its deletion time and gets no identity any more.',
  'pod-not-guarded': 'The Pod spec does not hold the sidecar: it was not injected.',
  'pod-without-address': 'The Pod has no address in its status yet; ask again.',
  'namespace-not-guarded': 'The namespace of the Pod is not selected for injection.',
  'address-mismatch': 'The request does not come from an address of the Pod it speaks for; something translates it.',
  'wit-missing': 'The request lacks the headers workload-identity-token and workload-proof-token.',
  'wit-void': 'The identity token was revoked; ask for a new one.',
  'identity-revoked': 'An operator revoked the Pod: it gets no identity until it is restored.',
  'proof-replayed': 'The proof was used before; each request needs a new one.',
  'identity-not-yet': 'Earlier identities of the Pod were just declared void; ask again in a second.',
  busy: 'Too many requests are under way, in all or of this Pod; ask again.',
  'cluster-unavailable': 'The API server cannot be asked, or the webhook does not know the cluster yet; ask again.',
  'admission-unavailable': 'The webhook has no admission handler.',
  'setting-invalid': 'A setting of the webhook is missing or out of its bounds.',
  internal: 'The webhook failed; its log says why.',
} as const
export type WebhookErrorCode = keyof typeof WEBHOOK_ERRORS

export class WebhookError extends SynguardError {
  declare readonly code: WebhookErrorCode

  constructor(code: WebhookErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

const STATUS: Readonly<Record<WebhookErrorCode, number>> = {
  'request-invalid': 400,
  'request-too-large': 413,
  'request-timeout': 408,
  'not-found': 404,
  'method-not-allowed': 405,
  'token-refused': 401,
  'token-unbound': 401,
  'pod-unknown': 403,
  'pod-mismatch': 403,
  'pod-deleted': 403,
  'pod-not-guarded': 403,
  'pod-without-address': 503,
  'namespace-not-guarded': 403,
  'address-mismatch': 403,
  'wit-missing': 401,
  'wit-void': 401,
  'identity-revoked': 403,
  'proof-replayed': 401,
  'identity-not-yet': 503,
  busy: 429,
  'cluster-unavailable': 503,
  'admission-unavailable': 503,
  'setting-invalid': 500,
  internal: 500,
}

/** Seconds for Retry-After; what passes by itself is worth asking again. */
const RETRY_AFTER_SECONDS: Readonly<Partial<Record<WebhookErrorCode, number>>> = {
  'pod-without-address': 1,
  'identity-not-yet': 1,
  busy: 1,
  'cluster-unavailable': 2,
}

export interface HttpRefusal {
  readonly status: number
  readonly code: string
  readonly message: string
  readonly retryAfterSeconds?: number
}

/** What an HTTP client gets for an error. Only our own errors tell their message: others may quote secrets. */
export function refusalOf(error: unknown): HttpRefusal {
  if (error instanceof WebhookError) {
    const retryAfterSeconds = RETRY_AFTER_SECONDS[error.code]
    const { code, message } = error
    return { status: STATUS[code], code, message, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }) }
  }
  // Codes of certs/errors.ts. These two come of signing: a shown WIT that is too large is no different to its sender.
  if (error instanceof SynguardError && (error.code === 'wit-too-large' || error.code === 'wit-claims')) {
    return { status: 422, code: error.code, message: error.message }
  }
  // Tokens and proofs that do not verify.
  if (error instanceof SynguardError && /^(wit|proof)-/.test(error.code)) {
    return { status: 401, code: error.code, message: error.message }
  }
  return { status: 500, code: 'internal', message: WEBHOOK_ERRORS.internal }
}
