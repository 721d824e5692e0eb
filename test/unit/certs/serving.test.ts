import { X509Certificate } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { connect, createServer } from 'node:tls'
import { describe, expect, it } from '@jest/globals'
import { createServingAuthority, issueServingCertificate } from '../../../certs/serving.ts'

const now = Math.floor(Date.now() / 1_000)
const authority = createServingAuthority({ now, lifetimeSeconds: 86_400 })
const names = ['synguard.synguard-system.svc']
const served = issueServingCertificate(authority, {
  names,
  addresses: ['127.0.0.1', 'fd00::1'],
  now,
  lifetimeSeconds: 3_600,
})

/** Connects to a server with `served`; `authorized`, or the code of the refusal. */
async function handshake(ca: string, servername: string): Promise<string> {
  const server = createServer({ cert: served.certificatePem, key: served.privateKeyPem }, (socket) => socket.end())
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  try {
    return await new Promise<string>((resolve) => {
      const socket = connect({ host: '127.0.0.1', port, ca, servername }, () => {
        resolve(socket.authorized ? 'authorized' : 'unauthorized')
        socket.destroy()
      })
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
    })
  } finally {
    await new Promise((resolve) => server.close(resolve))
  }
}

describe('the serving certificate', () => {
  it('is accepted by a TLS client that trusts its CA, and by that name only', async () => {
    expect(await handshake(authority.certificatePem, 'synguard.synguard-system.svc')).toBe('authorized')
    expect(await handshake(authority.certificatePem, 'other.svc')).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('is refused by a client that trusts another CA of the same kind', async () => {
    const other = createServingAuthority({ now, lifetimeSeconds: 86_400 })
    expect(await handshake(other.certificatePem, 'synguard.synguard-system.svc')).toBe(
      'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    )
  })

  it('carries its names, its purpose and its times, and is no CA', () => {
    const certificate = new X509Certificate(served.certificatePem)
    const ca = new X509Certificate(authority.certificatePem)
    expect({
      ca: certificate.ca,
      names: certificate.subjectAltName,
      purpose: certificate.keyUsage,
      from: Date.parse(certificate.validFrom) / 1_000,
      to: Date.parse(certificate.validTo) / 1_000,
      issued: certificate.checkIssued(ca),
      signed: certificate.verify(ca.publicKey),
      root: ca.ca,
    }).toEqual({
      ca: false,
      names: 'DNS:synguard.synguard-system.svc, IP Address:127.0.0.1, IP Address:FD00:0:0:0:0:0:0:1',
      purpose: ['1.3.6.1.5.5.7.3.1'],
      from: now - 300,
      to: now + 3_600,
      issued: true,
      signed: true,
      root: true,
    })
  })

  it('has a positive serial of 16 bytes, another each time', () => {
    const again = issueServingCertificate(authority, { names, addresses: [], now, lifetimeSeconds: 60 })
    const serials = [served, again].map(({ certificatePem }) => new X509Certificate(certificatePem).serialNumber)
    expect(serials.map((serial) => /^[4-7][0-9A-F]{31}$/.test(serial))).toEqual([true, true])
    expect(serials[0]).not.toBe(serials[1])
  })

  it('is not made without names, for an address that is none, or of a broken CA', () => {
    const times = { now, lifetimeSeconds: 60 }
    const wrong = [
      () => issueServingCertificate(authority, { names: [], addresses: [], ...times }),
      () => issueServingCertificate(authority, { names, addresses: ['10.0.0.256'], ...times }),
      () => issueServingCertificate({ ...authority, privateKeyPem: 'secret' }, { names, addresses: [], ...times }),
    ]
    for (const make of wrong) expect(make).toThrow(expect.objectContaining({ code: 'authority-serving' }))
  })
})
