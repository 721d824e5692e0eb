import { setTimeout } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import type { IdentityResponse } from '../../../api/identity.ts'
import { exportPublicJwk } from '../../../certs/authority.ts'
import { verifyWit } from '../../../certs/wit.ts'
import {
  createPrivateKey,
  guardedPod,
  NAMESPACE_LABELS,
  namespace,
  plainPod,
  startWebhook,
  type Webhook,
} from './fixtures.ts'

let webhook: Webhook
beforeEach(async () => {
  webhook = await startWebhook()
  webhook.cluster.put('Namespace', namespace())
  webhook.cluster.put('Pod', guardedPod())
})
afterEach(() => webhook.close())

const mint = (audience = 'synguard') => webhook.cluster.mintToken({ namespace: 'shop', podName: 'web', audience })
const post = (body: unknown, localAddress = '127.0.0.1') => webhook.send('POST', '/v1/identity', { body, localAddress })
const codeOf = ({ status, body }: { status: number; body: unknown }) =>
  `${status} ${(body as { error: { code: string } }).error.code}`

function verify(answer: { body: unknown }) {
  const { wit, bundle } = answer.body as IdentityResponse
  const { trustDomain, issuer, skewSeconds } = webhook.settings
  return verifyWit(wit, bundle, { now: webhook.now(), trustDomain, issuer, skewSeconds })
}

describe('POST /v1/identity', () => {
  it('gives a guarded Pod a WIT that says what the API server knows of it', async () => {
    const privateKey = createPrivateKey()
    const answer = await post(await webhook.identityBody(mint(), privateKey))
    expect(answer.status).toBe(200)
    expect((answer.body as IdentityResponse).bundle).toEqual(webhook.authority.bundle())
    const wit = await verify(answer)
    expect(wit.cnf).toEqual(exportPublicJwk(privateKey))
    expect(wit.expiresAt - wit.issuedAt).toBe(3_600)
    expect(wit.identity).toEqual({
      namespace: 'shop',
      name: 'web',
      uid: 'uid-web',
      serviceAccount: 'web',
      labels: { app: 'web' },
      namespaceLabels: NAMESPACE_LABELS,
      addresses: ['127.0.0.1'],
      ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    })
  })

  it('tells in the WIT what powers the workload keeps', async () => {
    const pod = guardedPod({ annotations: { 'synguard.io/keep-net-raw': 'true' } })
    webhook.cluster.put('Pod', pod)
    const wit = await verify(await post(await webhook.identityBody(mint())))
    expect(wit.identity.degraded).toEqual(['app: NET_RAW'])
  })

  it('never outlives the deletion of the Pod', async () => {
    const deletedAt = webhook.now() + 15
    webhook.cluster.put('Pod', guardedPod({ deletionTimestamp: new Date(deletedAt * 1_000) }))
    expect((await verify(await post(await webhook.identityBody(mint())))).expiresAt).toBe(deletedAt)
    webhook.passSeconds(15)
    expect(codeOf(await post(await webhook.identityBody(mint())))).toBe('403 pod-deleted')
  })

  it('waits for the address of a Pod that starts', async () => {
    webhook.cluster.put('Pod', guardedPod({ addresses: [] }))
    const answer = post(await webhook.identityBody(mint()))
    await setTimeout(30)
    webhook.cluster.put('Pod', guardedPod())
    expect((await answer).status).toBe(200)
  })

  it('asks to come again where the address does not come', async () => {
    webhook.cluster.put('Pod', guardedPod({ addresses: [] }))
    const answer = await post(await webhook.identityBody(mint()))
    expect([codeOf(answer), answer.headers['retry-after']]).toEqual(['503 pod-without-address', '1'])
  })

  it.each<[string, string, (pod: V1Pod) => void]>([
    ['403 pod-mismatch', 'is on another node', (pod) => Object.assign(pod.spec ?? {}, { nodeName: 'node-2' })],
    ['403 pod-mismatch', 'has another account', (pod) => Object.assign(pod.spec ?? {}, { serviceAccountName: 'x' })],
    ['403 pod-deleted', 'has succeeded', (pod) => Object.assign(pod.status ?? {}, { phase: 'Succeeded' })],
    ['403 pod-not-guarded', 'has no sidecar', (pod) => Object.assign(pod.spec ?? {}, { initContainers: [] })],
    ['403 pod-not-guarded', 'is on the host network', (pod) => Object.assign(pod.spec ?? {}, { hostNetwork: true })],
    [
      '403 address-mismatch',
      'is elsewhere',
      (pod) => Object.assign(pod.status ?? {}, { podIPs: [{ ip: '10.0.0.1' }] }),
    ],
  ])('refuses with %s a Pod that %s', async (code, _, change) => {
    const token = mint()
    const pod = guardedPod()
    change(pod)
    webhook.cluster.put('Pod', pod)
    expect(codeOf(await post(await webhook.identityBody(token)))).toBe(code)
  })

  it('goes by the spec, whatever labels and annotations say', async () => {
    const claims = { annotations: { 'synguard.io/status': 'injected' }, labels: { 'synguard.io/inject': 'enabled' } }
    webhook.cluster.put('Pod', plainPod(claims))
    expect(codeOf(await post(await webhook.identityBody(mint())))).toBe('403 pod-not-guarded')
  })

  it('refuses a Pod in a namespace that is not selected', async () => {
    webhook.cluster.put('Namespace', namespace('shop', {}))
    expect(codeOf(await post(await webhook.identityBody(mint())))).toBe('403 namespace-not-guarded')
    webhook.cluster.delete('Namespace', 'shop')
    expect(codeOf(await post(await webhook.identityBody(mint())))).toBe('403 namespace-not-guarded')
  })

  it('refuses a request from another address', async () => {
    expect(codeOf(await post(await webhook.identityBody(mint()), '127.0.0.2'))).toBe('403 address-mismatch')
  })

  it('refuses tokens that are unknown, of another audience, expired, or of an earlier Pod of that name', async () => {
    const other = mint('kubernetes')
    const earlier = mint()
    const codes = [codeOf(await post(await webhook.identityBody('eyJ.no.token')))]
    codes.push(codeOf(await post(await webhook.identityBody(other))))
    webhook.cluster.put('Pod', guardedPod({ uid: 'uid-2' }))
    codes.push(codeOf(await post(await webhook.identityBody(earlier))))
    const late = mint()
    webhook.passSeconds(3_600)
    codes.push(codeOf(await post(await webhook.identityBody(late))))
    expect(codes).toEqual(Array(4).fill('401 token-refused'))
  })

  it('refuses a proof by nobody, for another token, or one used before', async () => {
    const body = await webhook.identityBody(mint())
    expect((await post(body)).status).toBe(200)
    expect(codeOf(await post(body))).toBe('401 proof-replayed')
    expect(codeOf(await post({ ...body, token: mint() }))).toBe('401 proof-target')
    expect(codeOf(await post({ ...body, proof: 'x.y.z' }))).toBe('401 proof-header')
  })

  it('serves a Pod one request at a time', async () => {
    webhook.cluster.put('Pod', guardedPod({ addresses: [] }))
    const bodies = [await webhook.identityBody(mint()), await webhook.identityBody(mint())]
    const codes = await Promise.all(bodies.map(async (body) => codeOf(await post(body))))
    expect(codes.sort()).toEqual(['429 busy', '503 pod-without-address'])
  })

  it('signs nothing while the API server cannot be asked', async () => {
    const body = await webhook.identityBody(mint())
    webhook.cluster.setAvailable(false)
    expect(codeOf(await post(body))).toBe('503 cluster-unavailable')
  })

  it('refuses labels that no frame can carry, and says so', async () => {
    const entries = Array.from({ length: 90 }, (_, n) => [`key-${n}`, `value-${(n * 2_654_435_761).toString(36)}`])
    webhook.cluster.put('Pod', guardedPod({ labels: Object.fromEntries(entries) }))
    webhook.passSeconds(1)
    expect(codeOf(await post(await webhook.identityBody(mint())))).toBe('422 wit-too-large')
  })

  it('signs nothing that a void of the same second would cover', async () => {
    webhook.server.revoke({ uid: 'uid-web', iatBefore: webhook.now() + 1 })
    const answer = await post(await webhook.identityBody(mint()))
    expect([codeOf(answer), answer.headers['retry-after']]).toEqual(['503 identity-not-yet', '1'])
    webhook.passSeconds(2)
    expect((await post(await webhook.identityBody(mint()))).status).toBe(200)
  })

  it.each<[string, unknown]>([
    ['400 request-invalid', {}],
    ['400 request-invalid', []],
    ['400 request-invalid', '{"token":'],
    ['400 request-invalid', 'null'],
    ['400 request-invalid', { token: 5, proof: 'x' }],
    ['400 request-invalid', { token: 'x'.repeat(8_193), proof: 'x' }],
    ['413 request-too-large', { token: 'x'.repeat(20_000), proof: 'x' }],
  ])('answers %s to a body of another shape', async (code, body) => {
    expect(codeOf(await post(body))).toBe(code)
  })

  it('writes neither tokens nor proofs nor WITs to the log', async () => {
    const body = await webhook.identityBody(mint())
    const answer = await post(body)
    await post(body)
    const { wit } = answer.body as IdentityResponse
    // A line is written once the answer is on its way.
    while (!webhook.logLines.some((line) => line.includes('proof-replayed'))) await setTimeout(5)
    const log = webhook.logLines.join('')
    for (const secret of [body.token, body.proof, wit]) expect(log).not.toContain(secret.slice(-40))
  })
})

describe('GET /v1/bundle', () => {
  it('gives the public keys to anybody', async () => {
    const { status, body } = await webhook.send('GET', '/v1/bundle', { localAddress: '127.0.0.9' })
    expect({ status, body }).toEqual({ status: 200, body: webhook.authority.bundle() })
  })
})

describe('GET /v1/peers', () => {
  const path = '/v1/peers?ip=127.0.0.1'

  it('tells an identified Pod who has an address', async () => {
    const headers = await webhook.prove(await webhook.identify(), path)
    const { status, body } = await webhook.send('GET', path, { headers })
    expect([status, body]).toEqual([200, expect.objectContaining({ kind: 'pod', guarded: true })])
  })

  it('tells nothing to anybody else', async () => {
    const identity = await webhook.identify()
    const other = await webhook.identify()
    const headers = await webhook.prove(identity, path)
    const ask = async (request: { headers?: object; localAddress?: string }, asked = path) =>
      codeOf(await webhook.send('GET', asked, request as object))
    const codes = [
      await ask({}),
      await ask({ headers }, '/v1/peers?ip=127.0.0.2'),
      await ask({ headers: { ...(await webhook.prove(other, path)), 'workload-identity-token': identity.wit } }),
      await ask({ headers: await webhook.prove(identity, path), localAddress: '127.0.0.2' }),
    ]
    expect((await webhook.send('GET', path, { headers })).status).toBe(200)
    codes.push(await ask({ headers }))
    webhook.server.revoke({ uid: 'uid-web', iatBefore: webhook.now() })
    codes.push(await ask({ headers: await webhook.prove(identity, path) }))
    webhook.passSeconds(3_600 + 120)
    codes.push(await ask({ headers: await webhook.prove(identity, path) }))
    expect(codes).toEqual([
      '401 wit-missing',
      '401 proof-target',
      '401 proof-signature',
      '403 address-mismatch',
      '401 proof-replayed',
      '401 wit-void',
      '401 wit-expired',
    ])
  })

  it.each(['/v1/peers', '/v1/peers?ip=', '/v1/peers?ip=10.0.0.256', '/v1/peers?ip=10.0.0.1&ip=10.0.0.2'])(
    'refuses %s',
    async (path) => {
      const headers = await webhook.prove(await webhook.identify(), path)
      expect(codeOf(await webhook.send('GET', path, { headers }))).toBe('400 request-invalid')
    },
  )
})
