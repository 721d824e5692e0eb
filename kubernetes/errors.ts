import { SynguardError } from '../api/errors.ts'

/** Why a request to the API server failed. */
export const API_ERRORS = {
  'api-unreachable': 'The API server did not answer, or the connection to it was lost.',
  'api-refused': 'The API server refused the request; the message has its status and reason.',
  'api-answer': 'The API server answered something that is not what its documentation promises.',
  'api-too-large': 'The answer is larger than what was asked for at most; of a list a smaller page is asked for then.',
  'api-credentials': 'The token, the CA or the kubeconfig for the API server cannot be read.',
} as const
export type ApiErrorCode = keyof typeof API_ERRORS

export interface ApiFailure {
  /** HTTP status, where there was an answer. */
  readonly status?: number
  /** metav1.Status' reason: AlreadyExists, Conflict, Expired and so on. */
  readonly reason?: string
  readonly retryAfterMs?: number
}

export class ApiError extends SynguardError {
  declare readonly code: ApiErrorCode
  readonly status: number | undefined
  readonly reason: string | undefined
  /** How long the API server asks to wait. */
  readonly retryAfterMs: number | undefined

  constructor(code: ApiErrorCode, message: string, failure: ApiFailure = {}, options?: ErrorOptions) {
    super(code, message, options)
    this.status = failure.status
    this.reason = failure.reason
    this.retryAfterMs = failure.retryAfterMs
  }
}

/** Whether the API server answered with that HTTP status. */
export function hasStatus(error: unknown, status: number): boolean {
  return error instanceof ApiError && error.status === status
}
