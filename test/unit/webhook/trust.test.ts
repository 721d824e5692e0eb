import { X509Certificate } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import { createTrust } from '../../../webhook/bootstrap/secret.ts'
import { createCertificateKeeper, SERVING_LIFETIME_SECONDS } from '../../../webhook/bootstrap/serving.ts'
import { caBundle, parseTrust, serializeTrust, type Trust } from '../../../webhook/bootstrap/trust.ts'

const NOW = 1_800_000_000
const one = createTrust(NOW)
const other = createTrust(NOW)
const both: Trust = {
  signingKeys: [one.signingKey, other.signingKey],
  signingKey: other.signingKey,
  servingAuthorities: [one.servingAuthority, other.servingAuthority],
  servingAuthority: one.servingAuthority,
}

/** As a Secret has it. */
function encode(entries: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(entries).map(([key, text]) => [key, Buffer.from(text).toString('base64')]))
}

describe('the trust in a Secret', () => {
  it('comes back as it was written, with who signs', () => {
    const found = parseTrust(encode(serializeTrust(both)))
    expect(found?.signingKeys.map(({ kid }) => kid)).toEqual([one.signingKey.kid, other.signingKey.kid])
    expect(found?.signingKey.kid).toBe(other.signingKey.kid)
    expect(found?.servingAuthorities).toEqual(both.servingAuthorities)
    expect(found?.servingAuthority).toEqual(one.servingAuthority)
    // createAuthority goes by identity.
    expect(found?.signingKeys).toContain(found?.signingKey)
  })

  it.each([undefined, {}, { 'identity.json': '' }, { other: 'eA==' }])('is none yet in %j', (data) => {
    expect(parseTrust(data)).toBeUndefined()
  })

  const good = serializeTrust(one)
  const secret = '{"state":"active","key":{"d":"secret-part"'
  it.each([
    ['authority-key', { ...good, 'identity.json': secret }],
    ['authority-key', { ...good, 'identity.json': '{}' }],
    ['authority-key', { ...good, 'identity.json': '[]' }],
    ['authority-key', { ...good, 'identity.json': '[{"state":"active","key":{"d":"secret-part"}}]' }],
    ['authority-key', { ...good, 'identity.json': '[{"state":"unknown","key":{}}]' }],
    [
      'authority-key',
      { ...good, 'identity.json': serializeTrust(both)['identity.json']?.replace('previous', 'active') ?? '' },
    ],
    ['authority-key', { 'serving.json': good['serving.json'] ?? '' }],
    ['authority-serving', { 'identity.json': good['identity.json'] ?? '' }],
    ['authority-serving', { ...good, 'serving.json': '[{"state":"active","certificate":"secret-part"}]' }],
  ])('is refused with %s where it is damaged, without quoting it: %#', (code, entries) => {
    expect(() => parseTrust(encode(entries))).toThrow(
      expect.objectContaining({ code, message: expect.not.stringContaining('secret-part') }),
    )
  })

  it('is shown to others as all serving CAs in PEM, one after the other', () => {
    const certificates = caBundle(both).match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? []
    expect(certificates.map((pem) => new X509Certificate(pem).subject)).toEqual(
      both.servingAuthorities.map(({ certificatePem }) => new X509Certificate(certificatePem).subject),
    )
    expect(caBundle(both)).not.toContain('PRIVATE')
  })
})

describe("a replica's certificate", () => {
  it('stays until half of its life, or until its CA changes', () => {
    let now = NOW
    const certificateOf = createCertificateKeeper({ names: ['webhook.svc'], addresses: ['192.0.2.1'], now: () => now })
    const first = certificateOf(one.servingAuthority)
    expect(certificateOf({ ...one.servingAuthority })).toBe(first)
    const shown = new X509Certificate(first.certificatePem)
    expect([
      shown.subjectAltName,
      shown.verify(new X509Certificate(one.servingAuthority.certificatePem).publicKey),
    ]).toEqual(['DNS:webhook.svc, IP Address:192.0.2.1', true])
    now += SERVING_LIFETIME_SECONDS / 2 + 1
    const second = certificateOf(one.servingAuthority)
    expect(second).not.toBe(first)
    const third = certificateOf(other.servingAuthority)
    expect(new X509Certificate(third.certificatePem).issuer).toBe(
      new X509Certificate(other.servingAuthority.certificatePem).subject,
    )
  })

  it('does not outlive its CA', () => {
    const end = Date.parse(new X509Certificate(one.servingAuthority.certificatePem).validTo) / 1_000
    const certificateOf = createCertificateKeeper({ names: ['a'], addresses: [], now: () => end - 3_600 })
    expect(Date.parse(new X509Certificate(certificateOf(one.servingAuthority).certificatePem).validTo)).toBe(
      end * 1_000,
    )
  })
})
