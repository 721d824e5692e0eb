import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { CoreV1Event, CoreV1EventList, V1Pod } from '@kubernetes/client-node'
import { pino } from 'pino'
import { ApiError } from '../../kubernetes/errors.ts'
import { createEventRecorder } from '../../webhook/events.ts'
import { createWebhookMetrics } from '../../webhook/metrics.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { startOtherInjector } from './other-injector.ts'
import { install, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { createNamespace, pathOf } from './stage.ts'

const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const LABELS = { 'synguard.io/inject': 'enabled' }
const APPS = '/apis/apps/v1/namespaces/shop/replicasets'

let control: ControlPlane
let replica: ReplicaProcess
beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, NAMES, true)
  replica = await spawnReplica({ control, names: NAMES })
  const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
  const body = webhookConfiguration(NAMES.webhookConfiguration, await replica.port())
  await control.admin.send({ method: 'POST', path, body })
  await until('ready', async () => (await replica.readyz()).status === 200)
  await createNamespace(control.admin, 'shop', { labels: LABELS })
  await createNamespace(control.admin, 'mixed', { labels: { ...LABELS, other: 'enabled' } })
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  await replica?.stop()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

type Spec = Partial<NonNullable<V1Pod['spec']>>
const pod = (metadata: V1Pod['metadata'], spec: Spec = {}): V1Pod => ({
  ...(metadata && { metadata }),
  spec: { containers: [{ name: 'app', image: 'app:1' }], ...spec },
})
const create = (namespace: string, body: V1Pod, query: Record<string, string> = {}) =>
  control.admin.send<V1Pod>({ method: 'POST', path: pathOf('Pod', namespace), query, body })
const refusalOf = (answer: Promise<unknown>) =>
  answer.then(
    () => undefined,
    (error: unknown) => (error instanceof ApiError ? `${error.status} ${error.message}` : String(error)),
  )
const STRONG: Spec = {
  containers: [{ name: 'app', image: 'app:1', securityContext: { capabilities: { add: ['NET_ADMIN'] } } }],
}

async function eventsOf(namespace: string, name: string): Promise<CoreV1Event[]> {
  const path = `/api/v1/namespaces/${namespace}/events`
  const query = { fieldSelector: `involvedObject.name=${name}` }
  return (await control.admin.send<CoreV1EventList>({ method: 'GET', path, query })).items
}

/** All numbers of a metric by its labels, as text. */
async function metric(name: string): Promise<Record<string, number>> {
  const { healthPort } = await replica.line('starting')
  const text = await (await fetch(`http://127.0.0.1:${healthPort}/metrics`)).text()
  const lines = text.split('\n').filter((line) => line.startsWith(`synguard_webhook_${name}`))
  return Object.fromEntries(
    lines.map((line) => [
      line.slice(`synguard_webhook_${name}`.length, line.lastIndexOf(' ')),
      Number(line.split(' ').at(-1)),
    ]),
  )
}

describe('a Pod that another injector changes as well', () => {
  it.each(['a-before-us', 'z-after-us'])('has our containers first and gives NET_RAW to nobody: %s', async (name) => {
    const other = await startOtherInjector(control.admin, name)
    try {
      // The API server knows a new webhook only after a moment.
      const made = await until('a Pod of both', async () => {
        const found = await create('mixed', pod({ generateName: 'web-' }))
        return other.calls() > 0 && found
      })
      expect(made.spec?.initContainers?.map((one) => one.name)).toEqual(['synguard-init', 'synguard-sidecar', 'eager'])
      expect(made.spec?.containers.map((one) => one.name)).toEqual(['app', 'late'])
      const others = [...(made.spec?.containers ?? []), ...(made.spec?.initContainers ?? []).slice(2)]
      expect(others.map(({ securityContext }) => securityContext?.capabilities?.drop)).toEqual(
        others.map(() => ['NET_RAW']),
      )
      expect(made.metadata?.annotations?.['synguard.io/status']).toBe('injected')
      // One volume each, however often we are asked.
      const volumes = made.spec?.volumes
        ?.map((volume) => volume.name)
        .filter((volume) => volume.startsWith('synguard-'))
      expect(volumes).toEqual(['synguard-credentials', 'synguard-state'])
    } finally {
      await other.stop()
    }
  })
})

describe('an Event', () => {
  it('names the reason of a refusal at the controller that makes the Pod, which may never exist', async () => {
    const template = { metadata: { labels: { app: 'web' } }, spec: STRONG }
    const spec = { replicas: 1, selector: { matchLabels: { app: 'web' } }, template }
    const body = { metadata: { name: 'web' }, spec }
    const { metadata } = await control.admin.send<{ metadata: { uid: string } }>({ method: 'POST', path: APPS, body })
    // No controller runs here; this is what it would ask for, again and again.
    const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid: metadata.uid }
    const ownerReferences = [{ ...owner, controller: true }]
    for (let round = 0; round < 3; round++) {
      const refusal = await refusalOf(create('shop', pod({ generateName: 'web-', ownerReferences }, STRONG)))
      expect(refusal).toContain('dangerous-capability')
    }
    const [event, ...more] = await until('the Event', async () => {
      const events = await eventsOf('shop', 'web')
      return events.length > 0 && events
    })
    // What repeats is one Event.
    expect(more).toEqual([])
    expect([event?.type, event?.reason, event?.involvedObject]).toEqual([
      'Warning',
      'InjectionRefused',
      { ...owner, namespace: 'shop' },
    ])
    expect(event?.message).toMatch(/^Pod shop\/web-…: dangerous-capability: container "app" .* adds NET_ADMIN/)
  })

  it('is at the namespace where nobody but a person makes the Pod; its being left alone is one, too', async () => {
    await createNamespace(control.admin, 'alone', { labels: LABELS })
    await create('alone', pod({ name: 'host' }, { hostNetwork: true }))
    await refusalOf(create('alone', pod({ name: 'strong' }, STRONG)))
    const events = await until('both', async () => {
      const found = await eventsOf('alone', 'alone')
      return found.length > 1 && found
    })
    expect(events.map(({ type, reason, message }) => [type, reason, message?.split(': ').slice(0, 2)]).sort()).toEqual([
      ['Normal', 'InjectionSkipped', ['Pod alone/host', 'host-network']],
      ['Warning', 'InjectionRefused', ['Pod alone/strong', 'dangerous-capability']],
    ])
    expect(events.map(({ involvedObject }) => involvedObject.kind)).toEqual(['Namespace', 'Namespace'])
  })

  it('is none in a dry run', async () => {
    await createNamespace(control.admin, 'dry', { labels: LABELS })
    const refusal = await refusalOf(create('dry', pod({ name: 'strong' }, STRONG), { dryRun: 'All' }))
    expect(refusal).toContain('dangerous-capability')
    await create('dry', pod({ name: 'host' }, { hostNetwork: true }), { dryRun: 'All' })
    // The next one is written, so these would have been.
    await create('dry', pod({ name: 'host' }, { hostNetwork: true }))
    const events = await until('the Event', async () => {
      const found = await eventsOf('dry', 'dry')
      return found.length > 0 && found
    })
    expect(events.map(({ reason }) => reason)).toEqual(['InjectionSkipped'])
  })

  it('is at the Pod for its ephemeral containers', async () => {
    const made = await create('shop', pod({ name: 'debugged' }))
    const spec = { ephemeralContainers: [{ name: 'd', image: 'app:1', securityContext: { privileged: true } }] }
    const path = `${pathOf('Pod', 'shop', 'debugged')}/ephemeralcontainers`
    const contentType = 'application/strategic-merge-patch+json'
    const answer = control.admin.send({ method: 'PATCH', path, contentType, body: { spec } })
    expect(await refusalOf(answer)).toContain('privileged-container')
    const [event] = await until('the Event', async () => {
      const found = await eventsOf('shop', 'debugged')
      return found.length > 0 && found
    })
    expect([event?.involvedObject.kind, event?.involvedObject.uid]).toEqual(['Pod', made.metadata?.uid])
  })
})

describe('the recorder of Events', () => {
  it('counts what repeats, makes an Event anew that is gone, and lets no namespace have many at once', async () => {
    const metrics = createWebhookMetrics()
    const log = pino({ level: 'silent' })
    const recorder = createEventRecorder({ client: control.admin, replica: 'r', metrics, log, gatherMs: 100 })
    const subject = { apiVersion: 'v1', kind: 'Namespace', name: 'shop', namespace: 'shop' }
    const event = { subject, type: 'Normal' as const, reason: 'Tested', code: 'a', message: 'first' }
    const own = async () => (await eventsOf('shop', 'shop')).filter(({ reason }) => reason === 'Tested')
    recorder.record(event)
    recorder.record({ ...event, message: 'second' })
    recorder.record({ ...event, message: 'third' })
    const counted = await until('the count', async () => (await own()).find(({ count }) => count === 3))
    expect(counted.message).toBe('third')
    await control.admin.send({ method: 'DELETE', path: `/api/v1/namespaces/shop/events/${counted.metadata?.name}` })
    recorder.record({ ...event, message: 'fourth' })
    await until('it to be back', async () => (await own()).find(({ count }) => count === 4))
    for (let index = 0; index < 100; index++) recorder.record({ ...event, code: String(index) })
    await recorder.stop()
    const all = await own()
    expect(all.length).toBeGreaterThan(10)
    expect(all.length).toBeLessThanOrEqual(25)
    const dropped = await metrics.eventsDropped.get()
    expect(dropped.values[0]?.value).toBeGreaterThanOrEqual(76)
  })
})

describe('the metrics', () => {
  it('count admissions by outcome and reason, watches, and requests to the API server', async () => {
    const admissions = await metric('admissions_total')
    expect(admissions['{subject="pod",outcome="refused",code="dangerous-capability"}']).toBeGreaterThanOrEqual(5)
    expect(admissions['{subject="pod",outcome="skipped",code="host-network"}']).toBe(3)
    expect(admissions['{subject="ephemeral-containers",outcome="refused",code="privileged-container"}']).toBe(1)
    expect((await metric('admission_seconds_count'))['{subject="pod"}']).toBeGreaterThan(8)
    const lists = await metric('watch_lists_total')
    const watches = await metric('watches_total')
    const ages = await metric('watch_age_seconds')
    for (const resource of ['pods', 'namespaces', 'services', 'endpointslices', 'nodes', 'configmaps']) {
      const label = `{resource="${resource}"}`
      expect([resource, lists[label]]).toEqual([resource, resource === 'configmaps' ? 3 : 1])
      expect(watches[label]).toBeGreaterThanOrEqual(1)
      expect(ages[label]).toBeGreaterThanOrEqual(0)
    }
    expect(await metric('watch_failures_total')).toEqual({})
    expect((await metric('events_total'))['{reason="InjectionRefused"}']).toBeGreaterThanOrEqual(3)
    expect((await metric('api_requests_total'))['{verb="post",resource="events",code="ok"}']).toBeGreaterThanOrEqual(5)
  })
})
