/** ES256 (RFC 7518, section 3.4) without a promise: a first contact waits for one signature of each end. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import type { PublicJwk } from './authority.ts'
import { parsePublicJwk } from './authority.ts'
import { WIT_SIGNATURE_BYTES } from './limits.ts'

/** A bundle's keys are read once: that costs as much as a signature. They go with the bundle. */
const imported = new WeakMap<PublicJwk, KeyObject>()

/**
 * Whether `signature`, r and s of 32 bytes each, is the key's for `input`; undefined where `jwk` is no P-256 key. The
 * algorithm is this function's, never the token's: another key or length verifies nothing. Never throws.
 */
export function verifyEs256(jwk: PublicJwk, input: Uint8Array, signature: Uint8Array): boolean | undefined {
  const key = imported.get(jwk) ?? importKey(jwk)
  if (key === undefined) return undefined
  if (signature.length !== WIT_SIGNATURE_BYTES) return false
  return verify('sha256', input, { key, dsaEncoding: 'ieee-p1363' }, signature)
}

function importKey(jwk: PublicJwk): KeyObject | undefined {
  const parsed = parsePublicJwk(jwk)
  if (parsed === undefined) return undefined
  const key = createPublicKey({ key: { ...parsed }, format: 'jwk' })
  imported.set(jwk, key)
  return key
}
