import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from '@jest/globals'
import { createIssuerHttp } from '../../../sidecar/control/issuer-http.ts'
import { authority, type FakeIssuer, ISSUER_NAME, json, other, startFakeIssuer } from './fake-issuer.ts'

let issuer: FakeIssuer | undefined
afterEach(async () => {
  await issuer?.close()
  issuer = undefined
})

async function start(options: { otherName?: boolean } = {}): Promise<FakeIssuer> {
  issuer = await startFakeIssuer(options)
  return issuer
}

const ask = { method: 'GET', path: '/v1/peers?ip=10.0.0.1', timeoutMs: 3000 } as const

describe('requests to the issuer', () => {
  it('go to its address under its name, and give the JSON of the answer', async () => {
    const { http, handle, results } = await start()
    handle((request, response) => json(response, { url: request.url, host: request.headers.host }))
    expect(await http.send(ask)).toEqual({ url: ask.path, host: 'synguard-webhook.synguard-system.svc' })
    expect(results).toEqual(['/v1/peers 200'])
  })

  it('fail where the certificate is for another name', async () => {
    const { http, results } = await start({ otherName: true })
    await expect(http.send(ask)).rejects.toMatchObject({
      code: 'issuer-unreachable',
      message: expect.stringContaining('ERR_TLS_CERT_ALTNAME_INVALID'),
    })
    expect(results).toEqual(['/v1/peers ERR_TLS_CERT_ALTNAME_INVALID'])
  })

  it('trust the CA file as it is now', async () => {
    const { http, handle, credentials } = await start()
    handle((_, response) => json(response, 'ok'))
    expect(await http.send(ask)).toBe('ok')
    writeFileSync(join(credentials, 'ca.crt'), other.certificatePem)
    await expect(http.send(ask)).rejects.toMatchObject({ code: 'issuer-unreachable' })
    writeFileSync(join(credentials, 'ca.crt'), other.certificatePem + authority.certificatePem)
    expect(await http.send(ask)).toBe('ok')
    writeFileSync(join(credentials, 'ca.crt'), '')
    await expect(http.send(ask)).rejects.toMatchObject({ code: 'credentials-unreadable' })
  })

  it('fail with the status, the code and the wait that the issuer gives', async () => {
    const { http, handle, results } = await start()
    handle((_, response) => json(response, { error: { code: 'busy', message: 'later' } }, 429, { 'retry-after': '7' }))
    await expect(http.send(ask)).rejects.toMatchObject({
      code: 'issuer-refused',
      status: 429,
      issuerCode: 'busy',
      retryAfterMs: 7000,
      message: 'the issuer answered 429 busy: later',
    })
    expect(results).toEqual(['/v1/peers 429'])
  })

  it('follow no redirect, and take no page of somebody else for an answer', async () => {
    const { http, handle } = await start()
    handle((_, response) => void response.writeHead(302, { location: 'https://127.0.0.1/' }).end('<html>'))
    await expect(http.send(ask)).rejects.toMatchObject({ status: 302, issuerCode: 'no-code' })
    handle((_, response) => void response.end('<html>'))
    await expect(http.send(ask)).rejects.toMatchObject({ code: 'issuer-answer' })
  })

  it('end at the time limit, in the headers or in the body', async () => {
    const { http, handle, results } = await start()
    handle(() => undefined)
    await expect(http.send({ ...ask, timeoutMs: 50 })).rejects.toMatchObject({
      code: 'issuer-unreachable',
      message: expect.stringMatching(/^\/v1\/peers at .*: no answer within 50 ms$/),
    })
    handle((_, response) => void response.writeHead(200).write('{'))
    await expect(http.send({ ...ask, timeoutMs: 50 })).rejects.toMatchObject({ code: 'issuer-unreachable' })
    expect(results).toEqual(['/v1/peers timeout', '/v1/peers timeout'])
  })

  it('take no answer beyond the bound', async () => {
    const { http, handle, results } = await start()
    handle((_, response) => void response.end('x'.repeat(4 * 1024 * 1024 + 1)))
    await expect(http.send(ask)).rejects.toMatchObject({ code: 'issuer-answer' })
    expect(results).toEqual(['/v1/peers issuer-answer'])
  })

  it('fail where nobody listens, and where the CA cannot be read', async () => {
    const fake = await start()
    const { port, credentials } = fake
    const options = { address: '127.0.0.1', name: ISSUER_NAME, now: Date.now }
    const nowhere = createIssuerHttp({ ...options, port: 1, caPath: join(credentials, 'ca.crt') })
    await expect(nowhere.send(ask)).rejects.toMatchObject({
      code: 'issuer-unreachable',
      message: `/v1/peers at 127.0.0.1 port 1 as ${ISSUER_NAME}: ECONNREFUSED`,
    })
    const untrusting = createIssuerHttp({ ...options, port, caPath: join(credentials, 'none.crt') })
    await expect(untrusting.send(ask)).rejects.toMatchObject({ code: 'credentials-unreadable' })
  })
})
