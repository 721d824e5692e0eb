/** Refusals that a sidecar tells of become Events at a real API server, by a replica with its own rights. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { CoreV1EventList, V1ConfigMap } from '@kubernetes/client-node'
import { TOKEN_AUDIENCE } from '../../api/names.ts'
import { PATH_REFUSALS, type ToldRefusal } from '../../api/reports.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { createIssuerClient, type HeldIdentity, type IssuerClient } from './issuer-client.ts'
import { install, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { createNamespace, mintToken, pathOf, putObject, unless } from './stage.ts'

const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'

let control: ControlPlane
let replica: ReplicaProcess
let issuer: IssuerClient
let identity: HeldIdentity

const post = (path: string, body: unknown) => control.admin.send({ method: 'POST', path, body })

/** A guarded Pod as its kubelet shows it. */
async function runPod(name: string, ip: string): Promise<void> {
  const path = pathOf('Pod', 'shop')
  const spec = { nodeName: 'node-1', serviceAccountName: 'web', containers: [{ name: 'app', image: 'app:1' }] }
  await post(path, { metadata: { name }, spec })
  const status = {
    phase: 'Running',
    podIP: ip,
    podIPs: [{ ip }],
    hostIP: '10.200.0.2',
    hostIPs: [{ ip: '10.200.0.2' }],
  }
  const contentType = 'application/merge-patch+json'
  await control.admin.send({ method: 'PATCH', path: `${path}/${name}/status`, contentType, body: { status } })
}

beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, NAMES, true)
  const injection = { image: 'registry.test/sidecar:1', clusterNetworks: ['127.0.0.0/8'] }
  replica = await spawnReplica({ control, names: NAMES, settings: { injection } })
  await until('the voids', async () => (await replica.readyz()).body.conditions.voids)
  await post(CONFIGURATION, webhookConfiguration(NAMES.webhookConfiguration, await replica.port()))
  await until('ready', async () => (await replica.readyz()).status === 200)
  await putObject(control.admin, 'Node', {
    metadata: { name: 'node-1' },
    status: { addresses: [{ type: 'InternalIP', address: '10.200.0.2' }] },
  } as never)
  await createNamespace(control.admin, 'shop', { labels: { 'synguard.io/inject': 'enabled' } })
  const path = '/api/v1/namespaces/shop/configmaps/synguard-ca'
  const ca = await until(
    'the CA',
    async () => (await unless(404, control.admin.send<V1ConfigMap>({ method: 'GET', path })))?.data,
  )
  issuer = createIssuerClient(await replica.port(), ca['ca.crt'] ?? '')
  await runPod('db', '127.0.0.2')
  await runPod('web', '127.0.0.3')
  const token = await mintToken(control.admin, { namespace: 'shop', podName: 'db', audience: TOKEN_AUDIENCE })
  identity = await until('an identity', async () => {
    const held = await issuer.identify(token, '127.0.0.2')
    return typeof held === 'string' ? undefined : held
  })
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  await replica?.stop()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

async function refusedEvents() {
  const query = { fieldSelector: 'reason=ConnectionRefused' }
  const path = '/api/v1/namespaces/shop/events'
  const { items } = await control.admin.send<CoreV1EventList>({ method: 'GET', path, query })
  return items
}

describe('refused connections', () => {
  const refusal: ToldRefusal = {
    direction: 'ingress',
    reason: 'policy',
    protocol: 'TCP',
    port: 5432,
    peer: 'shop/web',
    identified: true,
    policies: ['shop/only-api'],
    count: 3,
  }

  it('are Events of the Pod that refuses and of its peer', async () => {
    expect(await issuer.tell(identity, PATH_REFUSALS, { refusals: [refusal] })).toBe(200)
    const events = await until('two Events', async () => {
      const found = await refusedEvents()
      return found.length >= 2 && found
    })
    const told = events.map(({ type, involvedObject: { kind, name, uid }, message }) => ({
      type,
      kind,
      name,
      uid,
      message,
    }))
    expect(told.sort((a, b) => (a.name ?? '').localeCompare(b.name ?? ''))).toEqual([
      {
        type: 'Warning',
        kind: 'Pod',
        name: 'db',
        uid: expect.any(String),
        message:
          'Connection from shop/web to port 5432/TCP refused (ingress): policy: isolated by shop/only-api, no rule matches, 3 times',
      },
      {
        type: 'Warning',
        kind: 'Pod',
        name: 'web',
        uid: expect.any(String),
        message:
          'Connection to shop/db, port 5432/TCP, refused there (ingress): policy: isolated by shop/only-api, no rule matches, 3 times',
      },
    ])
  }, 60_000)

  it('of ever new peers are not as many Events, and leave room for those of admission', async () => {
    for (let round = 0; round < 10; round++) {
      const refusals = Array.from({ length: 8 }, (_, at) => ({
        ...refusal,
        peer: `203.0.113.${round * 8 + at}`,
        identified: false,
      }))
      expect(await issuer.tell(identity, PATH_REFUSALS, { refusals })).toBe(200)
    }
    const spec = { hostNetwork: true, containers: [{ name: 'app', image: 'app:1' }] }
    await post(pathOf('Pod', 'shop'), { metadata: { name: 'host' }, spec: { ...spec, serviceAccountName: 'web' } })
    const path = '/api/v1/namespaces/shop/events'
    await until('the Event of admission', async () => {
      const query = { fieldSelector: 'reason=InjectionSkipped' }
      return (await control.admin.send<CoreV1EventList>({ method: 'GET', path, query })).items.length > 0
    })
    // Twenty at once, and one more every ten seconds.
    const count = (await refusedEvents()).length
    expect(count).toBeGreaterThanOrEqual(20)
    expect(count).toBeLessThan(40)
  }, 60_000)
})
