import { request as httpRequest } from 'node:http'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { createServingAuthority, issueServingCertificate } from '../../../certs/serving.ts'
import { createWebhookSettings } from '../../../webhook/settings.ts'
import { namespace, plainPod, startWebhook, type Webhook } from './fixtures.ts'

let webhook: Webhook
beforeAll(async () => {
  webhook = await startWebhook()
  webhook.cluster.put('Namespace', namespace())
})
afterAll(() => webhook.close())

function getHealth(path: string, method = 'GET'): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const target = { host: '127.0.0.1', port: webhook.healthPort, path, method, agent: false }
    httpRequest(target, async (response) => {
      resolve({ status: response.statusCode ?? 0, text: (await response.toArray()).join('') })
    })
      .on('error', reject)
      .end()
  })
}

const refusal = (code: string) => ({ error: { code, message: expect.any(String) } })

describe('the HTTPS interface', () => {
  it('injects a Pod that the API server shows it', async () => {
    const request = {
      uid: 'review-1',
      operation: 'CREATE',
      namespace: 'shop',
      resource: { group: '', version: 'v1', resource: 'pods' },
      kind: { group: '', version: 'v1', kind: 'Pod' },
      object: { apiVersion: 'v1', kind: 'Pod', ...plainPod() },
    }
    const body = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request }
    const answer = await webhook.send('POST', '/mutate?timeout=10s', { body })
    expect(answer.status).toBe(200)
    expect(answer.body).toMatchObject({ response: { uid: 'review-1', allowed: true, patchType: 'JSONPatch' } })
  })

  it('refuses what is no review, as a review', async () => {
    const answer = await webhook.send('POST', '/mutate', { body: {} })
    expect(answer.body).toMatchObject({ response: { allowed: false } })
  })

  it.each([
    ['GET', '/', 404, 'not-found'],
    ['GET', '/v1/identity', 405, 'method-not-allowed'],
    ['POST', '/v1/peers', 401, 'wit-missing'],
    ['DELETE', '/mutate', 405, 'method-not-allowed'],
    ['GET', '/%', 404, 'not-found'],
    ['GET', '/v1/identity/../../etc/passwd', 404, 'not-found'],
  ])('answers %s %s with %d %s in JSON', async (method, path, status, code) => {
    const answer = await webhook.send(method, path)
    // Unknown paths and methods are told first; what needs an identity says nothing else without one.
    const expected =
      path === '/v1/peers' && method === 'POST' ? [405, refusal('method-not-allowed')] : [status, refusal(code)]
    expect([answer.status, answer.body]).toEqual(expected)
  })

  it('refuses compressed bodies, which could grow without bound', async () => {
    const answer = await webhook.send('POST', '/mutate', { headers: { 'content-encoding': 'gzip' }, body: '{}' })
    expect([answer.status, answer.body]).toEqual([415, refusal('request-invalid')])
  })

  it('lives on after bytes that are no TLS and no HTTP', async () => {
    await new Promise<void>((resolve) => {
      const socket = connectTcp(webhook.port, '127.0.0.1', () => socket.end('GET / HTTP/1.1\r\n\r\n'))
      socket.on('close', () => resolve()).on('error', () => {})
      socket.resume()
    })
    await new Promise<void>((resolve) => {
      const socket = connectTls({ port: webhook.port, host: '127.0.0.1', rejectUnauthorized: false }, () =>
        socket.write('\0\x01\x02 nonsense\r\n\r\n'),
      )
      socket.on('close', () => resolve()).on('error', () => {})
      socket.resume()
    })
    expect((await webhook.send('GET', '/v1/bundle')).status).toBe(200)
  })

  it('takes a new certificate for new connections', async () => {
    const now = Math.floor(Date.now() / 1_000)
    const other = createServingAuthority({ now, lifetimeSeconds: 600 })
    const names = ['localhost']
    webhook.server.setCertificate(issueServingCertificate(other, { names, addresses: [], now, lifetimeSeconds: 600 }))
    await expect(webhook.send('GET', '/v1/bundle')).rejects.toMatchObject({ code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' })
    webhook.server.setCertificate(webhook.certificate)
    expect((await webhook.send('GET', '/v1/bundle')).status).toBe(200)
  })
})

describe('the health server', () => {
  it('says that the process lives, and whether it is ready and why not', async () => {
    expect(await getHealth('/healthz')).toEqual({ status: 200, text: '{"status":"ok"}' })
    const ready = { cluster: true, listening: true, certificate: true }
    const first = await getHealth('/readyz')
    expect([first.status, JSON.parse(first.text)]).toEqual([200, { status: 'ok', conditions: ready }])
    webhook.cluster.setAvailable(false)
    const second = await getHealth('/readyz')
    webhook.cluster.setAvailable(true)
    expect([second.status, JSON.parse(second.text)]).toEqual([
      503,
      { status: 'failed', conditions: { ...ready, cluster: false } },
    ])
  })

  it('counts requests by endpoint and status, with no path of a stranger among the labels', async () => {
    await webhook.send('GET', '/v1/bundle')
    await webhook.send('GET', '/random-path')
    const { status, text } = await getHealth('/metrics')
    expect(status).toBe(200)
    expect(text).toMatch(/^synguard_webhook_requests_total\{endpoint="\/v1\/bundle",code="200"\} [1-9]/m)
    expect(text).toMatch(/^synguard_webhook_requests_total\{endpoint="other",code="404"\} [1-9]/m)
    expect(text).toMatch(/^synguard_webhook_streams 0$/m)
    expect(text).not.toContain('random-path')
  })

  it('knows no other path and no other method', async () => {
    expect([(await getHealth('/v1/bundle')).status, (await getHealth('/metrics', 'POST')).status]).toEqual([404, 405])
  })
})

describe('createWebhookSettings', () => {
  it.each([
    ['port', { port: -1 }],
    ['healthPort', { healthPort: 65_536 }],
    ['witLifetimeSeconds', { witLifetimeSeconds: 19 }],
    ['skewSeconds', { skewSeconds: 0 }],
    ['streamPingMs', { streamPingMs: 0.5 }],
    ['issuer', { issuer: '' }],
    ['trustDomain', { trustDomain: 'a/b' }],
  ])('refuses a bad %s and names it', (name, changes) => {
    expect(() => createWebhookSettings(changes)).toThrow(
      expect.objectContaining({ code: 'setting-invalid', message: expect.stringContaining(name) }),
    )
  })
})

describe('createServer', () => {
  it.each([
    ['trustDomain', { trustDomain: 'other.local' }],
    ['namespaceLabel', { namespaceLabel: { key: 'other' } }],
  ])('refuses a %s that injection does not share', async (name, changes) => {
    await expect(startWebhook(changes)).rejects.toMatchObject({
      code: 'setting-invalid',
      message: expect.stringContaining(name),
    })
  })
})
