/** The sidecar's clients at the webhook's server, over whatever cluster: each as it is. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import type { StreamMessage } from '../../api/identity.ts'
import { createSigningKey } from '../../certs/authority.ts'
import { createServingAuthority, issueServingCertificate } from '../../certs/serving.ts'
import { authenticateRequest, createIdentityClient, type OwnIdentity } from '../../sidecar/control/identity-client.ts'
import { createIssuerHttp, type IssuerHttp } from '../../sidecar/control/issuer-http.ts'
import { createPeersClient } from '../../sidecar/control/peers-client.ts'
import { createStreamClient } from '../../sidecar/control/stream-client.ts'
import { createServer, type WebhookServer } from '../../webhook/server.ts'
import { createWebhookSettings } from '../../webhook/settings.ts'
import { createFixedAuthority } from '../fixtures/authority.ts'
import { guardedPod, INJECTION, namespace, plainPod } from '../unit/webhook/fixtures.ts'
import { type Stage, until } from './stage.ts'

const nowSeconds = () => Math.floor(Date.now() / 1_000)
const log = pino({ level: 'silent' })
const settings = createWebhookSettings({ host: '127.0.0.1', port: 0, healthPort: 0, directoryDelayMs: 5 })

function createServing() {
  const times = { now: nowSeconds(), lifetimeSeconds: 3_600 }
  const ca = createServingAuthority(times)
  return { ca, tls: issueServingCertificate(ca, { names: ['localhost'], addresses: [], ...times }) }
}

export function describeSidecar(name: string, createStage: () => Promise<Stage>): void {
  describe(name, () => {
    let serving: ReturnType<typeof createServing>
    beforeAll(() => {
      serving = createServing()
    })

    const authority = createFixedAuthority(createSigningKey())
    let stage: Stage
    let server: WebhookServer
    let http: IssuerHttp
    let folder: string

    beforeEach(async () => {
      stage = await createStage()
      await stage.put('Namespace', namespace())
      await stage.put('Pod', guardedPod())
      await until('the cluster', () => stage.cluster.synced() && stage.cluster.get('Namespace', 'shop'))
      server = createServer({
        cluster: stage.cluster,
        authority,
        tls: serving.tls,
        settings,
        injection: INJECTION,
        log,
      })
      const { port } = await server.listen()
      folder = mkdtempSync(join(tmpdir(), 'synguard-contract-'))
      const caPath = join(folder, 'ca.crt')
      writeFileSync(caPath, serving.ca.certificatePem)
      const token = await stage.mintToken({ namespace: 'shop', podName: 'web', audience: 'synguard' })
      writeFileSync(join(folder, 'token'), token)
      http = createIssuerHttp({ address: '127.0.0.1', port, name: 'localhost', caPath, now: Date.now })
    })
    afterEach(async () => {
      http.close()
      await server.close()
      await stage.close()
      rmSync(folder, { recursive: true })
    })

    const uidOf = (podName: string) => stage.cluster.get('Pod', podName, 'shop')?.metadata?.uid ?? ''

    async function obtain(): Promise<OwnIdentity> {
      const { trustDomain, issuer } = settings
      const uid = await until('the Pod', () => uidOf('web'))
      const { promise, resolve, reject } = Promise.withResolvers<OwnIdentity>()
      const client = createIdentityClient({
        http,
        tokenPath: join(folder, 'token'),
        pod: { namespace: 'shop', name: 'web', uid },
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

    it('gets the identity that the API server attests', async () => {
      const { verified, bundle } = await obtain()
      expect([verified.identity, bundle]).toEqual([
        {
          namespace: 'shop',
          name: 'web',
          uid: uidOf('web'),
          serviceAccount: 'web',
          labels: { app: 'web' },
          namespaceLabels: stage.cluster.get('Namespace', 'shop')?.metadata?.labels,
          addresses: ['127.0.0.1'],
          ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
        },
        authority.bundle(),
      ])
    })

    it('understands the answer for every kind of address', async () => {
      const authenticate = authenticateAs(await obtain())
      await stage.put('Pod', plainPod({ name: 'peer', addresses: ['10.244.0.7', 'fd00:244::7'] }))
      await stage.put('Pod', plainPod({ name: 'twin-1', addresses: ['10.244.0.8'] }))
      await stage.put('Pod', plainPod({ name: 'twin-2', addresses: ['10.244.0.8'] }))
      await stage.put('Node', {
        metadata: { name: 'node-1' },
        status: { addresses: [{ type: 'InternalIP', address: '10.0.0.1' }] },
      })
      await stage.put('Service', {
        metadata: { name: 'peer', namespace: 'shop' },
        spec: { clusterIP: '10.96.0.7', selector: { app: 'peer' }, ports: [{ port: 80, targetPort: 'http' }] },
      })
      await stage.put('Service', {
        metadata: { name: 'exposed', namespace: 'shop' },
        spec: {
          type: 'LoadBalancer',
          externalTrafficPolicy: 'Local',
          healthCheckNodePort: 30_999,
          clusterIP: '10.96.0.8',
          selector: { app: 'peer' },
          ports: [
            { name: 'http', port: 80, nodePort: 30_080, protocol: 'TCP' },
            { name: 'dns', port: 53, nodePort: 30_053, protocol: 'UDP' },
          ],
        },
      })
      const peers = createPeersClient({ http, authenticate, now: Date.now })
      const addresses = ['127.0.0.1', 'fd00:244::7', '10.244.0.8', '10.0.0.1', '10.96.0.7', '203.0.113.1']
      const expected = ['pod', 'pod', 'unmatched', 'node', 'service', 'external']
      const kinds = await until('all objects to be known', async () => {
        const answers = await Promise.all(addresses.map((address) => peers.ask(address)))
        const found = answers.map((answer) => (answer.kind === 'known' ? answer.entry.kind : answer.reason))
        return found.join() === expected.join() && found
      })
      expect(kinds).toEqual(expected)
      const serviceAddress = '10.96.0.8'
      const ports = [
        { protocol: 'TCP', port: 30_080, serviceAddress, servicePort: 80 },
        { protocol: 'UDP', port: 30_053, serviceAddress, servicePort: 53 },
      ]
      // No stream watches here: a fresh client asks anew.
      const entry = await until('the node ports', async () => {
        const fresh = createPeersClient({ http, authenticate, now: Date.now })
        const answer = await fresh.ask('10.0.0.1')
        fresh.stop()
        return answer.kind === 'known' && answer.entry.kind === 'node' && answer.entry.ports.length > 0 && answer.entry
      })
      peers.stop()
      expect(entry).toEqual({ kind: 'node', name: 'node-1', ports })
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
          if (types.length === 2) void stage.put('Pod', guardedPod({ labels: { app: 'other' } }))
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
}
