import { SynguardError } from '../../api/errors.ts'

/** The codes of the sidecar's control plane. */
export const CONTROL_ERRORS = {
  'settings-invalid':
    'An environment variable of the sidecar is missing or malformed; the message names each one and its fix.',
  'credentials-unreadable': 'The projected volume with the token and the CA cannot be read, or a file in it is empty.',
  'issuer-unreachable': 'The issuer did not answer: no connection, TLS refused, or no answer in time.',
  'issuer-refused': 'The issuer answered with an error status; its own code is in the message.',
  'issuer-answer': 'The issuer answered with a body that is too large or not of the agreed shape.',
  'identity-missing': 'A request to the issuer needs the own identity, and there is none yet.',
  'identity-mismatch': "The issuer's WIT is not for this Pod or not for the key that asked for it.",
  'stream-message': 'A line of the stream is not a message of the agreed shape; the sidecar connects anew.',
  'stream-silent': 'The stream missed three pings; the sidecar connects anew.',
  'state-unreadable':
    'The identity table of an earlier run was damaged: it is kept beside a new one as identities.damaged.jsonl, and the connections of its peers are ended; they connect again.',
  'worker-silent':
    'The packet path did not answer in time what a report needs: it was just started again, or has no time.',
  'policies-unreadable': 'The directory of policies, or a file in it, cannot be read; the last good policies stand.',
  'policies-invalid':
    'A file of policies does not parse, or two files define one policy; the last good policies stand.',
} as const

export type ControlErrorCode = keyof typeof CONTROL_ERRORS

/** What the control plane reports; the message never holds a token or a key. */
export class ControlError extends SynguardError {
  declare readonly code: ControlErrorCode

  constructor(code: ControlErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/** An issuer's refusal: the HTTP status, the issuer's own code, and how long it asks to wait. */
export class IssuerRefusal extends ControlError {
  readonly status: number
  readonly issuerCode: string
  readonly retryAfterMs: number | undefined

  constructor(status: number, issuerCode: string, message: string, retryAfterMs: number | undefined) {
    super('issuer-refused', `the issuer answered ${status} ${issuerCode}: ${message}`)
    this.status = status
    this.issuerCode = issuerCode
    this.retryAfterMs = retryAfterMs
  }
}
