/** Both replicas end at a write of a rotation, before the API server has it or after, and are started again. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import { CONFIGMAP_ROTATION, CONFIGMAP_ROTATION_STATUS } from '../../api/rotation.ts'
import type { SigningKey } from '../../certs/authority.ts'
import { activeKey, type Keyring, phaseOf } from '../../certs/rotation/keyring.ts'
import type { ApiClient, ApiRequest } from '../../kubernetes/client.ts'
import { parseInstallation } from '../../webhook/installation.ts'
import { createMemoryCluster } from '../../webhook/memory-cluster.ts'
import { createApiLease } from '../../webhook/rotation/api-lease.ts'
import { createKeyRotations } from '../../webhook/rotation/kinds.ts'
import { createLease } from '../../webhook/rotation/lease.ts'
import { runRotations } from '../../webhook/rotation/loop.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { freshIdentity, freshServing, serializeKeys, withKey } from './keys.ts'
import { createNamespace } from './stage.ts'

const SECRET = 'synguard-authority'
const SETTINGS = 'injection: { image: sidecar }\nwebhook: { witLifetimeSeconds: 20, skewSeconds: 1 }'
const now = () => Math.floor(Date.now() / 1_000)
const silent = pino({ level: 'silent' })

let control: ControlPlane
beforeAll(async () => {
  control = await startControlPlane()
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(() => control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

/** What a write is of, by the end of its path. */
const WRITES = {
  keys: `secrets/${SECRET}`,
  record: `configmaps/${SECRET}-replicas`,
  status: `configmaps/${CONFIGMAP_ROTATION_STATUS}`,
  lease: `leases/${SECRET}`,
} as const

interface CrashPoint {
  readonly write: keyof typeof WRITES
  /** After so many writes of keys. */
  readonly step: number
  /** Whether the API server still gets it. */
  readonly arrives: boolean
}

/** A client of processes that all end at a write. */
function createMortalClient({ write, step, arrives }: CrashPoint): { client: ApiClient; isDead: () => boolean } {
  let dead = false
  let steps = 0
  const client: ApiClient = {
    async send<Answer>(request: ApiRequest): Promise<Answer> {
      if (dead) throw new Error('ended')
      const isWrite = request.method !== 'GET'
      const isKeys = isWrite && request.path.endsWith(WRITES.keys)
      if (isKeys) steps++
      if (isWrite && request.path.endsWith(WRITES[write]) && steps === step) {
        dead = true
        if (arrives) await control.admin.send(request)
        throw new Error('ended')
      }
      const answer = await control.admin.send<Answer>(request)
      // What arrives after the end is heard by nobody.
      if (dead) throw new Error('ended')
      return answer
    },
    watch: control.admin.watch,
  }
  return { client, isDead: () => dead }
}

const cluster = createMemoryCluster({ now })

function startProcess(client: ApiClient, namespace: string, name: string) {
  const ending = new AbortController()
  const { signal } = ending
  const installation = parseInstallation(SETTINGS, { SYNGUARD_NAMESPACE: namespace, SYNGUARD_POD_NAME: name })
  const { identity } = createKeyRotations({ installation, client, cluster, now, signal })
  const lease = createApiLease({ client, namespace, name: SECRET, seconds: 15, signal })
  const elapsed = () => performance.now() / 1_000
  const running = runRotations({
    rotations: [identity],
    hold: createLease({ store: lease, name, elapsed, seconds: 15 }),
    onResult: () => {},
    onFailure: () => {},
    ...{ log: silent, random: Math.random, signal },
  })
  const stop = async () => {
    ending.abort()
    await running
  }
  return { holder: identity.holder, stop }
}

type Process = ReturnType<typeof startProcess>

/** What any of them signs by and another one that acts does not give out. */
function findFaults(processes: readonly Process[]): string[] {
  const rings = processes.flatMap(({ holder }): Keyring<SigningKey>[] => {
    const ring = holder.current()
    return ring === undefined ? [] : [ring]
  })
  const signers = rings.map((ring) => activeKey(ring)?.id)
  return signers.filter((id) => !rings.every(({ keys }) => keys.some((key) => key.id === id))).map(String)
}

/** Until something is so, or a rotation must have been over. */
async function wait(isSo: () => boolean): Promise<void> {
  const end = Date.now() + 90_000
  while (!isSo() && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 100))
}

async function rotateThrough(point: CrashPoint, namespace: string) {
  await createNamespace(control.admin, namespace)
  const first = withKey(undefined, freshIdentity())
  const identity = { ...first, keys: first.keys.map((key) => ({ ...key, lifetimeSeconds: 20 })) }
  const post = (plural: string, body: unknown) =>
    control.admin.send({ method: 'POST', path: `/api/v1/namespaces/${namespace}/${plural}`, body })
  const stringData = serializeKeys(identity, withKey(undefined, freshServing()))
  await post('secrets', { metadata: { name: SECRET }, stringData })
  await post('configmaps', { metadata: { name: CONFIGMAP_ROTATION }, data: { identity: 'rotate crash' } })
  const mortal = createMortalClient(point)
  const processes = ['a', 'b'].map((name) => startProcess(mortal.client, namespace, name))
  const faults = new Set<string>()
  const timer = setInterval(() => {
    for (const fault of findFaults(processes)) faults.add(fault)
  }, 20)
  try {
    await wait(mortal.isDead)
    if (!mortal.isDead()) throw new Error(`never came to ${JSON.stringify(point)}`)
    // The dead ones no longer count among those that act; nobody asks them any more.
    const dead = processes.splice(0)
    await Promise.all(dead.map(({ stop }) => stop()))
    processes.push(...['a', 'b'].map((name) => startProcess(control.admin, namespace, name)))
    const isOver = ({ holder }: Process) => {
      const ring = holder.last()
      return ring?.request === 'crash' && phaseOf(ring) === 'idle' && ring.keys[0]?.id !== identity.keys[0]?.id
    }
    await wait(() => processes.every(isOver))
    return { isOver: processes.every(isOver), faults: [...faults] }
  } finally {
    clearInterval(timer)
    await Promise.all(processes.map(({ stop }) => stop()))
  }
}

/** rotate, confirm, activate, confirm; the removal comes 23 s later. */
const STEPS = [1, 2, 3, 4]
const POINTS: readonly CrashPoint[] = STEPS.flatMap((step) => [
  { write: 'keys' as const, step, arrives: false },
  { write: 'keys' as const, step, arrives: true },
  { write: 'status' as const, step, arrives: false },
  { write: 'record' as const, step, arrives: false },
  { write: 'record' as const, step, arrives: true },
  { write: 'lease' as const, step, arrives: true },
])
const LAST: readonly CrashPoint[] = [false, true].map((arrives) => ({ write: 'keys', step: 5, arrives }))

describe('both replicas, ended at a write and started again', () => {
  it.each([
    ...STEPS.map(
      (step) => [`at write ${step} of the keys, or after it`, POINTS.filter((point) => point.step === step)] as const,
    ),
    ['while the old one is removed', LAST] as const,
  ])(
    'finish the rotation: %s',
    async (_, points) => {
      const runs = await Promise.allSettled(
        points.map((point, index) => rotateThrough(point, `c-${points[0]?.step}-${index}`)),
      )
      const results = runs.map((run) => {
        if (run.status === 'rejected') throw run.reason
        return run.value
      })
      expect(results.map(({ isOver, faults }, index) => ({ ...points[index], isOver, faults }))).toEqual(
        points.map((point) => ({ ...point, isOver: true, faults: [] })),
      )
    },
    240_000,
  )
})
