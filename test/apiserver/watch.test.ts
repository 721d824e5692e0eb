import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import { createApiClient } from '../../kubernetes/client.ts'
import type { ApiConnection } from '../../kubernetes/connection.ts'
import type { ClusterChange } from '../../webhook/cluster.ts'
import { createKubernetesCluster, type KubernetesCluster } from '../../webhook/kubernetes/cluster.ts'
import { loadConnection } from '../../webhook/kubernetes/connection.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { restartApiServer } from './outage.ts'
import { createNamespace, pathOf, removeObject } from './stage.ts'
import { openTunnel, type Tunnel } from './tunnel.ts'
import { writeKubeconfig } from './users.ts'

let control: ControlPlane
beforeAll(async () => {
  control = await startControlPlane()
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(() => control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

let tunnel: Tunnel
let connection: ApiConnection
let cluster: KubernetesCluster
let changes: ClusterChange[]
let logged: { msg: string; path?: string; waitMs?: number; error?: string }[]

async function open(account?: { namespace: string; name: string }, watchSilenceMs?: number): Promise<void> {
  tunnel = await openTunnel(control.port)
  connection = loadConnection(
    await writeKubeconfig(control, { port: tunnel.port, ...(account === undefined ? {} : { account }) }),
  )
  changes = []
  logged = []
  const log = pino({ level: 'info' }, { write: (line: string) => void logged.push(JSON.parse(line)) })
  const backoff = { initialMs: 100, maxMs: 400 }
  cluster = createKubernetesCluster({
    client: createApiClient(connection, { userAgent: 'synguard-test', ...(watchSilenceMs && { watchSilenceMs }) }),
    log,
    backoff,
    staleMs: 2_000,
  })
  cluster.subscribe((change) => changes.push(change))
  cluster.start()
}
afterEach(async () => {
  await cluster.stop()
  connection.close()
  await tunnel.close()
})

const createConfigured = (name: string, labels = {}) => createNamespace(control.admin, name, { labels })
const label = (name: string, labels: Record<string, string>) =>
  control.admin.send({
    method: 'PATCH',
    path: pathOf('Namespace', undefined, name),
    contentType: 'application/merge-patch+json',
    body: { metadata: { labels } },
  })
const stepOf = (name: string) => cluster.get('Namespace', name)?.metadata?.labels?.step

/** The steps that listeners heard of one namespace. */
const heardOf = (name: string) =>
  changes
    .filter(({ kind, before, after }) => kind === 'Namespace' && (after ?? before)?.metadata?.name === name)
    .map(({ before, after }) => [before?.metadata?.labels?.step, after?.metadata?.labels?.step])

describe('a watch that is cut', () => {
  beforeEach(() => open())

  it('goes on where it was: what happened meanwhile is told once, without listing anew', async () => {
    await createConfigured('cut', { step: '1' })
    await until('step 1', () => stepOf('cut') === '1')
    tunnel.cut()
    await label('cut', { step: '2' })
    await label('cut', { step: '3' })
    await until('an attempt in vain', () => logged.some(({ msg }) => msg === 'the API server cannot be watched'))
    expect(stepOf('cut')).toBe('1')
    tunnel.mend()
    await until('step 3', () => stepOf('cut') === '3')
    // A resumed watch tells both changes; a list would tell the last.
    expect(heardOf('cut')).toEqual([
      [undefined, '1'],
      ['1', '2'],
      ['2', '3'],
    ])
  })

  it('waits longer from attempt to attempt, and not longer than its bound', async () => {
    await until('synced', () => cluster.synced())
    tunnel.cut()
    const waits = () => logged.filter(({ path }) => path === '/api/v1/nodes').map(({ waitMs = 0 }) => waitMs)
    await until('six attempts', () => waits().length >= 6)
    const [first = 0, , , ...late] = waits()
    expect(first).toBeLessThanOrEqual(100)
    for (const wait of late) {
      expect(wait).toBeGreaterThanOrEqual(200)
      expect(wait).toBeLessThanOrEqual(400)
    }
  })

  it('is not synced while the API server is silent for too long, and is again after', async () => {
    await until('synced', () => cluster.synced())
    tunnel.cut()
    await until('not synced', () => !cluster.synced())
    tunnel.mend()
    await until('synced again', () => cluster.synced())
  })
})

describe('a watch on which nothing happens', () => {
  it('is opened anew now and then, without a word and without listing anew', async () => {
    await open(undefined, 500)
    await createConfigured('quiet', { step: '1' })
    await until('step 1', () => stepOf('quiet') === '1')
    const before = tunnel.count()
    // Five kinds, each twice.
    await until('new connections', () => tunnel.count() >= before + 10)
    await label('quiet', { step: '2' })
    await until('step 2', () => stepOf('quiet') === '2')
    expect(heardOf('quiet')).toEqual([
      [undefined, '1'],
      ['1', '2'],
    ])
    expect(logged).toEqual([])
    expect(cluster.synced()).toBe(true)
  })
})

describe('an API server that forgot what the watch knew', () => {
  beforeEach(() => open())

  it('is listed anew (410): what was made, changed and deleted meanwhile is told', async () => {
    await createConfigured('stays', { step: '1' })
    const pod = { metadata: { name: 'gone' }, spec: { containers: [{ name: 'app', image: 'app:1' }] } }
    await control.admin.send({ method: 'POST', path: pathOf('Pod', 'stays'), body: pod })
    await until('the Pod', () => cluster.get('Pod', 'gone', 'stays'))
    tunnel.cut()
    await label('stays', { step: '2' })
    await removeObject(control.admin, 'Pod', 'gone', 'stays')
    await createConfigured('new', { step: '1' })
    // A restarted API server has no history: watches from before are refused.
    await restartApiServer(control)
    tunnel.mend()
    await until('the new namespace', () => stepOf('new') === '1')
    await until('the deletion', () => cluster.get('Pod', 'gone', 'stays') === undefined)
    expect(heardOf('stays')).toEqual([
      [undefined, '1'],
      ['1', '2'],
    ])
    expect(logged.some(({ msg }) => msg === 'the watch is too far behind: listing anew')).toBe(true)
  }, 120_000)
})

describe('an API server that is too busy', () => {
  it('is not asked again before its Retry-After', async () => {
    await createConfigured('throttled')
    await throttle(true)
    await until('the API server to refuse', async () => {
      // The API server takes new flow schemas in within a second or two.
      await open({ namespace: 'throttled', name: 'web' })
      await until('an answer', () => logged.length > 0)
      if (logged.some(({ error = '' }) => error.includes('429'))) return true
      await cluster.stop()
      connection.close()
      await tunnel.close()
      return false
    })
    const refusals = logged.filter(({ error = '' }) => error.includes('429'))
    // It asks for a second; the back-off alone would be 100 ms at most.
    for (const { waitMs = 0 } of refusals) expect(waitMs).toBeGreaterThanOrEqual(1_000)
    await throttle(false)
  })
})

const FLOW = '/apis/flowcontrol.apiserver.k8s.io/v1'

/** Lets the API server refuse what the service account throttled/web asks, for want of seats. */
async function throttle(on: boolean): Promise<void> {
  const metadata = { name: 'throttled' }
  if (!on) {
    await control.admin.send({ method: 'DELETE', path: `${FLOW}/flowschemas/throttled` })
    await control.admin.send({ method: 'DELETE', path: `${FLOW}/prioritylevelconfigurations/throttled` })
    return
  }
  const limited = { nominalConcurrencyShares: 0, borrowingLimitPercent: 0, limitResponse: { type: 'Reject' } }
  await control.admin.send({
    method: 'POST',
    path: `${FLOW}/prioritylevelconfigurations`,
    body: { metadata, spec: { type: 'Limited', limited } },
  })
  const subjects = [{ kind: 'ServiceAccount', serviceAccount: { namespace: 'throttled', name: 'web' } }]
  const resourceRules = [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'], clusterScope: true, namespaces: ['*'] }]
  await control.admin.send({
    method: 'POST',
    path: `${FLOW}/flowschemas`,
    body: {
      metadata,
      spec: {
        matchingPrecedence: 10,
        priorityLevelConfiguration: metadata,
        rules: [{ subjects, resourceRules }],
      },
    },
  })
}
