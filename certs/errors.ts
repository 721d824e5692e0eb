import { SynguardError } from '../api/errors.ts'

/** Why a WIT was refused. */
export const WIT_ERRORS = {
  'wit-format': 'The token is not three parts of canonical base64url, or a part is empty.',
  'wit-too-large': 'The token is larger than a handshake frame can carry; the Pod has too many or too long labels.',
  'wit-header': 'The token header is not exactly alg ES256, typ wit+jwt, zip DEF and a kid.',
  'wit-unknown-key': 'No key of the trust bundle has the token kid; the bundle may be out of date.',
  'wit-signature': 'The token signature does not verify with the key that its kid names.',
  'wit-inflate': 'The token payload is not a DEFLATE stream, or inflates to more than the bound.',
  'wit-claims': 'A claim of the token is missing, unknown, of the wrong type or out of bounds.',
  'wit-expired': 'The token expired.',
  'wit-not-yet-valid': 'The token was issued in the future; a clock is wrong.',
} as const
export type WitErrorCode = keyof typeof WIT_ERRORS

export class WitError extends SynguardError {
  declare readonly code: WitErrorCode

  constructor(code: WitErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/** Why a proof that its sender holds a private key was refused. */
export const PROOF_ERRORS = {
  'proof-header': 'The proof is no compact JWS with the type, algorithm and key that the request asks for.',
  'proof-signature': 'The proof signature does not verify with its key.',
  'proof-claims': 'A claim of the proof is missing, unknown or of the wrong type.',
  'proof-time': 'The proof was made too long ago or in the future; a clock is wrong or the proof is replayed.',
  'proof-target': 'The proof was made for another request or another token.',
} as const
export type ProofErrorCode = keyof typeof PROOF_ERRORS

export class ProofError extends SynguardError {
  declare readonly code: ProofErrorCode

  constructor(code: ProofErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/** What is wrong with the keys and certificates of the authority. */
export const AUTHORITY_ERRORS = {
  'authority-key': 'The stored signing key is not a private P-256 JWK whose kid is its RFC 7638 thumbprint.',
  'authority-serving': 'The serving CA or certificate cannot be read or made from the values given.',
} as const
export type AuthorityErrorCode = keyof typeof AUTHORITY_ERRORS

export class AuthorityError extends SynguardError {
  declare readonly code: AuthorityErrorCode

  constructor(code: AuthorityErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}
