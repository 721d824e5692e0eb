import { createHash } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import {
  createRequestProof,
  createTokenProof,
  verifyRequestProof,
  verifyTokenProof,
} from '../../../certs/possession.ts'
import { createJti, createKey, NOW, signAnything } from './fixtures.ts'

const { privateKey, jwk } = createKey()
const other = createKey()
const token = 'header.payload.signature'
const htu = '/v1/peers?ip=10.0.0.1'
const outcome = (promise: Promise<unknown>) =>
  promise.then(
    () => 'accepted',
    (error) => error.code,
  )

describe('a token proof', () => {
  it('yields the key that made it, and a new jti every time', async () => {
    const first = await verifyTokenProof(await createTokenProof(privateKey, { token, now: NOW }), token, NOW)
    const second = await verifyTokenProof(await createTokenProof(privateKey, { token, now: NOW }), token, NOW)
    expect(first).toEqual({ jwk, jti: expect.stringMatching(/^[\w-]{22}$/), issuedAt: NOW })
    expect(second.jti).not.toBe(first.jti)
  })

  it('holds for its token and its time alone', async () => {
    const proof = await createTokenProof(privateKey, { token, now: NOW })
    expect(
      await Promise.all([
        outcome(verifyTokenProof(proof, 'another.token.x', NOW)),
        outcome(verifyTokenProof(proof, token, NOW + 120)),
        outcome(verifyTokenProof(proof, token, NOW + 121)),
        outcome(verifyTokenProof(proof, token, NOW - 121)),
      ]),
    ).toEqual(['proof-target', 'accepted', 'proof-time', 'proof-time'])
  })

  it('does not hold with a key put in the place of its own', async () => {
    const proof = await createTokenProof(privateKey, { token, now: NOW })
    const [, payload, signature] = proof.split('.')
    const header = { alg: 'ES256', typ: 'synguard-token-proof+jwt', jwk: other.jwk }
    const swapped = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${payload}.${signature}`
    expect(await outcome(verifyTokenProof(swapped, token, NOW))).toBe('proof-signature')
  })

  const header = { alg: 'ES256', typ: 'synguard-token-proof+jwt', jwk }
  const tkh = createHash('sha256').update(token).digest('base64url')
  const claims = { aud: 'synguard', tkh, iat: NOW, jti: createJti() }
  it.each<[string, object, object]>([
    ['proof-header', { ...header, alg: 'none' }, claims],
    ['proof-header', { ...header, alg: 'HS256' }, claims],
    ['proof-header', { ...header, typ: 'JWT' }, claims],
    ['proof-header', { ...header, crit: ['exp'] }, claims],
    ['proof-header', { ...header, jwk: undefined }, claims],
    ['proof-header', { ...header, jwk: { ...jwk, d: jwk.x } }, claims],
    ['proof-claims', header, { ...claims, aud: 'kubernetes' }],
    ['proof-claims', header, { ...claims, iat: 'now' }],
    ['proof-claims', header, { ...claims, jti: 'short' }],
    ['proof-claims', header, { ...claims, more: 1 }],
    ['proof-claims', header, []],
  ])('is refused as %s with header %j and claims %j', async (code, header, claims) => {
    const proof = signAnything(privateKey, header, Buffer.from(JSON.stringify(claims)))
    expect(await outcome(verifyTokenProof(proof, token, NOW))).toBe(code)
  })
})

describe('a request proof', () => {
  it('holds for the cnf key, the request and its time', async () => {
    const proof = await createRequestProof(privateKey, { htu, now: NOW })
    expect(await verifyRequestProof(proof, jwk, { htu, now: NOW })).toEqual({
      jwk,
      jti: expect.stringMatching(/^[\w-]{22}$/),
      issuedAt: NOW,
    })
    expect(
      await Promise.all([
        outcome(verifyRequestProof(proof, other.jwk, { htu, now: NOW })),
        outcome(verifyRequestProof(proof, jwk, { htu: '/v1/peers?ip=10.0.0.2', now: NOW })),
        outcome(verifyRequestProof(proof, jwk, { htu, now: NOW + 121 })),
      ]),
    ).toEqual(['proof-signature', 'proof-target', 'proof-time'])
  })

  it('is no token proof, and a token proof none for a request', async () => {
    const request = await createRequestProof(privateKey, { htu, now: NOW })
    const identity = await createTokenProof(privateKey, { token, now: NOW })
    expect(await outcome(verifyTokenProof(request, token, NOW))).toBe('proof-header')
    expect(await outcome(verifyRequestProof(identity, jwk, { htu, now: NOW }))).toBe('proof-header')
  })
})

it('hostile text is refused with a code, never with another error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ maxLength: 3_000 }), async (text) => {
      expect(await outcome(verifyTokenProof(text, token, NOW))).toBe('proof-header')
      expect(await outcome(verifyRequestProof(text, jwk, { htu, now: NOW }))).toBe('proof-header')
    }),
  )
})
