/** Keys that are the same in every run, so that inputs are: the private scalars are 1, 2 and so on, secrets of nobody. */
import { createECDH, sign } from 'node:crypto'
import { jwkThumbprint, type PublicJwk, parseSigningKey, type SigningKey } from '../../certs/authority.ts'

/** The P-256 key with a small private scalar. */
export function knownKey(scalar: number): SigningKey {
  const d = Buffer.alloc(32)
  d.writeUInt32BE(scalar, 28)
  const ecdh = createECDH('prime256v1')
  ecdh.setPrivateKey(d)
  const point = ecdh.getPublicKey()
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((half) => half.toString('base64url'))
  const jwk: PublicJwk = { kty: 'EC', crv: 'P-256', x: x ?? '', y: y ?? '' }
  return parseSigningKey(JSON.stringify({ ...jwk, d: d.toString('base64url'), kid: jwkThumbprint(jwk) }))
}

/** A compact JWS of any header and payload. */
export function signCompact(key: SigningKey, header: string, payload: Buffer): string {
  const input = `${Buffer.from(header).toString('base64url')}.${payload.toString('base64url')}`
  const signature = sign('sha256', Buffer.from(input), { key: key.privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}
