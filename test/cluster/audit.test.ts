/** Audit before enforce, as an operator goes about it: what `synguard audit` lists is what enforcing then refuses. */
import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { CoreV1EventList } from '@kubernetes/client-node'
import type { FlowsReport } from '../../api/reports.ts'
import type { Audit } from '../../cli/reports/audit.ts'
import { awaitGuarded, cleanUp, install } from './installation.ts'
import { apply, getJson, kubectl, pause, startKubectl, until } from './kubectl.ts'
import { admit, deployment, GUARDED, httpServer, namespace, podSpec, service, sleeper } from './objects.ts'
import { addressOf, awaitRollouts, fetchFrom, firstPod, REFUSED } from './pods.ts'

const SHOP = 'audited'
const MAIN = resolve(import.meta.dirname, '..', '..', 'cli', 'main.ts')

/** `synguard` with --json: its exit code and what it says. */
function synguard<Said>(...parameters: readonly string[]): Promise<{ status: number | null; said: Said }> {
  return new Promise((done, fail) => {
    const all = ['--no-warnings', MAIN, ...parameters, '--json']
    const child = execFile(process.execPath, all, { timeout: 120_000 }, (_, stdout, stderr) => {
      if (stdout === '') return fail(new Error(stderr))
      done({ status: child.exitCode, said: JSON.parse(stdout) as Said })
    })
  })
}

const audit = () => synguard<Audit>('audit', SHOP)
const setMode = (mode: string) => kubectl('annotate', 'namespace', SHOP, '--overwrite', `synguard.io/mode=${mode}`)
const webUrl = async () => `http://${await addressOf(SHOP, 'web')}:8080/`

async function flowsOf(app: string): Promise<FlowsReport> {
  const { metadata } = await firstPod(SHOP, app)
  return (await synguard<FlowsReport>('flows', `${SHOP}/${metadata?.name}`)).said
}

describe('a namespace in audit mode', () => {
  beforeAll(async () => {
    await install()
    await apply(namespace(SHOP, GUARDED))
    await setMode('audit')
    await awaitGuarded(SHOP)
    await apply(
      deployment(SHOP, 'web', podSpec(httpServer())),
      service(SHOP, 'web'),
      deployment(SHOP, 'friend', podSpec(sleeper())),
      deployment(SHOP, 'stranger', podSpec(sleeper()), 2),
      admit(SHOP, 'web', 'friend'),
    )
    await awaitRollouts(SHOP, 'web', 'friend', 'stranger')
  })
  afterAll(() => cleanUp([SHOP]))

  it('would refuse nothing while only its probes and whom its policies name connect', async () => {
    expect(await fetchFrom(SHOP, 'friend', await webUrl())).toMatch(/^web-/)
    const { status, said } = await audit()
    expect({ status, groups: said.groups, read: said.read, unread: said.unread }).toEqual({
      status: 0,
      groups: [],
      read: 4,
      unread: [],
    })
  })

  it('lets a stranger in, through a Service too, and lists it with the policy', async () => {
    const { spec } = JSON.parse(await kubectl('-n', SHOP, 'get', 'service/web', '-o', 'json')) as {
      spec: { clusterIP: string }
    }
    expect(await fetchFrom(SHOP, 'stranger', await webUrl())).toMatch(/^web-/)
    expect(await fetchFrom(SHOP, 'stranger', `http://${spec.clusterIP}/`)).toMatch(/^web-/)
    // A sidecar gives the same report for a second.
    await pause(1_000)
    const { status, said } = await audit()
    expect(status).toBe(1)
    expect(said.groups).toEqual([
      {
        from: `${SHOP}/deployment/stranger`,
        to: `${SHOP}/deployment/web`,
        protocol: 'TCP',
        port: 8080,
        ends: [
          {
            direction: 'ingress',
            reason: 'policy',
            policies: [`${SHOP}/web-admits-friend`],
            connections: 2,
            running: 0,
            last: expect.any(String),
          },
        ],
      },
    ])
  })

  it('shows a connection that runs with its peer, bytes and age, and that enforcing would end it', async () => {
    const { metadata } = await firstPod(SHOP, 'stranger')
    const address = await addressOf(SHOP, 'web')
    const command = `(printf 'GET / HTTP/1.1\\r\\n'; sleep 50) | nc ${address} 8080`
    const open = startKubectl(['-n', SHOP, 'exec', metadata?.name ?? '', '-c', 'app', '--', 'sh', '-c', command])
    try {
      const flow = await until('the connection', async () =>
        (await flowsOf('web')).flows.find(({ bytes }) => bytes !== null && bytes.received > 0),
      )
      expect(flow).toMatchObject({
        direction: 'ingress',
        localPort: 8080,
        peer: { kind: 'identified', pod: { namespace: SHOP, name: metadata?.name, workload: 'deployment/stranger' } },
        decidedBy: `${SHOP}/web-admits-friend`,
        allowed: false,
        bytes: { received: 16, by: 'socket' },
        opened: expect.any(String),
      })
      expect((await audit()).said.groups[0]?.ends[0]).toMatchObject({ connections: 3, running: 1 })
      await setMode('enforce')
      // It has 50 seconds of its own.
      await until(
        'its end',
        async () => (await flowsOf('web')).flows.every(({ peer }) => peer.pod?.name !== metadata?.name),
        30,
      )
    } finally {
      await open.stop()
    }
  })

  it('refuses exactly that once it enforces, and says why', async () => {
    expect(await fetchFrom(SHOP, 'friend', await webUrl())).toMatch(/^web-/)
    expect(await fetchFrom(SHOP, 'stranger', await webUrl())).toBe(REFUSED)
    const { refusals, mode } = await flowsOf('web')
    expect({ mode, last: refusals[0] }).toMatchObject({
      mode: 'enforce',
      last: {
        direction: 'ingress',
        port: 8080,
        enforced: true,
        reason: 'policy',
        policies: [`${SHOP}/web-admits-friend`],
        peer: { kind: 'identified', pod: { workload: 'deployment/stranger' } },
      },
    })
    const { said } = await audit()
    expect(said.enforcing).toHaveLength(4)
    const web = (await firstPod(SHOP, 'web')).metadata?.name
    const events = await until('the Events at both ends', async () => {
      const { items } = await getJson<CoreV1EventList>(
        '-n',
        SHOP,
        'events',
        '--field-selector',
        'reason=ConnectionRefused',
      )
      return items.length >= 2 && items
    })
    expect(events.map(({ involvedObject, message }) => [involvedObject.name, message])).toEqual(
      expect.arrayContaining([
        [
          web,
          expect.stringMatching(/^Connection from audited\/stranger-\S+ to port 8080\/TCP refused \(ingress\): policy/),
        ],
        [expect.stringMatching(/^stranger-/), expect.stringMatching(/^Connection to audited\/web-\S+, port 8080\/TCP/)],
      ]),
    )
  })

  it('names a Pod that could not be read, and does not call that nothing', async () => {
    await kubectl('-n', SHOP, 'delete', 'deployment/stranger', '--wait=true')
    await apply({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'waits', namespace: SHOP, labels: { app: 'waits' } },
      spec: podSpec(sleeper(), { nodeSelector: { 'no-such': 'node' } }),
    })
    const { said } = await audit()
    expect(said.unread).toEqual([{ pod: `${SHOP}/waits`, reason: 'it is Pending' }])
    expect(said.result).not.toBe('nothing')
  })
})
