/** What sidecars tell of refused connections, as Events. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { PATH_REFUSALS, type ToldRefusal } from '../../../api/reports.ts'
import { REFUSALS_OF_A_REQUEST } from '../../../webhook/limits.ts'
import { parseRefusalsRequest } from '../../../webhook/refusals.ts'
import { guardedPod, type Identity, namespace, startWebhook, type Webhook } from './fixtures.ts'

let webhook: Webhook
let identity: Identity
beforeEach(async () => {
  webhook = await startWebhook()
  webhook.cluster.put('Namespace', namespace())
  webhook.cluster.put('Pod', guardedPod())
  webhook.cluster.put('Pod', guardedPod({ name: 'client', uid: 'uid-client', addresses: ['127.0.0.9'] }))
  webhook.cluster.put(
    'Pod',
    guardedPod({ name: 'other', uid: 'uid-other', namespace: 'bank', addresses: ['127.0.0.8'] }),
  )
  identity = await webhook.identify()
})
afterEach(() => webhook.close())

async function tell(refusals: unknown) {
  const headers = await webhook.prove(identity, PATH_REFUSALS)
  return webhook.send('POST', PATH_REFUSALS, { headers, body: { refusals } })
}

const refusal = (more: Partial<ToldRefusal> = {}): ToldRefusal => ({
  direction: 'ingress',
  reason: 'policy',
  protocol: 'TCP',
  port: 8080,
  peer: 'shop/client',
  identified: true,
  policies: ['shop/only-api'],
  count: 3,
  ...more,
})

describe('a refusal that a sidecar tells of', () => {
  it('is an Event at its Pod, and at the peer of the same namespace that showed its identity', async () => {
    expect(await tell([refusal()])).toMatchObject({ status: 200, body: {} })
    const { name, uid } = guardedPod().metadata ?? {}
    const common = { type: 'Warning', reason: 'ConnectionRefused' }
    const pod = { apiVersion: 'v1', kind: 'Pod', namespace: 'shop' }
    const why = 'refused (ingress): policy: isolated by shop/only-api, no rule matches, 3 times'
    expect(webhook.events).toEqual([
      {
        ...common,
        code: 'ingress policy TCP 8080 shop/client',
        subject: { ...pod, name, uid },
        message: `Connection from shop/client to port 8080/TCP ${why}`,
      },
      {
        ...common,
        code: `${name} ingress policy TCP 8080 shop/client`,
        subject: { ...pod, name: 'client', uid: 'uid-client' },
        message: `Connection to shop/${name}, port 8080/TCP, ${why.replace('refused', 'refused there')}`,
      },
    ])
  })

  it.each([
    ['an address', { peer: '203.0.113.7', identified: false }],
    ['a Pod that showed no identity', { identified: false }],
    ['a Pod of another namespace', { peer: 'bank/other' }],
    ['a Pod that is not there', { peer: 'shop/gone' }],
  ])('is no Event at %s', async (_what, more) => {
    await tell([refusal(more)])
    expect(webhook.events.map(({ subject }) => subject.name)).toEqual([guardedPod().metadata?.name])
  })

  it('says which way the connection was opened', async () => {
    await tell([refusal({ direction: 'egress', policies: [], reason: 'no-wit', count: 1, identified: false })])
    expect(webhook.events.map(({ message }) => message)).toEqual([
      'Connection to shop/client, port 8080/TCP refused (egress): no-wit',
    ])
  })

  it('is heard of an authenticated sidecar alone', async () => {
    expect((await webhook.send('POST', PATH_REFUSALS, { body: { refusals: [refusal()] } })).status).toBe(401)
    expect(webhook.events).toEqual([])
  })

  it.each([
    ['refusals', Array.from({ length: REFUSALS_OF_A_REQUEST + 1 }, () => refusal())],
    ['direction', [{ ...refusal(), direction: 'sideways' }]],
    ['reason', [refusal({ reason: 'No\nreason' })]],
    ['protocol', [refusal({ protocol: 'tcp ' })]],
    ['port', [refusal({ port: 65_536 })]],
    ['peer', [refusal({ peer: 'shop/web\u001b[2J' })]],
    ['identified', [{ ...refusal(), identified: 1 }]],
    ['policies', [refusal({ policies: ['only-api'] })]],
    ['count', [refusal({ count: 0 })]],
  ])('is refused by the name of the field that is wrong: %s', async (field, refusals) => {
    const { status, body } = await tell(refusals)
    expect([status, body]).toEqual([
      400,
      { error: { code: 'request-invalid', message: expect.stringMatching(new RegExp(`^${field} must `)) } },
    ])
    expect(webhook.events).toEqual([])
  })

  it('throws nothing else, whatever the body is', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(...Object.keys(refusal())), (value, key) => {
        for (const body of [
          value,
          { refusals: value },
          { refusals: [value] },
          { refusals: [{ ...refusal(), [key]: value }] },
        ]) {
          try {
            parseRefusalsRequest(body)
          } catch (error) {
            expect(error).toMatchObject({ code: 'request-invalid' })
          }
        }
      }),
    )
  })
})
