import { createHash, createHmac } from 'node:crypto'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { createSigningKey, exportPublicJwk, jwkThumbprint, trustBundle } from '../../../certs/authority.ts'
import { WIT_PARTS_BYTES } from '../../../certs/limits.ts'
import type { WitOptions } from '../../../certs/wit.ts'
import { issueWit, verifyWit } from '../../../certs/wit.ts'
import { decodeWitParts, joinWitParts, witPartsBytes } from '../../../certs/wit-parts.ts'
import { createJti, createKey, EXPECTED, NOW, PAYMENTS, signAnything, signClaims } from './fixtures.ts'

const key = createSigningKey()
const bundle = trustBundle([createSigningKey(), key])
const { jwk: cnf } = createKey()

function options(changes: Partial<WitOptions> = {}): WitOptions {
  const { trustDomain, issuer } = EXPECTED
  return {
    identity: PAYMENTS,
    cnf,
    trustDomain,
    issuer,
    issuedAt: NOW,
    lifetimeSeconds: 3_600,
    jti: createJti(),
    ...changes,
  }
}

async function claimsOf(wit: string): Promise<Record<string, unknown>> {
  return JSON.parse(inflateRawSync(decodeWitParts(wit).payload).toString())
}

describe('issueWit and verifyWit', () => {
  it('give back everything that was signed', async () => {
    const jti = createJti()
    const identity = { ...PAYMENTS, degraded: ['keeps NET_RAW'] }
    const wit = await issueWit(key, options({ jti, identity }))
    const verified = {
      identity,
      subject: 'spiffe://cluster.local/ns/shop-production/sa/payments',
      cnf,
      cnfThumbprint: jwkThumbprint(cnf),
      kid: key.kid,
      issuedAt: NOW,
      expiresAt: NOW + 3_600,
      jti,
      sha256: createHash('sha256').update(wit).digest(),
    }
    for (const form of [wit, decodeWitParts(wit)]) {
      const { cnfKey, ...values } = await verifyWit(form, bundle, EXPECTED)
      expect(values).toEqual(verified)
      expect(exportPublicJwk(cnfKey)).toEqual(cnf)
    }
  })

  it('leave a usual identity room in a frame, which only the deflated payload does', async () => {
    const parts = decodeWitParts(await issueWit(key, options()))
    const plain = witPartsBytes(parts) - parts.payload.length + inflateRawSync(parts.payload).length
    expect(plain).toBeGreaterThan(WIT_PARTS_BYTES)
    expect(witPartsBytes(parts)).toBeLessThan(800)
  })

  it('refuse to sign what no frame carries', async () => {
    const entries = Array.from({ length: 40 }, (_, n) => [`key-${n}`, createHash('md5').update(`${n}`).digest('hex')])
    const identity = { ...PAYMENTS, labels: Object.fromEntries(entries) }
    await expect(issueWit(key, options({ identity }))).rejects.toMatchObject({ code: 'wit-too-large' })
  })

  it.each<[string, Partial<WitOptions>]>([
    ['a lifetime below 1 s', { lifetimeSeconds: 0 }],
    ['a lifetime above a day', { lifetimeSeconds: 86_401 }],
    ['no address', { identity: { ...PAYMENTS, addresses: [] } }],
    ['a bad label', { identity: { ...PAYMENTS, labels: { 'a b': 'c' } } }],
    ['a short jti', { jti: 'x' }],
  ])('refuse to sign %s', async (_, changes) => {
    await expect(issueWit(key, options(changes))).rejects.toMatchObject({ code: 'wit-claims' })
  })
})

describe('verifyWit', () => {
  it('accepts times within the skew and refuses them beyond it', async () => {
    const wit = await issueWit(key, options())
    const at = (now: number) =>
      verifyWit(wit, bundle, { ...EXPECTED, now }).then(
        () => 'ok',
        (error) => error.code,
      )
    expect(await Promise.all([NOW - 121, NOW - 120, NOW + 3_719, NOW + 3_720].map(at))).toEqual([
      'wit-not-yet-valid',
      'ok',
      'ok',
      'wit-expired',
    ])
  })

  it('refuses a key that the bundle lacks, and a bundle key of the same kid with another value', async () => {
    const wit = await issueWit(key, options())
    const other = createSigningKey()
    await expect(verifyWit(wit, trustBundle([other]), EXPECTED)).rejects.toMatchObject({ code: 'wit-unknown-key' })
    const forged = { keys: [{ ...other.publicJwk, kid: key.kid }] }
    await expect(verifyWit(wit, forged, EXPECTED)).rejects.toMatchObject({ code: 'wit-signature' })
  })

  it('refuses another issuer and another trust domain', async () => {
    const wit = await issueWit(key, options())
    for (const expected of [
      { ...EXPECTED, issuer: 'https://other.test' },
      { ...EXPECTED, trustDomain: 'other.local' },
    ]) {
      await expect(verifyWit(wit, bundle, expected)).rejects.toMatchObject({ code: 'wit-claims' })
    }
  })

  it('refuses a token in which any one bit is changed', async () => {
    const wit = await issueWit(key, options())
    const parts = decodeWitParts(wit)
    const bytes = Buffer.concat([parts.header, parts.payload, parts.signature])
    const codes = new Set<string>()
    for (let bit = 0; bit < bytes.length * 8; bit += 3) {
      const changed = Buffer.from(bytes)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const end = parts.header.length + parts.payload.length
      const header = changed.subarray(0, parts.header.length)
      const broken = { header, payload: changed.subarray(header.length, end), signature: changed.subarray(end) }
      codes.add(
        await verifyWit(broken, bundle, EXPECTED).then(
          () => 'accepted',
          (error) => error.code,
        ),
      )
    }
    expect([...codes].sort()).toEqual(['wit-header', 'wit-signature', 'wit-unknown-key'])
  })

  it.each([
    ['alg none', { alg: 'none' }],
    ['alg HS256', { alg: 'HS256' }],
    ['alg ES384', { alg: 'ES384' }],
    ['another typ', { typ: 'JWT' }],
    ['another spelling of typ', { typ: 'WIT+JWT' }],
    ['no zip', { zip: undefined }],
    ['crit', { crit: ['b64'], b64: true }],
    ['an unknown parameter', { jku: 'https://evil.test' }],
    ['a kid that is no thumbprint', { kid: '../key' }],
    ['a key in the header', { jwk: cnf }],
  ])('refuses a header with %s', async (_, header) => {
    const claims = await claimsOf(await issueWit(key, options()))
    const wit = signClaims(key, claims, header)
    await expect(verifyWit(wit, bundle, EXPECTED)).rejects.toMatchObject({ code: 'wit-header' })
  })

  it('refuses an HMAC that takes the public key for its secret, and an empty signature', async () => {
    const wit = await issueWit(key, options())
    const [header = '', payload = ''] = wit.split('.')
    const mac = createHmac('sha256', JSON.stringify(key.publicJwk)).update(`${header}.${payload}`).digest('base64url')
    await expect(verifyWit(`${header}.${payload}.${mac}`, bundle, EXPECTED)).rejects.toMatchObject({
      code: 'wit-signature',
    })
    await expect(verifyWit(`${header}.${payload}.`, bundle, EXPECTED)).rejects.toMatchObject({ code: 'wit-format' })
  })

  it('inflates no further than its bound, whatever the signer packed', async () => {
    const header = { alg: 'ES256', kid: key.kid, typ: 'wit+jwt', zip: 'DEF' }
    const bomb = deflateRawSync(Buffer.alloc(700_000))
    expect(bomb.length).toBeLessThan(800)
    const refuse = (payload: Buffer) =>
      verifyWit(signAnything(key.privateKey, header, payload), bundle, EXPECTED).catch((error) => error.code)
    expect(await refuse(bomb)).toBe('wit-inflate')
    expect(await refuse(Buffer.from('{"no":"deflate"}'))).toBe('wit-inflate')
    // 1 GiB of zeros takes a MiB deflated: refused by its size, before anything is decoded.
    expect(await refuse(Buffer.alloc(1_043_000))).toBe('wit-too-large')
    const before = process.memoryUsage().rss
    for (let n = 0; n < 200; n++) await refuse(bomb)
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1_048_576)
  })

  const off = { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) }
  const many = (count: number, length: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, n) => [`${n}`.padEnd(length, 'a'), '']))
  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['an unknown claim', { aud: 'x' }, {}],
    ['an empty issuer', { iss: '' }, {}],
    ['a subject that is no string', { sub: 5 }, {}],
    ['a subject of another form', { sub: 'spiffe://cluster.local/shop/payments' }, {}],
    ['a subject with an empty namespace', { sub: 'spiffe://cluster.local/ns//sa/payments' }, {}],
    ['a subject with a longer path', { sub: 'spiffe://cluster.local/ns/a/sa/b/c' }, {}],
    ['an iat that is no integer', { iat: 1.5 }, {}],
    ['an iat in text', { iat: String(NOW) }, {}],
    ['an exp before iat', { exp: NOW }, {}],
    ['an exp a year away', { exp: NOW + 31_536_000 }, {}],
    ['no jti', { jti: undefined }, {}],
    ['a cnf without jwk', { cnf: {} }, {}],
    ['a cnf off the curve', { cnf: { jwk: off } }, {}],
    ['a private cnf', { cnf: { jwk: { ...cnf, d: cnf.x } } }, {}],
    ['a pod that is a list', { pod: [] }, {}],
    ['an unknown pod claim', {}, { admin: true }],
    ['no uid', {}, { uid: undefined }],
    ['a Pod name with a slash', {}, { name: 'a/b' }],
    ['labels in a list', {}, { labels: [] }],
    ['a label value that is a number', {}, { labels: { a: 1 } }],
    ['a label value of 64 characters', {}, { labels: { a: 'a'.repeat(64) } }],
    ['a label key of 64 characters', {}, { labels: { ['a'.repeat(64)]: '' } }],
    ['a label key with an empty prefix', {}, { labels: { '/a': '' } }],
    ['a label key with two slashes', {}, { labels: { 'a/b/c': '' } }],
    ['129 labels', {}, { labels: many(129, 3) }],
    ['a namespace label with a space', {}, { namespaceLabels: { a: 'b c' } }],
    ['no addresses', {}, { addresses: [] }],
    ['two addresses of a family', {}, { addresses: ['10.0.0.1', '10.0.0.2'] }],
    ['an IPv4 address with leading zeros', {}, { addresses: ['010.0.0.1'] }],
    ['an IPv6 address that is not canonical', {}, { addresses: ['fd00:0::1'] }],
    ['an IPv6 address in capitals', {}, { addresses: ['FD00::1'] }],
    ['an IPv6 address with a zone', {}, { addresses: ['fe80::1%eth0'] }],
    ['port 0', {}, { ports: [{ name: 'a', port: 0, protocol: 'TCP' }] }],
    ['port 65536', {}, { ports: [{ name: 'a', port: 65_536, protocol: 'TCP' }] }],
    ['a protocol in small letters', {}, { ports: [{ name: 'a', port: 1, protocol: 'tcp' }] }],
    ['a port name of 16 characters', {}, { ports: [{ name: 'a'.repeat(16), port: 1, protocol: 'TCP' }] }],
    ['an empty list of degraded reasons', {}, { degraded: [] }],
    ['a degraded reason that is no text', {}, { degraded: [1] }],
  ])('refuses signed claims with %s', async (_, changes, podChanges) => {
    const claims = await claimsOf(await issueWit(key, options()))
    const pod = { ...(claims.pod as object), ...podChanges }
    const wit = signClaims(key, { ...claims, pod, ...changes })
    await expect(verifyWit(wit, bundle, EXPECTED)).rejects.toMatchObject({ code: 'wit-claims' })
  })

  it('answers hostile text and bytes with a code, never with another error', async () => {
    const bytes = fc.uint8Array({ maxLength: 400 }).map((array) => Buffer.from(array))
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.string({ maxLength: 2_000 }), fc.record({ header: bytes, payload: bytes, signature: bytes })),
        async (wit) => {
          const code = await verifyWit(wit, bundle, EXPECTED).then(
            () => 'accepted',
            (error) => error.code,
          )
          expect(code).toMatch(/^wit-(format|header|too-large)$/)
        },
      ),
    )
  })

  it('answers signed hostile claims with a code', async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 2 }), async (claims) => {
        const wit = signClaims(key, claims)
        const code = await verifyWit(wit, bundle, EXPECTED).then(
          () => 'accepted',
          (error) => error.code,
        )
        expect(code).toMatch(/^wit-(claims|too-large|inflate)$/)
      }),
      { numRuns: 50 },
    )
  })
})

describe('decodeWitParts and joinWitParts', () => {
  it('are each the inverse of the other', () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 300 }).map((array) => Buffer.from(array))
    fc.assert(
      fc.property(bytes, bytes, bytes, (header, payload, signature) => {
        const parts = { header, payload, signature }
        expect(decodeWitParts(joinWitParts(parts))).toEqual(parts)
      }),
    )
  })

  it.each([
    ['padding', 'YQ==.YQ.YQ'],
    ['the other alphabet', '+/8.YQ.YQ'],
    ['bits after the last byte', 'YR.YQ.YQ'],
    ['white space', 'YQ.YQ.YQ\n'],
    ['two parts', 'YQ.YQ'],
    ['four parts', 'YQ.YQ.YQ.YQ'],
    ['an empty part', 'YQ..YQ'],
  ])('refuse %s', (_, compact) => {
    expect(() => decodeWitParts(compact)).toThrow(expect.objectContaining({ code: 'wit-format' }))
  })
})
