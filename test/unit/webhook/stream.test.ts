import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { StreamMessage } from '../../../api/identity.ts'
import { createSigningKey, trustBundle } from '../../../certs/authority.ts'
import { stricterMode } from '../../../webhook/mode.ts'
import {
  guardedPod,
  type Identity,
  NAMESPACE_LABELS,
  namespace,
  plainPod,
  startWebhook,
  type Webhook,
} from './fixtures.ts'

let webhook: Webhook
let identity: Identity
beforeEach(async () => {
  webhook = await startWebhook({ streamPingMs: 60_000 })
  webhook.cluster.put('Namespace', namespace())
  webhook.cluster.put('Pod', guardedPod())
  identity = await webhook.identify()
})
afterEach(() => webhook.close())

async function openStream(addresses: readonly string[] = []) {
  const stream = await webhook.stream(identity, addresses)
  expect(stream.status).toBe(200)
  const hello = await stream.next()
  return { ...stream, hello }
}

describe('POST /v1/stream', () => {
  it('begins with the bundle, the voids and the mode', async () => {
    webhook.server.revoke({ uid: 'another', iatBefore: 5 })
    webhook.server.revoke({ uid: 'another', iatBefore: webhook.now() })
    const { hello } = await openStream()
    const voids = [{ uid: 'another', iatBefore: expect.any(Number) }]
    expect(hello).toEqual({ type: 'hello', bundle: webhook.authority.bundle(), voids, mode: 'enforce' })
  })

  it('tells what stands at the addresses asked for, then every change of it and of no other', async () => {
    const { next } = await openStream(['10.244.0.7'])
    const entries: unknown[] = [await next()]
    webhook.cluster.put('Pod', plainPod({ name: 'other', addresses: ['10.244.0.9'] }))
    webhook.cluster.put('Pod', plainPod({ name: 'peer', addresses: ['10.244.0.7'] }))
    entries.push(await next())
    webhook.cluster.delete('Pod', 'peer', 'shop')
    entries.push(await next())
    const external = { type: 'directory', address: '10.244.0.7', entry: { kind: 'external' } }
    const pod = expect.objectContaining({ kind: 'pod', guarded: false, pod: expect.objectContaining({ name: 'peer' }) })
    expect(entries).toEqual([external, { ...external, entry: pod }, external])
  })

  it('tells of addresses asked for at /v1/peers since', async () => {
    const { next } = await openStream()
    const path = '/v1/peers?ip=10.244.0.7'
    expect(await webhook.send('GET', path, { headers: await webhook.prove(identity, path) })).toMatchObject({
      body: { kind: 'external' },
    })
    webhook.cluster.put('Pod', plainPod({ name: 'peer', addresses: ['10.244.0.7'] }))
    expect(await next()).toMatchObject({ type: 'directory', address: '10.244.0.7', entry: { kind: 'pod' } })
  })

  it('voids the labels of a WIT everywhere, and tells its Pod to renew, when labels change', async () => {
    const { next } = await openStream()
    const from = webhook.now()
    webhook.cluster.put('Pod', guardedPod({ labels: { app: 'other' } }))
    const entry = { uid: 'uid-web', labels: { app: 'other' }, namespaceLabels: NAMESPACE_LABELS }
    const first = await next()
    expect([first, await next()]).toEqual([
      { type: 'void', void: { ...entry, iatBefore: expect.any(Number) } },
      { type: 'renew' },
    ])
    expect(first?.type === 'void' && first.void.iatBefore >= from).toBe(true)
    webhook.cluster.put('Namespace', namespace('shop', { ...NAMESPACE_LABELS, team: 'a' }))
    expect([await next(), await next()]).toMatchObject([
      { type: 'void', void: { namespaceLabels: { ...NAMESPACE_LABELS, team: 'a' } } },
      { type: 'renew' },
    ])
  })

  it('says nothing when a Pod changes in ways that no policy sees', async () => {
    const { next } = await openStream()
    webhook.cluster.put('Pod', guardedPod({ ready: false }))
    webhook.cluster.put('Pod', guardedPod({ annotations: { 'synguard.io/mode': 'enforce' } }))
    webhook.server.revoke({ uid: 'another', iatBefore: 1 })
    expect(await next()).toMatchObject({ type: 'void', void: { uid: 'another' } })
  })

  it('tells a WIT that is behind its Pod to renew, as labels may have changed while no stream was open', async () => {
    webhook.cluster.put('Pod', guardedPod({ labels: { app: 'other' } }))
    const { next } = await openStream()
    expect(await next()).toEqual({ type: 'renew' })
  })

  it('tells new bundles and modes', async () => {
    const { next } = await openStream()
    const prepared = createSigningKey()
    webhook.setKeys([prepared])
    const messages: (StreamMessage | undefined)[] = [await next()]
    webhook.cluster.put('Namespace', {
      metadata: { ...namespace().metadata, annotations: { 'synguard.io/mode': 'audit' } },
    })
    messages.push(await next())
    expect(messages).toEqual([
      { type: 'bundle', bundle: { ...trustBundle([webhook.key, prepared]), generation: 2 } },
      { type: 'mode', mode: 'audit' },
    ])
  })

  it('ends when the identity is revoked, and opens no more for it', async () => {
    const { next, ended } = await openStream()
    webhook.server.revoke({ uid: 'uid-web', iatBefore: webhook.now() })
    expect(await next()).toMatchObject({ type: 'void', void: { uid: 'uid-web' } })
    await ended
    expect((await webhook.stream(identity)).status).toBe(401)
  })

  it('ends when the Pod goes, and opens none for a Pod that is gone', async () => {
    const { ended } = await openStream()
    webhook.cluster.put('Pod', guardedPod({ uid: 'uid-2' }))
    await ended
    expect((await webhook.stream(identity)).status).toBe(401)
  })

  it('keeps two streams of a Pod and ends the oldest of three', async () => {
    const [first, second] = [await openStream(), await openStream()]
    await openStream()
    await first.ended
    webhook.server.revoke({ uid: 'another', iatBefore: 1 })
    expect(await second.next()).toMatchObject({ type: 'void' })
  })

  it('refuses a stream without proof, and bodies of another shape', async () => {
    const post = async (body: unknown, headers?: object) =>
      (await webhook.send('POST', '/v1/stream', { body, headers: { ...headers } })).status
    const prove = () => webhook.prove(identity, '/v1/stream')
    expect([
      await post({ bundle: [], addresses: [] }),
      await post({}, await prove()),
      await post({ bundle: [], addresses: ['10.0.0.01'] }, await prove()),
      await post({ bundle: [], addresses: ['FD00::1'] }, await prove()),
      await post({ bundle: Array(33).fill('kid'), addresses: [] }, await prove()),
      await post({ bundle: [], addresses: Array(10_001).fill('10.0.0.1') }, await prove()),
      await post({ bundle: [], addresses: ['x'.repeat(1_100_000)] }, await prove()),
    ]).toEqual([401, 400, 400, 400, 400, 400, 413])
  })
})

describe('a stream in time', () => {
  it('pings, and ends after its lifetime', async () => {
    const other = await startWebhook({ streamPingMs: 20, streamLifetimeMs: 200 })
    try {
      other.cluster.put('Namespace', namespace())
      other.cluster.put('Pod', guardedPod())
      const { next, ended } = await other.stream(await other.identify())
      expect([await next(), await next(), await next()].map((message) => message?.type)).toEqual([
        'hello',
        'ping',
        'ping',
      ])
      await ended
    } finally {
      await other.close()
    }
  })
})

describe('stricterMode', () => {
  it.each([
    [undefined, undefined, 'enforce'],
    [undefined, 'audit', 'audit'],
    [undefined, 'off', 'off'],
    ['audit', undefined, 'enforce'],
    ['audit', 'off', 'audit'],
    ['enforce', 'off', 'enforce'],
    ['off', 'audit', 'audit'],
    ['nonsense', 'off', 'enforce'],
    [undefined, 'nonsense', 'enforce'],
  ])('of Pod %s and namespace %s is %s', (pod, ofNamespace, mode) => {
    const annotations = (value: string | undefined) => (value === undefined ? {} : { 'synguard.io/mode': value })
    expect(stricterMode(annotations(pod), annotations(ofNamespace))).toBe(mode)
  })
})
