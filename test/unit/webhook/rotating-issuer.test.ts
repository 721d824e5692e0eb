/** The issuer while keys are rotated: by what it signs, what it gives out, and what sidecars tell it. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { createSigningKey, trustBundle } from '../../../certs/authority.ts'
import { verifyWit } from '../../../certs/wit.ts'
import { bundleOf } from '../../../webhook/issuer/authority.ts'
import { guardedPod, type Identity, namespace, startWebhook, type Webhook } from './fixtures.ts'

let webhook: Webhook
let identity: Identity
beforeEach(async () => {
  webhook = await startWebhook()
  webhook.cluster.put('Namespace', namespace())
  webhook.cluster.put('Pod', guardedPod())
  identity = await webhook.identify()
})
afterEach(() => webhook.close())

async function acknowledge(body: unknown) {
  const headers = await webhook.prove(identity, '/v1/acknowledge')
  return webhook.send('POST', '/v1/acknowledge', { headers, body })
}

describe('a replica that could not read the keys for too long', () => {
  it('neither signs nor gives out keys, and takes for true what sidecars show it', async () => {
    webhook.keys.setCurrent(false)
    await expect(webhook.identify()).rejects.toThrow('cluster-unavailable')
    const bundle = await webhook.send('GET', '/v1/bundle')
    expect([bundle.status, bundle.body]).toMatchObject([503, { error: { code: 'cluster-unavailable' } }])
    expect((await webhook.stream(identity)).status).toBe(503)
    const headers = await webhook.prove(identity, '/v1/peers?ip=192.0.2.1')
    expect((await webhook.send('GET', '/v1/peers?ip=192.0.2.1', { headers })).status).toBe(200)
    webhook.keys.setCurrent(true)
    await webhook.identify()
  })
})

describe('an identity', () => {
  it('lives no longer than its key allows', async () => {
    webhook.keys.set([webhook.key], { lifetimeSeconds: 60 })
    const { wit } = await webhook.identify()
    const { trustDomain, issuer } = webhook.settings
    const { issuedAt, expiresAt } = await verifyWit(wit, webhook.authority.bundle(), {
      ...{ now: webhook.now(), trustDomain, issuer, skewSeconds: 1 },
    })
    expect(expiresAt - issuedAt).toBe(60)
  })
})

describe('the bundle', () => {
  it('has its generation, and in an emergency names the key that identities must be by', () => {
    const [one, other] = [createSigningKey(), createSigningKey()]
    const stamp = { generation: 5, since: 0, lifetimeSeconds: 60 }
    const ring = (compromised: { compromised?: true }, isActive: boolean) => ({
      generation: 7,
      keys: [
        { id: one.kid, material: one, ...stamp, state: isActive ? ('active' as const) : ('previous' as const) },
        { id: other.kid, material: other, ...stamp, state: isActive ? ('prepared' as const) : ('active' as const) },
      ].map((key, index) => (index === 0 ? { ...key, ...compromised } : key)),
    })
    const keys = { ...trustBundle([one, other]), generation: 7 }
    expect(bundleOf(ring({}, false))).toEqual(keys)
    // Until the new key signs there is none that is better.
    expect(bundleOf(ring({ compromised: true }, true))).toEqual(keys)
    expect(bundleOf(ring({ compromised: true }, false))).toEqual({ ...keys, signer: other.kid })
  })
})

describe('what sidecars acknowledge', () => {
  it('is noted by the uid of the identity that was shown, by request and with a stream', async () => {
    const [first, second] = [{ generation: 12, authorities: ['0'.repeat(64)] }, { authorities: [] }]
    expect(await acknowledge({ ...first, later: 1 })).toMatchObject({ status: 200, body: {} })
    const headers = await webhook.prove(identity, '/v1/stream')
    const body = { bundle: [], addresses: [], acknowledge: second }
    const stream = await webhook.open('POST', '/v1/stream', { headers, body })
    stream.destroy()
    expect(webhook.acknowledged).toEqual([
      ['uid-web', first],
      ['uid-web', second],
    ])
  })

  const authorities: string[] = []
  it.each([
    ...[{}, { generation: -1, authorities }, { generation: 1.5, authorities }, { generation: '7', authorities }],
    ...[[], 'text', { generation: 1, authorities: ['x'] }, { authorities: Array(9).fill('a'.repeat(64)) }],
  ])('is refused where it is no generation: %j', async (body) => {
    expect(await acknowledge(JSON.stringify(body))).toMatchObject({
      status: 400,
      body: { error: { code: 'request-invalid' } },
    })
    expect(webhook.acknowledged).toEqual([])
  })

  it('needs an identity', async () => {
    expect((await webhook.send('POST', '/v1/acknowledge', { body: { authorities } })).status).toBe(401)
  })
})
