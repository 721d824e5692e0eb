import { request } from 'node:https'
import { afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import { createSigningKey } from '../../../certs/authority.ts'
import { createServingAuthority, issueServingCertificate } from '../../../certs/serving.ts'
import type { Cluster } from '../../../webhook/cluster.ts'
import { createMemoryCluster } from '../../../webhook/memory-cluster.ts'
import { createServer, type WebhookServer } from '../../../webhook/server.ts'
import { createWebhookSettings } from '../../../webhook/settings.ts'
import { createFixedAuthority } from '../../fixtures/authority.ts'
import { INJECTION, namespace, plainPod } from './fixtures.ts'

const now = () => Math.floor(Date.now() / 1_000)
let tls: ReturnType<typeof issueServingCertificate>
let ca: string
beforeAll(() => {
  const times = { now: now(), lifetimeSeconds: 600 }
  const authority = createServingAuthority(times)
  ca = authority.certificatePem
  tls = issueServingCertificate(authority, { names: ['localhost'], addresses: [], ...times })
})

let server: WebhookServer | undefined
afterEach(() => server?.close())

/** What the webhook answers for a Pod of namespace shop, over that cluster. */
async function admit(cluster: Cluster): Promise<unknown> {
  const key = createSigningKey()
  server = createServer({
    cluster,
    authority: createFixedAuthority(key),
    tls,
    settings: createWebhookSettings({ host: '127.0.0.1', port: 0, healthPort: 0 }),
    injection: INJECTION,
    log: pino({ level: 'silent' }),
  })
  const { port } = await server.listen()
  const review = {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'review-1',
      operation: 'CREATE',
      namespace: 'shop',
      resource: { group: '', version: 'v1', resource: 'pods' },
      object: plainPod(),
    },
  }
  const text = await new Promise<string>((resolve, reject) => {
    const target = {
      host: '127.0.0.1',
      port,
      path: '/mutate',
      method: 'POST',
      servername: 'localhost',
      ca,
      agent: false,
    }
    const outgoing = request(target, async (response) => resolve((await response.toArray()).join('')))
    outgoing.on('error', reject).end(JSON.stringify(review))
  })
  return (JSON.parse(text) as { response: unknown }).response
}

describe('a namespace that was not seen as labelled yet', () => {
  const labelled = () => {
    const cluster = createMemoryCluster({ now })
    cluster.put('Namespace', namespace())
    return cluster
  }

  it.each([
    ['was not seen at all', () => undefined],
    ['was seen without its label', () => namespace('shop', {})],
  ])('is asked about at the cluster: its Pod is injected where it %s', async (_, seen) => {
    const cluster = { ...labelled(), get: seen } as Cluster
    expect(await admit(cluster)).toMatchObject({ allowed: true, patchType: 'JSONPatch' })
  })

  it('has its Pod refused where the cluster cannot be asked', async () => {
    const cluster = labelled()
    cluster.setAvailable(false)
    const behind = { ...cluster, get: () => undefined } as Cluster
    const status = { code: 503, message: expect.stringMatching(/^namespace-lookup-failed: /) }
    expect(await admit(behind)).toMatchObject({ allowed: false, status })
  })

  it('has its Pod refused where there is no such namespace', async () => {
    const status = { code: 503, message: expect.stringMatching(/^namespace-unknown: /) }
    expect(await admit(createMemoryCluster({ now }))).toMatchObject({ allowed: false, status })
  })
})
