import { generateKeyPairSync, sign } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { compactVerify } from 'jose'
import { createSigningKey, type PublicJwk } from '../../../certs/authority.ts'
import { verifyEs256 } from '../../../certs/es256.ts'

/** RFC 7515, appendix A.3. */
const EXAMPLE = {
  jwk: {
    kty: 'EC',
    crv: 'P-256',
    x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
    y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
  },
  input:
    'eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ',
  signature: 'DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q',
} as const
const SIGNATURE = Buffer.from(EXAMPLE.signature, 'base64url')
const INPUT = Buffer.from(EXAMPLE.input)

const key = createSigningKey()
const signed = (input: Uint8Array, dsaEncoding: 'ieee-p1363' | 'der' = 'ieee-p1363') =>
  sign('sha256', input, { key: key.privateKey, dsaEncoding })

describe('verifyEs256', () => {
  it('takes the signature of the example of RFC 7515, and none with a bit changed', () => {
    expect(verifyEs256(EXAMPLE.jwk, INPUT, SIGNATURE)).toBe(true)
    for (let bit = 0; bit < SIGNATURE.length * 8; bit++) {
      const changed = Buffer.from(SIGNATURE)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(verifyEs256(EXAMPLE.jwk, INPUT, changed)).toBe(false)
    }
  })

  it('says what jose says of the same token', async () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 100 }).map((array) => Buffer.from(array))
    await fc.assert(
      fc.asyncProperty(bytes, fc.nat(64), async (payload, changedAt) => {
        const input = `${Buffer.from('{"alg":"ES256"}').toString('base64url')}.${payload.toString('base64url')}`
        const signature = signed(Buffer.from(input))
        // At 64 it stays as it is.
        if (changedAt < 64) signature[changedAt] = (signature[changedAt] ?? 0) ^ 1
        const jose = await compactVerify(`${input}.${signature.toString('base64url')}`, key.publicJwk).then(
          () => true,
          () => false,
        )
        expect(verifyEs256(key.publicJwk, Buffer.from(input), signature)).toBe(jose)
        expect(jose).toBe(changedAt === 64)
      }),
    )
  })

  it.each<[string, Buffer]>([
    ['none', Buffer.alloc(0)],
    ['one of 63 bytes', signed(INPUT).subarray(1)],
    ['one of 65 bytes', Buffer.concat([signed(INPUT), Buffer.alloc(1)])],
    ['one in DER', signed(INPUT, 'der')],
    ['zeros', Buffer.alloc(64)],
    ['r and s that are no residues', Buffer.alloc(64, 0xff)],
  ])('takes no signature such as %s', (_, signature) => {
    expect(verifyEs256(key.publicJwk, INPUT, signature)).toBe(false)
  })

  const exported = (type: 'rsa' | 'ed25519' | 'P-384') => {
    if (type === 'rsa') return generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' })
    if (type === 'ed25519') return generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
    return generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' })
  }
  it.each<[string, object]>([
    ['RSA', exported('rsa')],
    ['Ed25519', exported('ed25519')],
    ['P-384', exported('P-384')],
    ['a secret', { kty: 'oct', k: EXAMPLE.jwk.x }],
    ['a point off the curve', { ...EXAMPLE.jwk, y: EXAMPLE.jwk.x }],
    ['no point', { kty: 'EC', crv: 'P-256' }],
    ['nothing', {}],
  ])('verifies nothing with a key that is %s', (_, jwk) => {
    expect(verifyEs256(jwk as PublicJwk, INPUT, SIGNATURE)).toBeUndefined()
  })

  it('keeps one key apart from another', () => {
    const other = createSigningKey()
    const input = Buffer.from('input')
    for (let round = 0; round < 2; round++) {
      expect(verifyEs256(key.publicJwk, input, signed(input))).toBe(true)
      expect(verifyEs256(other.publicJwk, input, signed(input))).toBe(false)
    }
  })
})
