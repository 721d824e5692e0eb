/** Two replicas rotate the identity key at a real API server, while sidecars hold identities by it. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type {
  CoreV1EventList,
  V1ConfigMap,
  V1ConfigMapList,
  V1LeaseList,
  V1MutatingWebhookConfiguration,
  V1Pod,
  V1Secret,
} from '@kubernetes/client-node'
import {
  CONFIGMAP_ROTATION,
  CONFIGMAP_ROTATION_STATUS,
  type RotationKind,
  type RotationStatus,
} from '../../api/rotation.ts'
import { parseRotationStatus } from '../../api/rotation-status.ts'
import { verifyWit } from '../../certs/wit.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { readKeys, SECRETS } from './keys.ts'
import { install, SYSTEM, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { type SidecarClients, startSidecarClients } from './sidecar-clients.ts'
import { createNamespace, pathOf, putObject, unless } from './stage.ts'

const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const CONFIGMAPS = `/api/v1/namespaces/${SYSTEM}/configmaps`
const LIFETIME_SECONDS = 20
const webhook = { host: '127.0.0.1', port: 0, healthPort: 0, witLifetimeSeconds: LIFETIME_SECONDS, skewSeconds: 1 }
/** Lifetime and three skews, and the turns of both replicas. */
const ROTATION_MS = 90_000

let control: ControlPlane
let ca: string
const replicas: ReplicaProcess[] = []
const sidecars: SidecarClients[] = []
/** Every private key that was ever in the Secret: none of them may stand anywhere else. */
const privateKeys = new Set<string>()
let watching: NodeJS.Timeout

async function start(): Promise<ReplicaProcess> {
  const replica = await spawnReplica({ control, names: NAMES, settings: { webhook } })
  replicas.push(replica)
  return replica
}

beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, NAMES, true)
  const [one, two] = await Promise.all([start(), start()])
  const body = webhookConfiguration(NAMES.webhookConfiguration, await one.port())
  const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
  await control.admin.send({ method: 'POST', path, body })
  await until('ready', async () => (await one.readyz()).status === 200 && (await two.readyz()).status === 200)
  ca = (await readKeys(control.admin, NAMES.secret)).ca
  watching = setInterval(() => void notePrivateKeys().catch(() => {}), 250)
  await putObject(control.admin, 'Node', { metadata: { name: 'node-1' } })
  await createNamespace(control.admin, 'shop', { labels: { 'synguard.io/inject': 'enabled' } })
  for (const [index, replica] of [one, two].entries()) {
    const pod = await runPod(`web-${index + 1}`)
    sidecars.push(await startSidecarClients({ admin: control.admin, port: await replica.port(), ca, pod }))
  }
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  clearInterval(watching)
  for (const sidecar of sidecars) sidecar.stop()
  await Promise.all(replicas.map((replica) => replica.stop()))
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

async function runPod(name: string) {
  const spec = { nodeName: 'node-1', serviceAccountName: 'web', containers: [{ name: 'app', image: 'app:1' }] }
  const body = { metadata: { name }, spec }
  const made = await control.admin.send<V1Pod>({ method: 'POST', path: pathOf('Pod', 'shop'), body })
  // All of them are clients of this process, which the issuer sees at this address.
  const status = { phase: 'Running', podIPs: [{ ip: '127.0.0.1' }] }
  await putObject(control.admin, 'Pod', { ...made, status } as V1Pod)
  return { namespace: 'shop', name, uid: made.metadata?.uid ?? '' }
}

async function notePrivateKeys(): Promise<void> {
  const { identity, serving } = await readKeys(control.admin, NAMES.secret)
  for (const { material } of identity.keys) {
    const { d } = material.privateKey.export({ format: 'jwk' })
    if (d !== undefined) privateKeys.add(d)
  }
  for (const { material } of serving.keys) privateKeys.add(material.privateKeyPem.split('\n')[3] ?? '')
}

async function ask(request: string, kind: RotationKind = 'identity'): Promise<void> {
  const path = `${CONFIGMAPS}/${CONFIGMAP_ROTATION}`
  const body = { data: { [kind]: request } }
  const patch = control.admin.send({ method: 'PATCH', path, contentType: 'application/merge-patch+json', body })
  if ((await unless(404, patch)) !== undefined) return
  await control.admin.send({
    method: 'POST',
    path: CONFIGMAPS,
    body: { metadata: { name: CONFIGMAP_ROTATION }, ...body },
  })
}

async function readStatus(kind: RotationKind = 'identity'): Promise<RotationStatus | undefined> {
  const path = `${CONFIGMAPS}/${CONFIGMAP_ROTATION_STATUS}`
  const found = await unless(404, control.admin.send<{ data?: Record<string, string> }>({ method: 'GET', path }))
  const status = parseRotationStatus(kind, found?.data)
  if (status !== undefined && 'problem' in status) throw new Error(status.problem)
  return status
}

const kidsOf = async () => (await readKeys(control.admin, NAMES.secret)).identity.keys.map(({ id }) => id)

/** Tries every 50 ms whether each sidecar verifies what each other shows; the result ends it, and says how often it failed. */
function connectAll() {
  let tried = 0
  const failed: string[] = []
  const timer = setInterval(() => {
    for (const client of sidecars) {
      for (const server of sidecars) void connect(client, server)
    }
  }, 50)
  async function connect(client: SidecarClients, server: SidecarClients): Promise<void> {
    const now = Math.floor(Date.now() / 1_000)
    const expected = {
      now,
      trustDomain: 'cluster.local',
      issuer: `https://synguard-webhook.${SYSTEM}.svc`,
      skewSeconds: 120,
    }
    tried++
    await verifyWit(client.identity().wit, server.bundle(), expected).catch((error: { code: string }) =>
      failed.push(`${client.name} at ${server.name}: ${error.code}`),
    )
  }
  return () => {
    clearInterval(timer)
    return { tried, failed }
  }
}

/** Collects what the status says until `isOver`. */
async function watchStatus(
  isOver: (status: RotationStatus) => boolean,
  kind: RotationKind = 'identity',
): Promise<RotationStatus[]> {
  const seen: RotationStatus[] = []
  const end = Date.now() + ROTATION_MS
  for (;;) {
    const status = await readStatus(kind)
    if (status !== undefined && JSON.stringify(status) !== JSON.stringify(seen.at(-1))) seen.push(status)
    if (status !== undefined && isOver(status)) return seen
    if (Date.now() > end) throw new Error(`not over: ${JSON.stringify(status)}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

const phasesOf = (seen: readonly RotationStatus[]) =>
  seen.map(({ phase }) => phase).filter((phase, index, phases) => phase !== phases[index - 1])
const isAnswered = (request: string) => (status: RotationStatus) =>
  status.phase === 'idle' && status.answered?.request === request

describe('a rotation that an operator asks for', () => {
  it('goes through all phases, and at no time does a sidecar refuse an identity', async () => {
    const before = await kidsOf()
    const stop = connectAll()
    await ask('rotate first')
    const seen = await watchStatus(isAnswered('first'))
    const { tried, failed } = stop()
    expect(failed).toEqual([])
    expect(tried).toBeGreaterThan(1_000)
    // A phase may be over before anybody looks; none comes out of turn.
    const phases = ['idle', 'prepared', 'offered', 'switched', 'draining', 'idle']
    expect(phases.join()).toContain(phasesOf(seen).slice(-3).join())
    expect(seen.some(({ phase, sidecars: { expected } }) => phase === 'draining' && expected === 2)).toBe(true)
    const after = await kidsOf()
    expect([after.length, before.includes(after[0] ?? '')]).toEqual([1, false])
    expect(sidecars.map(({ identity }) => identity().verified.kid)).toEqual([after[0], after[0]])
    expect(sidecars.flatMap(({ failures }) => failures)).toEqual([])
  }, 120_000)

  it('names a sidecar that does not answer, and waits until its identity has ended', async () => {
    await runPod('silent')
    const stop = connectAll()
    await ask('rotate second')
    const seen = await watchStatus(isAnswered('second'))
    expect(stop().failed).toEqual([])
    const waiting = seen.filter(({ phase }) => phase === 'offered')
    expect(waiting.at(-1)).toMatchObject({
      sidecars: { expected: 3, acknowledged: 2, missing: ['shop/silent'] },
      waits: [{ code: 'rotation-waits-sidecars', names: ['shop/silent'], count: 1 }],
    })
    const [offered, switched] = [waiting[0]?.at ?? 0, seen.find(({ phase }) => phase === 'switched')?.at ?? Infinity]
    expect(switched - offered).toBeGreaterThanOrEqual(LIFETIME_SECONDS)
  }, 150_000)

  it('goes on at once where it is forced', async () => {
    await ask('rotate third')
    await until('the wait', async () => (await readStatus())?.sidecars.missing.includes('shop/silent'))
    await ask('force fourth')
    await watchStatus(({ phase }) => phase === 'draining')
    await watchStatus(isAnswered('fourth'))
  }, 120_000)

  it('is taken back where it is aborted', async () => {
    const before = await kidsOf()
    await ask('rotate fifth')
    await until('the wait', async () => (await readStatus())?.phase === 'offered')
    await ask('abort sixth')
    await watchStatus(isAnswered('sixth'))
    expect(await kidsOf()).toEqual(before)
  }, 60_000)
})

describe('what is written by hand', () => {
  it('and makes no sense is named in the status and by an Event, and nothing happens', async () => {
    const before = await kidsOf()
    await ask('rotate everything now please')
    const [condition] = await until('the condition', async () => {
      const found = (await readStatus())?.conditions ?? []
      return found.length > 0 && found
    })
    expect(condition).toMatchObject({ code: 'rotation-request', message: expect.stringMatching(/^identity: /) })
    await ask('abort seventh')
    const answered = await until('the refusal', async () => {
      const status = await readStatus()
      return status?.answered?.request === 'seventh' && status
    })
    expect(answered).toMatchObject({ conditions: [], answered: { outcome: 'refused', code: 'rotation-not-running' } })
    expect(await kidsOf()).toEqual(before)
  }, 60_000)
})

describe('keys that are compromised', () => {
  it('are accepted by no sidecar a minute later, and every Pod has a new identity before', async () => {
    const [before] = await kidsOf()
    await control.admin.send({
      method: 'DELETE',
      path: pathOf('Pod', 'shop', 'silent'),
      body: { gracePeriodSeconds: 0 },
    })
    const stop = connectAll()
    const startedAt = Date.now()
    await ask('compromised eighth')
    const seconds = () => (Date.now() - startedAt) / 1_000
    const byNew = until(
      'new identities',
      () => sidecars.every(({ identity }) => identity().verified.kid !== before) && seconds(),
    )
    const cut = until(
      'the cut',
      () => sidecars.every(({ bundle }) => !bundle().keys.some(({ kid }) => kid === before)) && seconds(),
    )
    const [reissuedAt, cutAt] = await Promise.all([byNew, cut])
    expect(reissuedAt).toBeLessThan(cutAt)
    expect(cutAt).toBeLessThan(60)
    await watchStatus(isAnswered('eighth'))
    expect(stop().failed).toEqual([])
    process.stdout.write(`compromised: new identities after ${reissuedAt} s, the old key gone after ${cutAt} s\n`)
  }, 120_000)
})

describe('the Secret', () => {
  const path = `${SECRETS}/${NAMES.secret}`

  it('that is deleted is not made anew: identities go on, and what to do is told; restored, all is well', async () => {
    const { data, type } = await control.admin.send<V1Secret>({ method: 'GET', path })
    const before = await kidsOf()
    await control.admin.send({ method: 'DELETE', path })
    const lost = await until('the status', async () => {
      const status = await readStatus()
      return status?.waits.some(({ code }) => code === 'rotation-keys-lost') && status
    })
    expect(lost.phase).toBe('none')
    const issuedAt = Math.max(...sidecars.map(({ identity }) => identity().verified.issuedAt))
    await until('identities by the same keys', () =>
      sidecars.every(({ identity }) => identity().verified.issuedAt > issuedAt),
    )
    expect(await unless(404, control.admin.send({ method: 'GET', path }))).toBeUndefined()
    await control.admin.send({ method: 'POST', path: SECRETS, body: { metadata: { name: NAMES.secret }, type, data } })
    await watchStatus(({ phase, waits }) => phase === 'idle' && waits.length === 0)
    expect(await kidsOf()).toEqual(before)
  }, 90_000)

  it('that is damaged is never written over, and told', async () => {
    const { data = {} } = await control.admin.send<V1Secret>({ method: 'GET', path })
    const put = (text: string) =>
      control.admin.send({
        method: 'PATCH',
        path,
        contentType: 'application/merge-patch+json',
        body: { stringData: { 'identity.json': text } },
      })
    await put('[{"state":"active","key":{"d":"private-part"}}]')
    const status = await until('the condition', async () => {
      const found = await readStatus()
      return found?.conditions.some(({ code }) => code === 'authority-key') && found
    })
    expect([status.phase, JSON.stringify(status)]).toEqual(['idle', expect.not.stringContaining('private-part')])
    await put(Buffer.from(data['identity.json'] ?? '', 'base64').toString())
    await watchStatus(({ conditions }) => conditions.length === 0)
  }, 60_000)
})

describe('the serving CA', () => {
  const readCa = async () => {
    const path = '/api/v1/namespaces/shop/configmaps/synguard-ca'
    return (await control.admin.send<V1ConfigMap>({ method: 'GET', path })).data?.['ca.crt'] ?? ''
  }
  const readCaBundle = async () => {
    const path = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${NAMES.webhookConfiguration}`
    const { webhooks } = await control.admin.send<V1MutatingWebhookConfiguration>({ method: 'GET', path })
    return Buffer.from(webhooks?.[0]?.clientConfig.caBundle ?? '', 'base64').toString()
  }
  const count = (pem: string) => pem.split('BEGIN CERTIFICATE').length - 1

  it('moves while Pods are admitted and sidecars renew; one that slept through it all comes back', async () => {
    const [awake, asleep] = sidecars
    const before = await readCa()
    const [first] = (await readKeys(control.admin, NAMES.secret)).serving.keys
    const failures = sidecars.map(({ failures }) => failures.length)
    let [admitted, refused, most] = [0, [] as unknown[], 0]
    const kubelet = setInterval(() => {
      void readCa().then((pem) => awake?.setCa(pem))
      void readCaBundle().then((pem) => {
        most = Math.max(most, count(pem))
      })
      const body = { metadata: { generateName: 'dry-' }, spec: { containers: [{ name: 'app', image: 'app:1' }] } }
      const dryRun = { method: 'POST', path: pathOf('Pod', 'shop'), query: { dryRun: 'All' }, body } as const
      void control.admin.send<V1Pod>(dryRun).then(
        ({ spec }) => {
          admitted += spec?.initContainers === undefined ? 0 : 1
        },
        (error) => refused.push(error),
      )
    }, 200)
    try {
      await ask('rotate ninth', 'serving')
      const seen = await watchStatus(isAnswered('ninth'), 'serving')
      // The one that sleeps is named, and waited for as long as its identity lives.
      expect(seen.filter(({ phase }) => phase === 'offered').at(-1)).toMatchObject({
        sidecars: { expected: 2, acknowledged: 1, missing: [asleep?.name] },
      })
      // What lies in the cluster follows from the keys, a moment after they are written.
      await until('one CA in caBundle and namespace', async () => {
        const [bundle, ca] = [await readCaBundle(), await readCa()]
        return bundle === ca && count(ca) === 1
      })
      expect(most).toBe(2)
      expect([refused, admitted > 100]).toEqual([[], true])
    } finally {
      clearInterval(kubelet)
    }
    const [after] = (await readKeys(control.admin, NAMES.secret)).serving.keys
    expect([after?.id === first?.id, count(await readCa()), (await readCa()) === before]).toEqual([false, 1, false])
    expect(awake?.failures.length).toBe(failures[0])
    // Its connection is open; a new one would be refused until its node gives it the new CA.
    asleep?.setCa(await readCa())
    const issuedAt = asleep?.identity().verified.issuedAt ?? 0
    await until('a renewal', () => (asleep?.identity().verified.issuedAt ?? 0) > issuedAt)
  }, 150_000)
})

describe('a private key', () => {
  it('stands in no log, Event, ConfigMap or Lease', async () => {
    const list = <List>(path: string) => control.admin.send<List>({ method: 'GET', path })
    const told = JSON.stringify([
      replicas.map(({ log }) => log),
      (await list<CoreV1EventList>('/api/v1/events')).items,
      (await list<V1ConfigMapList>('/api/v1/configmaps')).items,
      (await list<V1LeaseList>('/apis/coordination.k8s.io/v1/leases')).items,
    ])
    expect(privateKeys.size).toBeGreaterThan(4)
    expect([...privateKeys].filter((key) => key.length < 40 || told.includes(key))).toEqual([])
    expect(told).toContain('KeyActivated')
    expect(told).not.toMatch(/PRIVATE KEY|private-part|"d":"/)
  })
})
