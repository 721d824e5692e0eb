import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import type { StreamMessage } from '../../../api/identity.ts'
import {
  authenticateRequest,
  createIdentityClient,
  type OwnIdentity,
} from '../../../sidecar/control/identity-client.ts'
import { createIssuerHttp, type IssuerHttp } from '../../../sidecar/control/issuer-http.ts'
import { createPeersClient } from '../../../sidecar/control/peers-client.ts'
import { createStreamClient } from '../../../sidecar/control/stream-client.ts'
import { guardedPod, namespace, plainPod, startWebhook, type Webhook } from './fixtures.ts'

/** The sidecar's clients and the webhook's server, each as it is. */
let webhook: Webhook
let folder: string
let http: IssuerHttp
const log = pino({ level: 'silent' })

beforeEach(async () => {
  webhook = await startWebhook()
  webhook.cluster.put('Namespace', namespace())
  webhook.cluster.put('Pod', guardedPod())
  folder = mkdtempSync(join(tmpdir(), 'synguard-contract-'))
  writeFileSync(join(folder, 'ca.crt'), webhook.caPem)
  writeFileSync(
    join(folder, 'token'),
    webhook.cluster.mintToken({ namespace: 'shop', podName: 'web', audience: 'synguard' }),
  )
  const { port } = webhook
  http = createIssuerHttp({
    address: '127.0.0.1',
    port,
    name: 'localhost',
    caPath: join(folder, 'ca.crt'),
    now: Date.now,
  })
})
afterEach(async () => {
  http.close()
  await webhook.close()
  rmSync(folder, { recursive: true })
})

async function obtain(): Promise<OwnIdentity> {
  const { trustDomain, issuer } = webhook.settings
  const { promise, resolve, reject } = Promise.withResolvers<OwnIdentity>()
  const client = createIdentityClient({
    http,
    tokenPath: join(folder, 'token'),
    pod: { namespace: 'shop', name: 'web', uid: 'uid-web' },
    trustDomain,
    issuer,
    now: Date.now,
    random: Math.random,
    log,
    onIdentity: resolve,
    onFailure: reject,
  })
  client.start()
  return promise.finally(() => client.stop())
}

const authenticateAs = (identity: OwnIdentity) => (path: string) => authenticateRequest(identity, path, Date.now())

describe('the sidecar at the webhook', () => {
  it('gets the identity that the API server attests', async () => {
    const { verified, bundle } = await obtain()
    expect([verified.identity.uid, bundle]).toEqual(['uid-web', webhook.authority.bundle()])
  })

  it('understands the answer for every kind of address', async () => {
    const authenticate = authenticateAs(await obtain())
    const { cluster } = webhook
    cluster.put('Pod', plainPod({ name: 'peer', addresses: ['10.244.0.7', 'fd00:244::7'] }))
    cluster.put('Pod', plainPod({ name: 'twin-1', addresses: ['10.244.0.8'] }))
    cluster.put('Pod', plainPod({ name: 'twin-2', addresses: ['10.244.0.8'] }))
    cluster.put('Node', { metadata: { name: 'node-1' }, status: { addresses: [{ type: 'x', address: '10.0.0.1' }] } })
    cluster.put('Service', {
      metadata: { name: 'peer', namespace: 'shop' },
      spec: { clusterIP: '10.96.0.7', selector: { app: 'peer' }, ports: [{ port: 80, targetPort: 'http' }] },
    })
    const peers = createPeersClient({ http, authenticate, now: Date.now })
    const addresses = ['127.0.0.1', 'fd00:244::7', '10.244.0.8', '10.0.0.1', '10.96.0.7', '203.0.113.1']
    const answers = await Promise.all(addresses.map((address) => peers.ask(address)))
    peers.stop()
    expect(answers.map((answer) => (answer.kind === 'known' ? answer.entry.kind : answer.reason))).toEqual([
      'pod',
      'pod',
      'unmatched',
      'node',
      'service',
      'external',
    ])
  })

  it('hears by its stream what changes', async () => {
    const authenticate = authenticateAs(await obtain())
    const types: StreamMessage['type'][] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    const stream = createStreamClient({
      http,
      authenticate,
      holding: () => ({ bundle: [], addresses: ['10.244.0.7'] }),
      onMessage({ type }) {
        types.push(type)
        if (types.length === 2) webhook.cluster.put('Pod', guardedPod({ labels: { app: 'other' } }))
        if (types.length === 4) resolve()
      },
      onState: () => {},
      log,
      random: Math.random,
    })
    stream.start()
    await promise
    stream.stop()
    expect(types).toEqual(['hello', 'directory', 'void', 'renew'])
  })
})
