/** Keys rotated by an operator's commands, by two replicas of the webhook at a real API server. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { CoreV1EventList, V1ConfigMapList, V1Pod } from '@kubernetes/client-node'
import { serializeSigningKey } from '../../certs/authority.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { readKeys, SECRETS } from './keys.ts'
import { makeOperator, type Ran, runCerts, runKubectl } from './operators.ts'
import { install, SYSTEM, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { createNamespace, pathOf, putObject } from './stage.ts'

const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const LABELS = { 'synguard.io/inject': 'enabled' }
const MERGE = 'application/merge-patch+json'
const CONFIGMAPS = `/api/v1/namespaces/${SYSTEM}/configmaps`
/** What an old key signed has ended 23 s after. */
const SHORT = { webhook: { host: '127.0.0.1', port: 0, healthPort: 0, witLifetimeSeconds: 20, skewSeconds: 1 } }
const TIMEOUT_MS = 240_000

let control: ControlPlane
let operator: string
const replicas: ReplicaProcess[] = []
/** Everything that a person was shown, and every private key that was in the Secret. */
const shown: string[] = []
const secrets = new Set<string>()

beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, NAMES, true)
  operator = await makeOperator(control)
  for (const _ of [1, 2]) replicas.push(await spawnReplica({ control, names: NAMES, settings: SHORT }))
  const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
  const body = webhookConfiguration(NAMES.webhookConfiguration, (await replicas[0]?.port()) ?? 0)
  await control.admin.send({ method: 'POST', path, body })
  for (const replica of replicas) await until('ready', async () => (await replica.readyz()).status === 200)
  await putObject(control.admin, 'Node', { metadata: { name: 'node-1' } })
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica.stop()))
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

async function noting(run: Promise<Ran>): Promise<Ran> {
  const ran = await run
  shown.push(ran.stdout, ran.stderr)
  return ran
}
const certs = (...args: string[]) => noting(runCerts(args, operator))
const kubectl = (...args: string[]) => noting(runKubectl(control, args, operator))
const merge = (path: string, body: unknown) => control.admin.send({ method: 'PATCH', path, contentType: MERGE, body })

/** The kid that signs, after noting every private key that is there. */
async function signer(): Promise<string | undefined> {
  const { identity, serving, kid } = await readKeys(control.admin, NAMES.secret)
  for (const { material } of identity.keys) {
    secrets.add((JSON.parse(serializeSigningKey(material)) as { d: string }).d)
  }
  for (const { material } of serving.keys) secrets.add(material.privateKeyPem.split('\n')[2] ?? '')
  return kid
}

/** Waits as an operator does who has kubectl alone. */
async function phase(kind: string, wanted: string): Promise<void> {
  const condition = `jsonpath={.data.${kind}-phase}=${wanted}`
  const waited = await kubectl('wait', 'configmap/synguard-rotation-status', '--for', condition, '--timeout', '100s')
  expect([waited.status, waited.stderr]).toEqual([0, ''])
}

/** A guarded Pod that runs, as far as the API server knows, and whose sidecar says nothing. */
async function runSilentPod(): Promise<void> {
  await createNamespace(control.admin, 'shop', { labels: LABELS })
  const body = {
    metadata: { name: 'web' },
    spec: { nodeName: 'node-1', serviceAccountName: 'web', containers: [{ name: 'app', image: 'app:1' }] },
  }
  const made = await control.admin.send<V1Pod>({ method: 'POST', path: pathOf('Pod', 'shop'), body })
  const status = { phase: 'Running', podIPs: [{ ip: '127.0.0.2' }] }
  await putObject(control.admin, 'Pod', { ...made, status } as V1Pod)
}

describe('two replicas', () => {
  it.each(['identity', 'serving'] as const)(
    'carry a rotation of %s out from its request to its end',
    async (kind) => {
      await signer()
      const before = await readKeys(control.admin, NAMES.secret)
      expect((await certs('status')).status).toBe(0)
      const ran = await certs('rotate', kind)
      expect([ran.status, ran.stdout]).toEqual([
        0,
        expect.stringMatching(/^rotate-\S+: taken; (identity|serving) is now \w+: synguard certs status --watch\n$/),
      ])
      const again = await certs('rotate', kind)
      expect([again.status, again.stdout]).toEqual([1, expect.stringContaining('[rotation-running]\n')])
      await phase(kind, 'idle')
      const after = await readKeys(control.admin, NAMES.secret)
      const ids = (keys: typeof after) => keys[kind].keys.map(({ id, state }) => `${id} ${state}`)
      expect([ids(before).length, ids(after).length]).toEqual([1, 1])
      expect(ids(after)).not.toEqual(ids(before))
      expect((await certs('status')).stdout).toContain(`\n  request   `)
    },
    TIMEOUT_MS,
  )

  it(
    'name a sidecar that is silent, go on without it where they are told to, and back, once',
    async () => {
      const before = await signer()
      await runSilentPod()
      expect((await certs('rotate', 'identity')).status).toBe(0)
      await phase('identity', 'offered')
      const { stdout } = await certs('status')
      expect(stdout).toMatch(/ {2}sidecars {2}0 of 1 hold the latest keys; without them: shop\/web\n/)
      expect(stdout).toMatch(
        / {2}waits {5}Sidecars .* shop\/web; goes on by itself at \S+ \(.*\) \[rotation-waits-sidecars\]\n/,
      )
      expect((await certs('force', 'identity')).status).toBe(0)
      await until('the new key to sign', async () => (await signer()) !== before)
      expect((await certs('abort', 'identity')).status).toBe(0)
      expect(await signer()).toBe(before)
      const again = await certs('abort', 'identity')
      expect([again.status, again.stdout]).toEqual([1, expect.stringContaining('[rotation-no-way-back]\n')])
      await phase('identity', 'idle')
      expect(await signer()).toBe(before)
    },
    TIMEOUT_MS,
  )

  it(
    'sign by a new key at once where the keys are compromised',
    async () => {
      const before = await signer()
      expect((await certs('rotate', 'identity', '--compromised')).status).toBe(0)
      await until('the new key to sign', async () => (await signer()) !== before)
      expect((await certs('force', 'identity')).status).toBe(0)
      await phase('identity', 'idle')
      const { identity } = await readKeys(control.admin, NAMES.secret)
      expect(identity.keys.map(({ id }) => id)).not.toContain(before)
    },
    TIMEOUT_MS,
  )

  it(
    'say what they cannot read of a request, in status and Event, and do nothing',
    async () => {
      const before = await signer()
      const write = (data: Record<string, string | null>) => merge(`${CONFIGMAPS}/synguard-rotation`, { data })
      await write({ identity: 'rotate now please', keys: 'rotate x' })
      const { stdout } = await until('the condition', async () => {
        const ran = await certs('status')
        return ran.stdout.includes('is neither identity nor serving. [rotation-request]') && ran
      })
      const [first = ''] = stdout.split('\n\n')
      expect(first.match(/^ {2}wrong .*$/gm)).toEqual([
        expect.stringMatching(
          /^ {2}wrong {5}identity: "please" is too much; write "rotate NAME".* \[rotation-request\]$/,
        ),
        '  wrong     "keys": is neither identity nor serving. [rotation-request]',
      ])
      const described = await until('the Event', async () => {
        const ran = await kubectl('events', '--for', 'configmap/synguard-rotation-status')
        return ran.stdout.includes('RotationRequestUnreadable') && ran
      })
      expect(described.status).toBe(0)
      await write({ identity: '', keys: null })
      await until('that it is well', async () => (await certs('status')).status === 0)
      expect(await signer()).toBe(before)
    },
    TIMEOUT_MS,
  )

  it(
    'say that the Secret is damaged, keep what they hold, and go on once it is restored',
    async () => {
      const before = await signer()
      const path = `${SECRETS}/${NAMES.secret}`
      const { data } = await control.admin.send<{ data: Record<string, string> }>({ method: 'GET', path })
      const text = Buffer.from(data['identity.json'] ?? '', 'base64').toString()
      await merge(path, { stringData: { 'identity.json': text.slice(0, -5) } })
      const { stdout } = await until('the condition', async () => {
        const ran = await certs('status')
        return ran.stdout.includes('[authority-key]') && ran
      })
      expect(stdout).toContain(`  key       ${before}  active`)
      expect((await certs('rotate', 'identity', '--timeout', '3')).stderr).toMatch(/\[certs-unanswered\]\n$/)
      await merge(path, { data })
      await until('that it is well', async () => (await certs('status')).status === 0)
      // The request that stood is taken now.
      await until('a rotation', async () => (await readKeys(control.admin, NAMES.secret)).identity.keys.length === 2)
    },
    TIMEOUT_MS,
  )

  it(
    'never showed a private key to anybody',
    async () => {
      await signer()
      const maps = await control.admin.send<V1ConfigMapList>({ method: 'GET', path: '/api/v1/configmaps' })
      const events = await control.admin.send<CoreV1EventList>({ method: 'GET', path: '/api/v1/events' })
      const ours = maps.items.filter(({ data }) => data !== undefined)
      expect(ours.map(({ metadata }) => metadata?.name)).toContain('synguard-rotation-status')
      expect(events.items.map(({ reason }) => reason)).toContain('KeyActivated')
      const texts = [...shown, ...[...ours, ...events.items].map((item) => JSON.stringify(item))]
      texts.push(...replicas.map(({ log }) => JSON.stringify(log)))
      expect(secrets.size).toBeGreaterThan(4)
      for (const secret of secrets) {
        expect(secret.length).toBeGreaterThan(40)
        expect(texts.filter((text) => text.includes(secret))).toEqual([])
      }
    },
    TIMEOUT_MS,
  )
})
