import { X509Certificate } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import type { Keyring } from '../../../certs/rotation/keyring.ts'
import type { ServingAuthority } from '../../../certs/serving.ts'
import { createCertificateKeeper, SERVING_LIFETIME_SECONDS } from '../../../webhook/bootstrap/serving.ts'
import {
  caBundle,
  caEnd,
  createServingMaterial,
  SERVING_CA_LIFETIME_SECONDS,
} from '../../../webhook/bootstrap/trust.ts'

const NOW = 1_800_000_000
const [one, other] = [createServingMaterial(NOW), createServingMaterial(NOW + 60)]
const stamp = { generation: 1, since: NOW, lifetimeSeconds: 0 }
const both: Keyring<ServingAuthority> = {
  generation: 1,
  keys: [
    { ...one, ...stamp, state: 'previous' },
    { ...other, ...stamp, state: 'active' },
  ],
}

describe('the serving CAs', () => {
  it('are shown to others in PEM, one after the other, without their keys', () => {
    const certificates = caBundle(both).match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? []
    expect(certificates.map((pem) => new X509Certificate(pem).subject)).toEqual(
      [one, other].map(({ material }) => new X509Certificate(material.certificatePem).subject),
    )
    expect(caBundle(both)).not.toContain('PRIVATE')
  })

  it('end when the active one does', () => {
    expect([caEnd(both), caEnd(undefined)]).toEqual([NOW + 60 + SERVING_CA_LIFETIME_SECONDS, 0])
  })
})

describe("a replica's certificate", () => {
  it('stays until half of its life, or until its CA changes', () => {
    let now = NOW
    const certificateOf = createCertificateKeeper({ names: ['webhook.svc'], addresses: ['192.0.2.1'], now: () => now })
    const first = certificateOf(one.material)
    expect(certificateOf({ ...one.material })).toBe(first)
    const shown = new X509Certificate(first.certificatePem)
    expect([shown.subjectAltName, shown.verify(new X509Certificate(one.material.certificatePem).publicKey)]).toEqual([
      'DNS:webhook.svc, IP Address:192.0.2.1',
      true,
    ])
    now += SERVING_LIFETIME_SECONDS / 2 + 1
    const second = certificateOf(one.material)
    expect(second).not.toBe(first)
    const third = certificateOf(other.material)
    expect(new X509Certificate(third.certificatePem).issuer).toBe(
      new X509Certificate(other.material.certificatePem).subject,
    )
  })

  it('does not outlive its CA', () => {
    const end = Date.parse(new X509Certificate(one.material.certificatePem).validTo) / 1_000
    const certificateOf = createCertificateKeeper({ names: ['a'], addresses: [], now: () => end - 3_600 })
    expect(Date.parse(new X509Certificate(certificateOf(one.material).certificatePem).validTo)).toBe(end * 1_000)
  })
})
