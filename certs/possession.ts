import type { KeyObject } from 'node:crypto'
import { createHash, randomBytes } from 'node:crypto'
import type { JWK } from 'jose'
import { CompactSign, compactVerify, errors } from 'jose'
import { TOKEN_AUDIENCE } from '../api/names.ts'
import type { PublicJwk } from './authority.ts'
import { exportPublicJwk, parsePublicJwk } from './authority.ts'
import { ProofError } from './errors.ts'
import { PROOF_AGE_SECONDS, PROOF_BYTES } from './limits.ts'

/** What the two proofs say of themselves; each is refused in the other's place. */
const TYP_TOKEN_PROOF = 'synguard-token-proof+jwt'
const TYP_REQUEST_PROOF = 'wpt+jwt'
const JTI = /^[A-Za-z0-9_-]{16,64}$/

/** A proof that holds. A verifier must refuse a `jti` that it saw within the last 2 x PROOF_AGE_SECONDS. */
export interface VerifiedProof {
  readonly jwk: PublicJwk
  readonly jti: string
  /** Seconds since the epoch. */
  readonly issuedAt: number
}

/** The JWS for `POST /v1/identity`: the new key (header `jwk`) signs for the service account token. `now` in seconds. */
export function createTokenProof(privateKey: KeyObject, options: { token: string; now: number }): Promise<string> {
  const claims = { aud: TOKEN_AUDIENCE, tkh: tokenHash(options.token), iat: options.now, jti: createJti() }
  return sign(privateKey, { alg: 'ES256', typ: TYP_TOKEN_PROOF, jwk: { ...exportPublicJwk(privateKey) } }, claims)
}

/** The public key of a proof for `token`, `now` in seconds. Rejects with ProofError. */
export async function verifyTokenProof(jws: string, token: string, now: number): Promise<VerifiedProof> {
  const header = parseHeader(jws)
  const jwk = parsePublicJwk(header.jwk)
  if (jwk === undefined || header.typ !== TYP_TOKEN_PROOF || Object.keys(header).length !== 3) {
    throw new ProofError('proof-header', `The proof header is not alg ES256, typ ${TYP_TOKEN_PROOF} and a P-256 jwk.`)
  }
  if (Object.keys(header.jwk as object).length !== 4) {
    throw new ProofError('proof-header', 'The proof jwk has other members than kty, crv, x and y.')
  }
  const claims = parseClaims(await verifySignature(jws, jwk), 'tkh', now)
  if (claims.target !== tokenHash(token)) throw new ProofError('proof-target', 'The proof is for another token.')
  return { jwk, jti: claims.jti, issuedAt: claims.issuedAt }
}

/** The value of HEADER_PROOF: the cnf key signs for one request. `htu` is its path and query, `now` in seconds. */
export function createRequestProof(privateKey: KeyObject, options: { htu: string; now: number }): Promise<string> {
  const claims = { aud: TOKEN_AUDIENCE, htu: options.htu, iat: options.now, jti: createJti() }
  return sign(privateKey, { alg: 'ES256', typ: TYP_REQUEST_PROOF }, claims)
}

/** A proof by the key of a verified WIT's cnf claim for the request `htu`. Rejects with ProofError. */
export async function verifyRequestProof(
  jws: string,
  cnf: PublicJwk,
  expected: { htu: string; now: number },
): Promise<VerifiedProof> {
  const header = parseHeader(jws)
  if (header.typ !== TYP_REQUEST_PROOF || Object.keys(header).length !== 2) {
    throw new ProofError('proof-header', `The proof header is not alg ES256 and typ ${TYP_REQUEST_PROOF} alone.`)
  }
  const claims = parseClaims(await verifySignature(jws, cnf), 'htu', expected.now)
  if (claims.target !== expected.htu) throw new ProofError('proof-target', 'The proof is for another request.')
  return { jwk: cnf, jti: claims.jti, issuedAt: claims.issuedAt }
}

function tokenHash(token: string): string {
  return createHash('sha256').update(token).digest('base64url')
}

function createJti(): string {
  return randomBytes(16).toString('base64url')
}

function sign(privateKey: KeyObject, header: { alg: 'ES256'; typ: string; jwk?: JWK }, claims: object) {
  return new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader(header).sign(privateKey)
}

function parseHeader(jws: string): Record<string, unknown> {
  let header: unknown
  try {
    if (jws.length > PROOF_BYTES) throw new RangeError()
    header = JSON.parse(Buffer.from(jws.slice(0, jws.indexOf('.')), 'base64url').toString('utf8'))
  } catch {
    throw new ProofError('proof-header', `The proof is no compact JWS of at most ${PROOF_BYTES} characters.`)
  }
  if (typeof header !== 'object' || header === null || (header as Record<string, unknown>).alg !== 'ES256') {
    throw new ProofError('proof-header', 'The proof header does not say alg ES256.')
  }
  return header as Record<string, unknown>
}

async function verifySignature(jws: string, jwk: PublicJwk): Promise<Uint8Array> {
  try {
    return (await compactVerify(jws, { ...jwk }, { algorithms: ['ES256'] })).payload
  } catch (error) {
    if (error instanceof errors.JWSSignatureVerificationFailed) {
      throw new ProofError('proof-signature', 'The proof signature does not verify with its key.')
    }
    throw new ProofError('proof-header', 'The proof is no compact JWS.')
  }
}

function parseClaims(
  payload: Uint8Array,
  targetClaim: 'tkh' | 'htu',
  now: number,
): { target: string; jti: string; issuedAt: number } {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(payload).toString('utf8'))
  } catch {
    throw new ProofError('proof-claims', 'The proof payload is no JSON.')
  }
  if (typeof value !== 'object' || value === null) throw new ProofError('proof-claims', 'The proof is no object.')
  const { aud, iat, jti, [targetClaim]: target, ...unknown } = value as Record<string, unknown>
  if (aud !== TOKEN_AUDIENCE) throw new ProofError('proof-claims', `The proof's aud is not ${TOKEN_AUDIENCE}.`)
  if (typeof target !== 'string' || typeof jti !== 'string' || !JTI.test(jti) || Object.keys(unknown).length > 0) {
    throw new ProofError('proof-claims', `The proof's claims are not aud, iat, jti and ${targetClaim}.`)
  }
  if (typeof iat !== 'number' || !Number.isSafeInteger(iat)) {
    throw new ProofError('proof-claims', "The proof's iat is no integer.")
  }
  if (Math.abs(now - iat) > PROOF_AGE_SECONDS) {
    throw new ProofError('proof-time', `The proof was made ${now - iat} s ago, allowed are ${PROOF_AGE_SECONDS}.`)
  }
  return { target, jti, issuedAt: iat }
}
