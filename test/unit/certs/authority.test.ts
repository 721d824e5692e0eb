import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import { calculateJwkThumbprint } from 'jose'
import {
  createSigningKey,
  exportPublicJwk,
  jwkThumbprint,
  parsePublicJwk,
  parseSigningKey,
  serializeSigningKey,
  trustBundle,
} from '../../../certs/authority.ts'

describe('a signing key', () => {
  it('has the RFC 7638 thumbprint that jose computes for its kid', async () => {
    const { kid, publicJwk } = createSigningKey()
    expect(kid).toBe(await calculateJwkThumbprint({ ...publicJwk }))
    expect(jwkThumbprint(publicJwk)).toBe(kid)
  })

  it('comes back whole from its serialised form', () => {
    const key = createSigningKey()
    const parsed = parseSigningKey(serializeSigningKey(key))
    expect([parsed.kid, parsed.publicJwk]).toEqual([key.kid, key.publicJwk])
    expect(parsed.privateKey.equals(key.privateKey)).toBe(true)
  })

  it('shows nothing private in a bundle or when printed', () => {
    const key = createSigningKey()
    const { d } = JSON.parse(serializeSigningKey(key))
    expect(trustBundle([key]).keys.map((jwk) => Object.keys(jwk).sort())).toEqual([['crv', 'kid', 'kty', 'x', 'y']])
    expect(JSON.stringify(key)).not.toContain(d)
  })

  it.each([
    ['no JSON', () => 'secret'],
    ['null', () => 'null'],
    ['a public key', () => JSON.stringify(createSigningKey().publicJwk)],
    ['a changed kid', () => JSON.stringify({ ...JSON.parse(serializeSigningKey(createSigningKey())), kid: 'x' })],
    [
      'another curve',
      () => JSON.stringify(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey.export({ format: 'jwk' })),
    ],
  ])('is refused as %s, without its text in the error', (_, text) => {
    const secret = text()
    let caught: unknown
    try {
      parseSigningKey(secret)
    } catch (error) {
      caught = error
    }
    expect(caught).toMatchObject({ code: 'authority-key' })
    expect(caught).not.toHaveProperty('cause')
    expect(String(caught)).not.toContain('secret')
  })
})

describe('parsePublicJwk', () => {
  it('leaves the private half behind', () => {
    const key = createSigningKey()
    expect(parsePublicJwk(key.privateKey.export({ format: 'jwk' }))).toEqual(exportPublicJwk(key.privateKey))
  })

  it('refuses what is no point of P-256', () => {
    const { x, y } = createSigningKey().publicJwk
    const wrong = [
      null,
      'EC',
      {},
      { kty: 'EC', crv: 'P-256', x, y: x },
      { kty: 'EC', crv: 'P-384', x, y },
      { kty: 'oct', k: x },
      { kty: 'EC', crv: 'P-256', x: `${x}=`, y },
    ]
    expect(wrong.map(parsePublicJwk)).toEqual(wrong.map(() => undefined))
  })
})
