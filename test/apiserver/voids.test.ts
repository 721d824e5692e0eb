import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import type { CoreV1EventList, V1ConfigMap, V1Pod } from '@kubernetes/client-node'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { createIssuerClient, type HeldIdentity, type IssuerClient, type OpenStream } from './issuer-client.ts'
import { readKeys } from './keys.ts'
import { install, SYSTEM, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { createNamespace, mintToken, pathOf, putObject, removeObject, unless } from './stage.ts'

const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const LABELS = { 'synguard.io/inject': 'enabled' }
const MERGE = 'application/merge-patch+json'
const VOIDS = `/api/v1/namespaces/${SYSTEM}/configmaps/synguard-voids`

let control: ControlPlane
let ca: string
/** A webhook that injects from the start to the end, so that Pods are guarded while the replicas under test are down. */
let injecting: ReplicaProcess
const replicas: ReplicaProcess[] = []
const streams: OpenStream[] = []

beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, NAMES, true)
  injecting = await spawnReplica({ control, names: NAMES })
  const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
  const body = webhookConfiguration(NAMES.webhookConfiguration, await injecting.port())
  await control.admin.send({ method: 'POST', path, body })
  await until('ready', async () => (await injecting.readyz()).status === 200)
  ca = (await readKeys(control.admin, NAMES.secret)).ca
  await putObject(control.admin, 'Node', { metadata: { name: 'node-1' } })
}, CONTROL_PLANE_TIMEOUT_MS)
afterEach(async () => {
  for (const stream of streams.splice(0)) stream.close()
  await stopReplicas()
})
afterAll(async () => {
  await injecting?.stop()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

const merge = (path: string, body: unknown) => control.admin.send({ method: 'PATCH', path, contentType: MERGE, body })
const readEntries = async () =>
  (await unless(404, control.admin.send<V1ConfigMap>({ method: 'GET', path: VOIDS })))?.data ?? {}
const write = (data: Record<string, string | null> | null) => merge(VOIDS, { data })
const relabel = (namespace: string, name: string, labels: Record<string, string>) =>
  merge(pathOf('Pod', namespace, name), { metadata: { labels } })

/** Another replica, that knows what the cluster and the ConfigMaps know. */
async function start(settings = {}): Promise<IssuerClient> {
  const replica = await spawnReplica({ control, names: NAMES, settings })
  replicas.push(replica)
  const port = await replica.port()
  await until('the voids', async () => (await replica.readyz()).body.conditions.voids)
  return createIssuerClient(port, ca)
}
const stopReplicas = () => Promise.all(replicas.splice(0).map((replica) => replica.stop()))

/** Ends every replica while `change` happens. */
async function whileNobodyLooks(change: () => Promise<unknown>): Promise<void> {
  await stopReplicas()
  await injecting.stop()
  await change()
}

let address = 1
/** A guarded Pod that runs, at an address of this machine. */
async function runPod(namespace: string, name: string, labels = { app: name }): Promise<TestPod> {
  await createNamespace(control.admin, namespace, { labels: LABELS })
  const body = {
    metadata: { name, labels },
    spec: { nodeName: 'node-1', serviceAccountName: 'web', containers: [{ name: 'app', image: 'app:1' }] },
  }
  const made = await control.admin.send<V1Pod>({ method: 'POST', path: pathOf('Pod', namespace), body })
  const localAddress = `127.0.0.${++address}`
  const status = { phase: 'Running', podIPs: [{ ip: localAddress }] }
  await putObject(control.admin, 'Pod', { ...made, status } as V1Pod)
  return { namespace, name, uid: made.metadata?.uid ?? '', localAddress }
}
interface TestPod {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly localAddress: string
}

async function tryIdentity(client: IssuerClient, { namespace, name, localAddress }: TestPod) {
  const token = await mintToken(control.admin, { namespace, podName: name, audience: 'synguard' })
  return client.identify(token, localAddress)
}

async function identify(client: IssuerClient, pod: TestPod): Promise<HeldIdentity> {
  return until('the identity', async () => {
    const result = await tryIdentity(client, pod)
    return typeof result !== 'string' && result
  })
}

async function open(client: IssuerClient, identity: HeldIdentity): Promise<OpenStream> {
  const stream = await client.openStream(identity)
  if (typeof stream === 'string') throw new Error(`no stream: ${stream}`)
  streams.push(stream)
  return stream
}
const voidOf = (stream: OpenStream, { uid }: TestPod) => stream.voids().find((entry) => entry.uid === uid)

describe('a Pod whose identity an operator declares void', () => {
  it('is void at every replica and its sidecars, and gets a new identity', async () => {
    const [one, two] = await Promise.all([start(), start()])
    const [pod, watcher] = await Promise.all([runPod('shop', 'stolen'), runPod('shop', 'watcher')])
    const stolen = await identify(one, pod)
    const watching = await Promise.all([one, two].map(async (client) => open(client, await identify(client, watcher))))
    await write({ 'shop.stolen': 'void' })
    for (const stream of watching) await until('the void', () => voidOf(stream, pod))
    expect([await one.openStream(stolen), await two.openStream(stolen)]).toEqual(['wit-void', 'wit-void'])
    const entries = await until('the answer', async () => {
      const data = await readEntries()
      return data['shop.stolen'] === undefined && data
    })
    expect(entries[pod.uid]).toMatch(/^voided@\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ shop\/stolen$/)
    const fresh = await identify(two, pod)
    await open(two, fresh)
  }, 90_000)

  it('gets no other where it is revoked, also after all replicas began anew, until it is restored', async () => {
    const first = await start()
    const pod = await runPod('shop', 'bad')
    await identify(first, pod)
    await write({ 'shop.bad': 'revoke' })
    await until('the revocation', async () => (await tryIdentity(first, pod)) === 'identity-revoked')
    await until('the entry', async () => /^revoked@\S+ shop\/bad$/.test((await readEntries())[pod.uid] ?? ''))
    await stopReplicas()
    const second = await start()
    expect(await tryIdentity(second, pod)).toBe('identity-revoked')
    await write({ [pod.uid]: 'restore' })
    await identify(second, pod)
  }, 90_000)
})

describe('the metrics of a replica', () => {
  it('count reviews of tokens by their result, and Pods whose identities are void by cause', async () => {
    const client = await start()
    const pod = await runPod('counted', 'counted')
    await identify(client, pod)
    expect(await client.identify('eyJhbGciOiJub25lIn0.e30.', pod.localAddress)).toBe('token-refused')
    await removeObject(control.admin, 'Pod', 'counted', 'counted')
    const healthPort = (await replicas[0]?.line('starting'))?.healthPort
    const lines = await until('the Pod to have ended', async () => {
      const text = await (await fetch(`http://127.0.0.1:${healthPort}/metrics`)).text()
      return !text.includes('synguard_webhook_voids{cause="ended"} 0') && text.split('\n')
    })
    expect(lines).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^synguard_webhook_token_reviews_total\{result="authenticated"\} [1-9]/),
        'synguard_webhook_token_reviews_total{result="refused"} 1',
        expect.stringMatching(/^synguard_webhook_token_review_seconds_count [2-9]/),
        'synguard_webhook_identities_total{result="ok"} 1',
        'synguard_webhook_identities_total{result="token-refused"} 1',
        'synguard_webhook_void_entries_invalid 0',
        expect.stringMatching(/^synguard_webhook_voids\{cause="ended"\} [1-9]/),
      ]),
    )
  }, 90_000)
})

describe('what happens while no replica runs', () => {
  afterEach(async () => {
    injecting = await spawnReplica({ control, names: NAMES })
    const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
    const url = `https://127.0.0.1:${await injecting.port()}/mutate`
    const body = [{ op: 'replace', path: '/webhooks/0/clientConfig/url', value: url }]
    const contentType = 'application/json-patch+json'
    await control.admin.send({ method: 'PATCH', path: `${path}/${NAMES.webhookConfiguration}`, contentType, body })
    await until('ready', async () => (await injecting.readyz()).status === 200)
  })

  it('makes the identities void that it concerns, and no other', async () => {
    const before = await start()
    const relabelled = await runPod('bank', 'relabelled')
    const moved = await runPod('moved', 'moved')
    const [deleted, finished, untouched] = await Promise.all(
      ['deleted', 'finished', 'untouched'].map((name) => runPod('bank', name)),
    )
    if (deleted === undefined || finished === undefined || untouched === undefined) throw new Error('no Pods')
    const kept = await identify(before, untouched)
    for (const pod of [relabelled, moved, deleted, finished]) await identify(before, pod)
    await whileNobodyLooks(async () => {
      await relabel('bank', 'relabelled', { app: 'other' })
      await merge(pathOf('Namespace', undefined, 'moved'), { metadata: { labels: { team: 'b' } } })
      await removeObject(control.admin, 'Pod', 'deleted', 'bank')
      await merge(`${pathOf('Pod', 'bank', 'finished')}/status`, { status: { phase: 'Succeeded' } })
    })
    const after = await start()
    // Its old WIT is as good as before: nothing else was touched.
    const stream = await open(after, kept)
    const iatBefore = expect.any(Number)
    const namespaceLabels = (name: string) => ({ ...LABELS, 'kubernetes.io/metadata.name': name })
    expect(voidOf(stream, relabelled)).toEqual({
      uid: relabelled.uid,
      iatBefore,
      labels: { app: 'other' },
      namespaceLabels: namespaceLabels('bank'),
    })
    expect(voidOf(stream, moved)).toEqual({
      uid: moved.uid,
      iatBefore,
      labels: { app: 'moved' },
      namespaceLabels: { ...namespaceLabels('moved'), team: 'b' },
    })
    for (const pod of [deleted, finished]) expect(voidOf(stream, pod)).toEqual({ uid: pod.uid, iatBefore })
    expect(voidOf(stream, untouched)).toBeUndefined()
  }, 90_000)

  it('is as void as before what was void, also where the Pod has a new identity since', async () => {
    const before = await start()
    const [pod, watcher] = await Promise.all([runPod('shop', 'renewed'), runPod('shop', 'reader')])
    await identify(before, pod)
    const kept = await identify(before, watcher)
    const stream = await open(before, kept)
    await relabel('shop', 'renewed', { app: 'new' })
    const told = await until('the void', () => voidOf(stream, pod))
    await identify(before, pod)
    await whileNobodyLooks(async () => {})
    const after = await open(await start(), kept)
    expect(voidOf(after, pod)).toMatchObject({ labels: { app: 'new' } })
    expect(voidOf(after, pod)?.iatBefore).toBeGreaterThanOrEqual(told.iatBefore)
  }, 90_000)
})

describe('the ConfigMap of voids, edited by hand', () => {
  it('names what says nothing, in the log and in an Event, and loses nothing by it', async () => {
    const client = await start()
    const pod = await runPod('shop', 'known')
    const other = await runPod('shop', 'other')
    await identify(client, pod)
    await write({ 'shop.known': 'revoke', 'shop.other': 'void' })
    const good = await until('the entries', async () => {
      const { [pod.uid]: one, [other.uid]: two } = await readEntries()
      return one !== undefined && two !== undefined && { [pod.uid]: one, [other.uid]: two }
    })
    const nonsense = {
      nonsense: 'x',
      'shop.nobody': 'revoke',
      'shop.known': 'rewoke',
      [pod.uid]: 'revoked@yesterday',
      '11111111-2222-4333-8444-555555555555': 'voided@2999-01-01T00:00:00Z',
    }
    await write({ ...nonsense, [other.uid]: null })
    await until('both to be back', async () => {
      const data = await readEntries()
      return [pod.uid, other.uid].every((uid) => data[uid]?.split(' ')[0] === good[uid]?.split(' ')[0])
    })
    expect(await readEntries()).toMatchObject({ nonsense: 'x', 'shop.nobody': 'revoke', 'shop.known': 'rewoke' })
    expect(await tryIdentity(client, pod)).toBe('identity-revoked')
    const problems = () =>
      replicas.flatMap(({ log }) =>
        log.flatMap(({ msg, key, problem }) => (/says nothing/.test(msg) ? [[key, problem]] : [])),
      )
    expect(problems()).toEqual(
      expect.arrayContaining([
        ['nonsense', 'its key is neither a Pod as NAMESPACE.NAME nor the uid of one'],
        ['shop.nobody', 'there is no Pod shop/nobody'],
        ['shop.known', 'its value is none of void, revoke, restore'],
        [pod.uid, '"revoked@yesterday" lacks a time such as @2026-01-31T12:00:00Z'],
        ['11111111-2222-4333-8444-555555555555', '"voided@2999-01-01T00:00:00Z" is in the future'],
      ]),
    )
    const events = await control.admin.send<CoreV1EventList>({
      method: 'GET',
      path: `/api/v1/namespaces/${SYSTEM}/events`,
      query: { fieldSelector: 'involvedObject.name=synguard-voids' },
    })
    expect(events.items.map(({ reason, message }) => `${reason}: ${message}`)).toContain(
      'InvalidVoidEntry: The entry "shop.nobody" has no effect: there is no Pod shop/nobody. All other entries hold.',
    )
    await write(Object.fromEntries(Object.keys(nonsense).map((key) => [key, null])))
  }, 90_000)

  it('comes back whole where somebody deletes it', async () => {
    await start()
    const before = await readEntries()
    expect(Object.keys(before)).not.toEqual([])
    await control.admin.send({ method: 'DELETE', path: VOIDS })
    await until('it to be back', async () => {
      const after = await readEntries()
      return Object.keys(before).every((key) => after[key]?.split(' ')[0] === before[key]?.split(' ')[0])
    })
  }, 90_000)
})

describe('an entry', () => {
  it('ends when the last identity that it concerns has expired', async () => {
    await whileNobodyLooks(async () => {})
    const short = { webhook: { host: '127.0.0.1', port: 0, healthPort: 0, witLifetimeSeconds: 20, skewSeconds: 1 } }
    await start(short)
    const uid = '11111111-2222-4333-8444-555555555555'
    const at = (ago: number) => new Date(Date.now() - ago * 1_000).toISOString().replace(/\.\d+/, '')
    const kept = '11111111-2222-4333-8444-666666666666'
    await write({ [uid]: `voided@${at(30)}`, [kept]: `voided@${at(0)}` })
    const data = await until('its end', async () => {
      const entries = await readEntries()
      return entries[uid] === undefined && entries
    })
    expect(Object.keys(data)).toContain(kept)
  }, 90_000)
})
