import type { KeyObject } from 'node:crypto'
import { createPrivateKey, createPublicKey, generateKeyPairSync, hash } from 'node:crypto'
import type { BundleKey, TrustBundle } from '../api/identity.ts'
import { AuthorityError } from './errors.ts'

/** A P-256 public key as a JWK without kid: what a cnf claim holds. */
export interface PublicJwk {
  readonly kty: 'EC'
  readonly crv: 'P-256'
  readonly x: string
  readonly y: string
}

/** One of the authority's keys. The private half stays a KeyObject: it cannot be printed by accident. */
export interface SigningKey {
  /** RFC 7638 thumbprint of the public key. */
  readonly kid: string
  readonly privateKey: KeyObject
  readonly publicJwk: BundleKey
}

/** 32 bytes in base64url. */
const COORDINATE = /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/

/**
 * The P-256 public key in a JWK, with its members in RFC 7638 order and no others (a private `d` is left behind);
 * undefined where `value` is none or names a point that is not on the curve.
 */
export function parsePublicJwk(value: unknown): PublicJwk | undefined {
  return readPublicJwk(value)?.jwk
}

/** The same, with the key that it was read into to see that its point is one: making it anew costs as much as a MAC's key. */
export function readPublicJwk(value: unknown): { readonly jwk: PublicJwk; readonly key: KeyObject } | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { kty, crv, x, y } = value as Record<string, unknown>
  if (kty !== 'EC' || crv !== 'P-256' || typeof x !== 'string' || typeof y !== 'string') return undefined
  if (!COORDINATE.test(x) || !COORDINATE.test(y)) return undefined
  try {
    return { jwk: { kty, crv, x, y }, key: createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' }) }
  } catch {
    return undefined
  }
}

/** The RFC 7638 thumbprint (SHA-256, base64url) of a P-256 public key. */
export function jwkThumbprint(jwk: PublicJwk): string {
  const members = JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y })
  return hash('sha256', members, 'base64url')
}

/** The JWK of a private or public P-256 key. Throws AuthorityError `authority-key` for any other key. */
export function exportPublicJwk(key: KeyObject): PublicJwk {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  const jwk = publicKey.type === 'public' ? parsePublicJwk(publicKey.export({ format: 'jwk' })) : undefined
  if (jwk === undefined) throw new AuthorityError('authority-key', 'The key is not a P-256 key.')
  return jwk
}

/** A fresh ES256 key. */
export function createSigningKey(): SigningKey {
  return signingKeyOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
}

function signingKeyOf(privateKey: KeyObject): SigningKey {
  const jwk = exportPublicJwk(privateKey)
  const kid = jwkThumbprint(jwk)
  return { kid, privateKey, publicJwk: { ...jwk, kid } }
}

/** The public halves of `keys`, in their order: what verifiers hold. */
export function trustBundle(keys: readonly SigningKey[]): TrustBundle {
  return { keys: keys.map((key) => key.publicJwk) }
}

/** The private JWK with its kid, as JSON for a Secret. */
export function serializeSigningKey(key: SigningKey): string {
  return JSON.stringify({ ...key.privateKey.export({ format: 'jwk' }), kid: key.kid })
}

/** Reads what serializeSigningKey wrote. Throws AuthorityError `authority-key`, without the text in the message. */
export function parseSigningKey(text: string): SigningKey {
  let key: SigningKey
  let kid: unknown
  try {
    const jwk: unknown = JSON.parse(text)
    if (typeof jwk !== 'object' || jwk === null) throw new TypeError()
    kid = (jwk as Record<string, unknown>).kid
    key = signingKeyOf(createPrivateKey({ key: jwk, format: 'jwk' }))
  } catch {
    // No cause: errors of JSON.parse quote their input, which is a secret.
    throw new AuthorityError('authority-key', 'The signing key is no private P-256 JWK; restore or remove it.')
  }
  if (kid !== key.kid) {
    throw new AuthorityError('authority-key', `The signing key's kid is not its thumbprint ${key.kid}.`)
  }
  return key
}
