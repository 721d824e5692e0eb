import { hash, type KeyObject } from 'node:crypto'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { CompactSign } from 'jose'
import type { BundleKey, PodIdentity, TrustBundle } from '../api/identity.ts'
import type { PublicJwk, SigningKey } from './authority.ts'
import { jwkThumbprint } from './authority.ts'
import { encodeClaims, parseClaims, spiffeId } from './claims.ts'
import { WitError } from './errors.ts'
import { verifyEs256 } from './es256.ts'
import { WIT_INFLATED_BYTES, WIT_LIFETIME_MAX_SECONDS, WIT_SIGNATURE_BYTES } from './limits.ts'
import type { WitParts } from './wit-parts.ts'
import { checkWitParts, decodeWitParts, joinWitParts } from './wit-parts.ts'

export interface WitOptions {
  readonly identity: PodIdentity
  /** The public key whose holder the token speaks of. */
  readonly cnf: PublicJwk
  readonly trustDomain: string
  readonly issuer: string
  /** Seconds since the epoch. */
  readonly issuedAt: number
  readonly lifetimeSeconds: number
  /** 16 to 64 characters of base64url, never used before. */
  readonly jti: string
}

/** A WIT whose signature, times and claims hold. Times are seconds since the epoch. */
export interface VerifiedWit {
  readonly identity: PodIdentity
  /** The SPIFFE ID. */
  readonly subject: string
  readonly cnf: PublicJwk
  /** The key of cnf. */
  readonly cnfKey: KeyObject
  /** RFC 7638 thumbprint of cnf. */
  readonly cnfThumbprint: string
  readonly kid: string
  readonly issuedAt: number
  readonly expiresAt: number
  readonly jti: string
  /** SHA-256 of the compact form: what handshake proofs bind. */
  readonly sha256: Buffer
}

/**
 * A workload identity token (draft-ietf-wimse-workload-creds) in compact form: typ `wit+jwt`, ES256, its payload raw
 * DEFLATE with header `zip: DEF` as in SMART Health Cards. The deflated form is what lets usual label sets fit a frame
 * at all: with 8 Helm and 6 namespace labels header, payload and signature take 761 bytes in place of 1,227; short
 * claim names would save 32 more. Throws WitError `wit-claims` for values that verifyWit would refuse, `wit-too-large`
 * where the token would not fit a frame.
 */
export async function issueWit(key: SigningKey, options: WitOptions): Promise<string> {
  const { issuedAt, lifetimeSeconds } = options
  if (lifetimeSeconds < 1 || lifetimeSeconds > WIT_LIFETIME_MAX_SECONDS) {
    throw new WitError('wit-claims', `A token lives 1 to ${WIT_LIFETIME_MAX_SECONDS} s, not ${lifetimeSeconds}.`)
  }
  const payload = encodeClaims({ ...options, expiresAt: issuedAt + lifetimeSeconds })
  if (payload.length > WIT_INFLATED_BYTES) {
    throw new WitError('wit-too-large', `The token's claims have ${payload.length} bytes of ${WIT_INFLATED_BYTES}.`)
  }
  parseClaims(payload)
  const compact = await new CompactSign(deflateRawSync(payload, { level: 9, memLevel: 9 }))
    .setProtectedHeader({ alg: 'ES256', kid: key.kid, typ: 'wit+jwt', zip: 'DEF' })
    .sign(key.privateKey)
  decodeWitParts(compact)
  return compact
}

export interface WitExpectations {
  /** Seconds since the epoch. */
  readonly now: number
  readonly trustDomain: string
  readonly issuer: string
  /** How far clocks may differ. */
  readonly skewSeconds: number
}

/**
 * What a WIT says, once its header, signature, payload, claims and times hold, checked in this order. Rejects with
 * WitError; nothing of the payload is read before the signature verifies.
 */
export async function verifyWit(
  wit: string | WitParts,
  bundle: TrustBundle,
  expected: WitExpectations,
): Promise<VerifiedWit> {
  const parts = typeof wit === 'string' ? decodeWitParts(wit) : checkWitParts(wit)
  const compact = typeof wit === 'string' ? wit : joinWitParts(wit)
  const kid = parseHeader(parts.header)
  const key = bundle.keys.find((key) => key.kid === kid)
  if (key === undefined) throw new WitError('wit-unknown-key', `The trust bundle has no key ${kid}.`)
  checkSignature(compact, parts, key)
  const claims = parseClaims(inflate(parts.payload))
  if (claims.issuer !== expected.issuer) throw mismatch('iss', expected.issuer)
  if (claims.trustDomain !== expected.trustDomain) throw mismatch('sub', `of trust domain ${expected.trustDomain}`)
  if (claims.issuedAt > expected.now + expected.skewSeconds) {
    throw new WitError('wit-not-yet-valid', `The token is issued ${claims.issuedAt - expected.now} s in the future.`)
  }
  if (claims.expiresAt + expected.skewSeconds <= expected.now) {
    throw new WitError('wit-expired', `The token expired ${expected.now - claims.expiresAt} s ago.`)
  }
  const { identity, cnf, cnfKey, issuedAt, expiresAt, jti } = claims
  return {
    identity,
    subject: spiffeId(claims.trustDomain, identity.namespace, identity.serviceAccount),
    cnf,
    cnfKey,
    cnfThumbprint: jwkThumbprint(cnf),
    kid,
    issuedAt,
    expiresAt,
    jti,
    sha256: hash('sha256', compact, 'buffer'),
  }
}

/** The kid of a header that is exactly ours. Unknown parameters, `crit` among them, are refused. */
function parseHeader(bytes: Buffer): string {
  let header: unknown
  try {
    header = JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new WitError('wit-header', 'The token header is no JSON.')
  }
  if (typeof header !== 'object' || header === null) throw new WitError('wit-header', 'The token header is no object.')
  const { alg, kid, typ, zip, ...unknown } = header as Record<string, unknown>
  const others = Object.keys(unknown).length
  if (alg !== 'ES256' || typ !== 'wit+jwt' || zip !== 'DEF' || others > 0) {
    throw new WitError('wit-header', 'The token header is not alg ES256, typ wit+jwt, zip DEF and kid alone.')
  }
  if (typeof kid !== 'string' || !/^[A-Za-z0-9_-]{43}$/.test(kid)) {
    throw new WitError('wit-header', 'The token kid is no thumbprint.')
  }
  return kid
}

function checkSignature(compact: string, parts: WitParts, key: BundleKey): void {
  if (parts.signature.length !== WIT_SIGNATURE_BYTES) {
    throw new WitError('wit-signature', `An ES256 signature has ${WIT_SIGNATURE_BYTES} bytes.`)
  }
  const input = Buffer.from(compact.slice(0, compact.lastIndexOf('.')), 'latin1')
  const isGood = verifyEs256(key, input, parts.signature)
  if (isGood === undefined) {
    throw new WitError('wit-signature', `Key ${key.kid} of the trust bundle is malformed.`)
  }
  if (!isGood) throw new WitError('wit-signature', `The token signature does not verify with key ${key.kid}.`)
}

/** zlib stops at the bound: a bomb costs no more than a good token. */
function inflate(payload: Uint8Array): Buffer {
  try {
    return inflateRawSync(payload, { maxOutputLength: WIT_INFLATED_BYTES })
  } catch {
    throw new WitError('wit-inflate', `The token payload does not inflate within ${WIT_INFLATED_BYTES} bytes.`)
  }
}

function mismatch(claim: string, expected: string): WitError {
  return new WitError('wit-claims', `The token's claim ${claim} is not ${expected}.`)
}
