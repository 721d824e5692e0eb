/**
 * `synguard explain` on a real cluster: what it says is what the network then does, of every kind of meeting; and
 * `synguard revoke` ends what runs there, and brings it back.
 */
import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Service } from '@kubernetes/client-node'
import type { Answer } from '../../cli/explain/answer.ts'
import { awaitGuarded, cleanUp, install } from './installation.ts'
import { apply, getJson, kubectl, pause, startKubectl, tryKubectl, until } from './kubectl.ts'
import { admit, deployment, GUARDED, httpServer, namespace, podSpec, policy, service, sleeper } from './objects.ts'
import { addressOf, awaitFetch, awaitRollouts, fetchFrom, firstPod, REFUSED } from './pods.ts'

const MAIN = resolve(import.meta.dirname, '..', '..', 'cli', 'main.ts')
const SHOP = 'explained'
const PLAIN = 'plain'

interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

function synguard(...parameters: readonly string[]): Promise<Run> {
  return new Promise((done) => {
    const all = ['--no-warnings', MAIN, ...parameters]
    const child = execFile(process.execPath, all, { timeout: 60_000, maxBuffer: 16 << 20 }, (_, stdout, stderr) => {
      done({ status: child.exitCode, stdout, stderr })
    })
  })
}

async function explain(from: string, to: string, port: string): Promise<Answer> {
  const { status, stdout, stderr } = await synguard('explain', '--json', '--from', from, '--to', to, '--port', port)
  if (stdout === '') throw new Error(stderr)
  const answer = JSON.parse(stdout) as Answer
  expect(status).toBe(answer.allowed ? 0 : 3)
  return answer
}

const podOf = async (at: string, app: string) => `${at}/${(await firstPod(at, app)).metadata?.name}`
const clusterAddress = async (at: string, app: string) =>
  (await getJson<V1Service>('-n', at, `service/${app}`)).spec?.clusterIP ?? ''

beforeAll(async () => {
  await install()
  await apply(namespace(SHOP, GUARDED), namespace(PLAIN))
  await awaitGuarded(SHOP)
  await apply(
    deployment(SHOP, 'web', podSpec(httpServer()), 2),
    service(SHOP, 'web'),
    service(SHOP, 'direct', { clusterIP: 'None', selector: { app: 'web' } }),
    deployment(SHOP, 'client', podSpec(sleeper())),
    deployment(SHOP, 'other', podSpec(sleeper())),
    deployment(PLAIN, 'web', podSpec(httpServer())),
    service(PLAIN, 'web'),
    deployment(PLAIN, 'visitor', podSpec(sleeper())),
  )
  await Promise.all([awaitRollouts(SHOP, 'web', 'client', 'other'), awaitRollouts(PLAIN, 'web', 'visitor')])
}, 300_000)
afterAll(() => cleanUp([SHOP, PLAIN]), 300_000)

/** Source, what explain is asked for with its port, the URL of the same, and whether it comes to be. */
type Case = readonly [
  at: string,
  app: string,
  to: () => Promise<string>,
  port: string,
  url: () => Promise<string>,
  allowed: boolean,
]

const toPod = (at: string, app: string) =>
  [() => podOf(at, app), '8080', async () => `http://${await addressOf(at, app)}:8080/`] as const
const toService = (at: string, app: string) =>
  [async () => `${at}/svc/${app}`, '80', async () => `http://${await clusterAddress(at, app)}/`] as const
const toAddress = (at: string, app: string) =>
  [() => clusterAddress(at, app), '80', async () => `http://${await clusterAddress(at, app)}/`] as const

describe('synguard explain', () => {
  beforeAll(async () => {
    await apply(
      admit(SHOP, 'web', 'client'),
      policy(SHOP, 'client-to-web', {
        podSelector: { matchLabels: { app: 'client' } },
        policyTypes: ['Egress'],
        egress: [{ to: [{ podSelector: { matchLabels: { app: 'web' } } }] }],
      }),
    )
    await awaitFetch(SHOP, 'other', `http://${await addressOf(SHOP, 'web')}:8080/`, REFUSED)
  })

  const cases: readonly Case[] = [
    [SHOP, 'client', ...toPod(SHOP, 'web'), true],
    [SHOP, 'client', ...toService(SHOP, 'web'), true],
    [SHOP, 'client', ...toAddress(SHOP, 'web'), true],
    [SHOP, 'client', ...toService(PLAIN, 'web'), false],
    [SHOP, 'other', ...toPod(SHOP, 'web'), false],
    [SHOP, 'other', ...toService(SHOP, 'web'), false],
    [SHOP, 'other', ...toService(PLAIN, 'web'), true],
    [PLAIN, 'visitor', ...toService(SHOP, 'web'), false],
    [PLAIN, 'visitor', ...toPod(PLAIN, 'web'), true],
  ]

  it('says what the network does', async () => {
    for (const [at, app, to, port, url, allowed] of cases) {
      const answer = await explain(await podOf(at, app), await to(), port)
      const fetched = await fetchFrom(at, app, await url())
      const what = `${at}/${app} to ${answer.to}`
      expect([what, answer.allowed, /^web-/.test(fetched)]).toEqual([what, allowed, allowed])
      expect(answer.notes).toEqual([])
    }
  })

  it('follows a Service to both of its endpoints, and a headless one to the Pods themselves', async () => {
    const client = await podOf(SHOP, 'client')
    for (const [to, port] of [
      [`${SHOP}/svc/web`, '80'],
      [`${SHOP}/svc/direct`, '8080'],
    ] as const) {
      const { ways } = await explain(client, to, port)
      expect(
        ways.map(({ allowed, endpoint }) => [allowed, endpoint?.port, endpoint?.pod?.startsWith(`${SHOP}/web-`)]),
      ).toEqual([
        [true, 8080, true],
        [true, 8080, true],
      ])
    }
  })

  it('suggests a policy by which the refused connection then comes to be', async () => {
    const { ways } = await explain(await podOf(PLAIN, 'visitor'), await podOf(SHOP, 'web'), '8080')
    const { suggestion, guard } = ways[0]?.ingress ?? {}
    expect(guard).toEqual({ mode: 'enforce', ready: true, revoked: false })
    await apply(suggestion ?? {})
    await until('the visitor to get in', async () =>
      /^web-/.test(await fetchFrom(PLAIN, 'visitor', `http://${await addressOf(SHOP, 'web')}:8080/`)),
    )
  })

  it('tells the mode that holds, and what broke the glass', async () => {
    const other = await podOf(SHOP, 'other')
    const web = await podOf(SHOP, 'web')
    await kubectl('annotate', 'namespace', SHOP, 'synguard.io/break-glass=INC-7')
    await until('the broken glass', async () => (await explain(other, web, '8080')).allowed)
    const { ways } = await explain(other, web, '8080')
    expect(ways[0]?.ingress).toMatchObject({
      outcome: 'tolerated',
      refusal: 'policy',
      guard: { mode: 'audit', modeBy: 'the glass is broken: INC-7' },
    })
    await awaitFetch(SHOP, 'other', `http://${await addressOf(SHOP, 'web')}:8080/`, await firstPodName(SHOP, 'web'))
    await kubectl('annotate', 'namespace', SHOP, 'synguard.io/break-glass-')
    await awaitFetch(SHOP, 'other', `http://${await addressOf(SHOP, 'web')}:8080/`, REFUSED)
  })
})

const firstPodName = async (at: string, app: string) => (await firstPod(at, app)).metadata?.name ?? ''

describe('synguard revoke', () => {
  it('ends what runs within seconds, keeps the Pod out, and brings it back', async () => {
    const client = await podOf(SHOP, 'client')
    const address = await addressOf(SHOP, 'web')
    const url = `http://${address}:8080/`
    expect(await fetchFrom(SHOP, 'client', url)).toMatch(/^web-/)
    const script = `(while sleep 0.2; do echo; done) | nc ${address} 8080`
    const open = startKubectl(['-n', SHOP, 'exec', 'deployment/client', '-c', 'app', '--', 'sh', '-c', script])
    await until('the connection', async () => {
      const { stdout } = await tryKubectl([
        '-n',
        SHOP,
        'exec',
        'deployment/client',
        '-c',
        'app',
        '--',
        'netstat',
        '-tn',
      ])
      return stdout.includes(`${address}:8080`) && stdout.includes('ESTABLISHED')
    })
    const asked = Date.now()
    expect(await synguard('revoke', client, '--reason', 'a test')).toMatchObject({ status: 0, stderr: '' })
    const told = Date.now()
    expect(await Promise.race([open.ended, pause(20_000).then(() => 'still open')])).not.toBe('still open')
    process.stdout.write(`revoked after ${told - asked} ms, its connection ended after ${Date.now() - asked} ms\n`)
    await open.stop()
    expect(await fetchFrom(SHOP, 'client', url)).not.toMatch(/^web-/)
    expect((await explain(client, await podOf(SHOP, 'web'), '8080')).ways[0]?.ingress.refusal).toBe('wit-void')
    expect((await synguard('revoke', '--list')).stdout).toMatch(new RegExp(`^${client}  \\S+  \\S+Z  lives  a test\n$`))
    await until('the Pod not to be ready', async () => {
      const { status } = await firstPod(SHOP, 'client')
      return status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'False'
    })
    expect(await synguard('revoke', '--undo', client)).toMatchObject({ status: 0, stderr: '' })
    await until('the Pod to be back', async () => /^web-/.test(await fetchFrom(SHOP, 'client', url)))
    expect((await synguard('revoke', '--list')).stdout).toBe('No Pod is revoked\n')
  })
})
