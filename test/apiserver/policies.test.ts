import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { rootCertificates } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import type { SynguardError } from '../../api/errors.ts'
import type { Mode } from '../../api/identity.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
import { createModes, followNamespaceMode } from '../../sidecar/control/namespace-mode.ts'
import type { PolicySet } from '../../sidecar/control/policies/source.ts'
import { createNamespaceController, type NamespaceController } from '../../webhook/namespaces/controller.ts'
import { describePolicySource, manifestOf } from '../contract/policy-source.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { compact, killApiServer, storeUnvalidated } from './outage.ts'
import { install } from './permissions.ts'
import { type ApiPolicyStage, createApiPolicyStage, pathOfPolicies } from './policies-stage.ts'
import { createApiStage, pathOf, removeObject } from './stage.ts'

const LABELS = { 'synguard.io/inject': 'enabled' }

let control: ControlPlane
let cluster: ReturnType<typeof createApiStage>
let namespaces: NamespaceController
beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, { secret: 'policies', webhookConfiguration: 'policies' })
  cluster = createApiStage(control.admin)
  namespaces = createNamespaceController({
    cluster: cluster.cluster,
    client: control.admin,
    namespaceLabel: { key: 'synguard.io/inject', value: 'enabled' },
    log: pino({ level: 'silent' }),
    backoff: { initialMs: 50, maxMs: 200 },
  })
  namespaces.setCaBundle('a bundle')
  namespaces.start()
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  await namespaces?.stop()
  await cluster?.close()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

describePolicySource('the API server as source of policies', () =>
  createApiPolicyStage(control, { labels: LABELS, isAllowed: true }),
)

let stage: ApiPolicyStage
let sets: PolicySet[]
let errors: SynguardError[]

async function open(options: { labels?: Record<string, string>; isAllowed?: boolean } = {}): Promise<void> {
  const { labels = LABELS, isAllowed = true } = options
  stage = await createApiPolicyStage(control, { labels, isAllowed })
  sets = []
  errors = []
}

function start(): void {
  stage.source.start({ onChange: (set) => void sets.push(set), onError: (error) => void errors.push(error) })
}

const names = () => (sets.at(-1)?.policies ?? []).map(({ name }) => name).join(' ')
const policyNamed = (name: string) => sets.at(-1)?.policies.find((policy) => policy.name === name)

describe('the sidecar at the API server', () => {
  afterEach(async () => {
    stage.source.stop()
    await stage.close()
  })

  it('may list and watch the policies and the mode of its namespace, and nothing else', async () => {
    await open()
    const own = pathOfPolicies(stage.namespace)
    const status = (path: string, method: 'GET' | 'POST' = 'GET') =>
      stage.client
        .send({ method, path, ...(method === 'POST' && { body: manifestOf({ name: 'x', app: 'x' }, 'x') }) })
        .then(
          () => 200,
          (error: { status?: number }) => error.status,
        )
    expect(await status(own)).toBe(200)
    const others = [
      pathOfPolicies('elsewhere'),
      '/apis/networking.k8s.io/v1/networkpolicies',
      pathOf('Pod', stage.namespace),
      `/api/v1/namespaces/${stage.namespace}/secrets`,
      `/api/v1/namespaces/${stage.namespace}/configmaps`,
      '/api/v1/namespaces',
    ]
    expect(await Promise.all(others.map((path) => status(path)))).toEqual(others.map(() => 403))
    expect(await status(own, 'POST')).toBe(403)
    const maps = `/api/v1/namespaces/${stage.namespace}/configmaps`
    expect(await Promise.all([status(`${maps}/synguard-mode`), status(`${maps}/synguard-ca`)])).toEqual([200, 403])
  })

  it('follows the mode of its namespace and break-glass, by one list and one watch, over a cut', async () => {
    await open()
    const annotate = (annotations: Record<string, string | null>) =>
      control.admin.send({
        method: 'PATCH',
        path: pathOf('Namespace', undefined, stage.namespace),
        contentType: 'application/merge-patch+json',
        body: { metadata: { annotations } },
      })
    const modes: Mode[] = []
    const { setOfPod, setOfNamespace } = createModes('enforce', (mode) => void modes.push(mode))
    const stop = followNamespaceMode({
      client: stage.recording,
      namespace: stage.namespace,
      onChange: setOfNamespace,
      log: pino({ level: 'silent' }),
      random: Math.random,
      backoff: { initialMs: 50, maxMs: 200 },
    })
    const modeIs = (mode: Mode) => until(mode, () => modes.at(-1) === mode)
    try {
      await modeIs('enforce')
      await annotate({ 'synguard.io/break-glass': 'off: INC-7' })
      await modeIs('off')
      await stage.cut()
      await annotate({ 'synguard.io/break-glass': 'INC-7', 'synguard.io/mode': 'off' })
      // What was said last stands meanwhile, whatever the issuer says.
      setOfPod('enforce')
      expect(modes.at(-1)).toBe('off')
      await stage.mend()
      await modeIs('audit')
      // The Pod's own word is stricter than its namespace's.
      await annotate({ 'synguard.io/break-glass': null })
      await modeIs('enforce')
      setOfPod('off')
      expect(modes.at(-1)).toBe('off')
      expect(stage.asked.filter((kind) => kind === 'list')).toHaveLength(1)
    } finally {
      await stop()
    }
  })

  it('is refused, and so not synced, until its namespace is labelled', async () => {
    await open({ labels: {}, isAllowed: false })
    start()
    await until('a refusal', () => errors.length > 0)
    expect([sets, errors.map(({ code }) => code)]).toEqual([[], ['api-refused']])
    expect(errors[0]?.message).toContain('403')
    await control.admin.send({
      method: 'PATCH',
      path: pathOf('Namespace', undefined, stage.namespace),
      contentType: 'application/merge-patch+json',
      body: { metadata: { labels: LABELS } },
    })
    await until('the policies', () => sets.at(-1)?.synced)
  })

  it('goes on where its watch was cut, without listing anew', async () => {
    await open()
    await stage.put({ name: 'one', app: 'web' })
    start()
    await until('one', () => names() === 'one')
    await until('the watch', () => stage.asked.includes('watch'))
    await stage.cut()
    await stage.put({ name: 'two', app: 'web' })
    await stage.remove('one')
    await stage.mend()
    await until('two', () => names() === 'two')
    expect(stage.asked.filter((kind) => kind === 'list')).toHaveLength(1)
  })

  it('lists anew where the API server was killed and etcd has no history left (410)', async () => {
    await open()
    await stage.put({ name: 'changed', app: 'web' })
    await stage.put({ name: 'deleted', app: 'web' })
    start()
    await until('both', () => names() === 'changed deleted')
    await stage.cut()
    await stage.put({ name: 'changed', app: 'api' })
    await stage.remove('deleted')
    await stage.put({ name: 'made', app: 'db' })
    await compact(control)
    const startAgain = await killApiServer(control)
    await stage.mend()
    // The last policies stand meanwhile.
    expect(names()).toBe('changed deleted')
    await startAgain()
    await until('what is now', () => names() === 'changed made')
    expect(policyNamed('changed')?.podSelector[0]?.values).toEqual(['api'])
    expect(stage.asked.filter((kind) => kind === 'list').length).toBeGreaterThanOrEqual(2)
    // A server that starts refuses this and that for a moment; that it has no history is nobody's error.
    expect(errors.filter((error) => hasStatus(error, 410))).toEqual([])
  }, 120_000)

  it('takes the token that the kubelet puts in place of the one that it had', async () => {
    await open()
    start()
    await until('the policies', () => sets.at(-1)?.synced)
    // The API server takes a token no longer once its Pod is gone, or soon after.
    await removeObject(control.admin, 'Pod', 'web', stage.namespace)
    await until('the old token to be refused', () =>
      stage.client.send({ method: 'GET', path: pathOfPolicies(stage.namespace) }).then(
        () => false,
        (error: { status?: number }) => error.status === 401,
      ),
    )
    await stage.cut()
    await stage.mend()
    await until('a refusal', () => errors.some(({ message }) => message.includes('401')))
    await stage.projectToken('web-again')
    await stage.put({ name: 'one', app: 'web' })
    await until('one', () => names() === 'one')
    expect(JSON.stringify(errors.map(({ message }) => message))).not.toMatch(/eyJ/)
  }, 60_000)

  it('trusts the CA that the file has now, and sends its token to nobody else', async () => {
    await open()
    const { caPath, client, namespace, tokenPath } = stage
    const own = readFileSync(caPath, 'utf8')
    const codeWith = async (path: string, text: string): Promise<string> => {
      writeFileSync(path, text)
      return client.send({ method: 'GET', path: pathOfPolicies(namespace) }).then(
        () => 'ok',
        ({ code, message }: SynguardError) => `${code}: ${message}`,
      )
    }
    const other = rootCertificates[0] ?? ''
    expect(await codeWith(caPath, other)).toMatch(/^api-unreachable: .*UNABLE_TO_VERIFY/)
    expect(await codeWith(caPath, `${other}\n${own}`)).toBe('ok')
    expect(await codeWith(caPath, '')).toBe(`api-credentials: ${caPath} is empty.`)
    expect(await codeWith(caPath, own)).toBe('ok')
    expect(await codeWith(tokenPath, '\n')).toBe(`api-credentials: ${tokenPath} is empty.`)
    rmSync(tokenPath)
    expect(await client.send({ method: 'GET', path: '/' }).catch(({ code }: SynguardError) => code)).toBe(
      'api-credentials',
    )
  })

  it('reads policies that only another version could have stored so that they never allow more', async () => {
    await open()
    const { namespace } = stage
    const store = (name: string, spec: object) => {
      const metadata = { name, namespace, uid: crypto.randomUUID(), creationTimestamp: '2026-01-01T00:00:00Z' }
      const object = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata, spec }
      return storeUnvalidated(control, `networkpolicies/${namespace}/${name}`, object)
    }
    await store('rule', {
      podSelector: { matchLabels: { app: 'web' } },
      policyTypes: ['Ingress'],
      ingress: [{ ports: [{ port: 80, protocol: 'QUIC' }] }, { ports: [{ port: 443, protocol: 'TCP' }] }],
    })
    await store('selector', {
      podSelector: { matchExpressions: [{ key: 'app', operator: 'Near', values: ['web'] }] },
      policyTypes: ['Ingress'],
      ingress: [{}],
    })
    await stage.put({ name: 'whole', app: 'web' })
    start()
    await until('all three', () => names() === 'rule selector whole')
    expect(policyNamed('rule')?.ingress).toEqual([{ peers: [], ports: [{ protocol: 'TCP', port: 443 }] }])
    expect(policyNamed('selector')).toMatchObject({ podSelector: [], ingress: [] })
    const told = errors.map(({ message }) => message).sort()
    expect(told).toEqual([
      expect.stringContaining(`NetworkPolicy ${namespace}/rule: spec.ingress[0].ports[0].protocol`),
      expect.stringContaining(`NetworkPolicy ${namespace}/selector: spec.podSelector.matchExpressions[0].operator`),
    ])
    await stage.put({ name: 'rule', app: 'web' })
    await until('the mended one', () => policyNamed('rule')?.ingress.length === 0)
    expect(errors).toHaveLength(2)
  })

  it('reads 1,000 policies as one set, and hears of a change to one of them soon', async () => {
    await open()
    const all = Array.from({ length: 1_000 }, (_, index) => `policy-${String(index).padStart(4, '0')}`)
    const rest = [...all]
    const write = async () => {
      for (let name = rest.pop(); name !== undefined; name = rest.pop()) await stage.put({ name, app: 'web' })
    }
    await Promise.all(Array.from({ length: 16 }, write))
    const startedAt = performance.now()
    start()
    await until('the policies', () => sets.length > 0)
    const readMs = performance.now() - startedAt
    expect(names()).toBe(all.join(' '))
    expect(sets).toHaveLength(1)

    const waits: number[] = []
    for (let round = 0; round < 20; round++) {
      const sentAt = performance.now()
      const before = sets.length
      await stage.put({ name: 'policy-0500', app: `web-${round}` })
      while (sets.length === before) await new Promise((resolve) => setTimeout(resolve, 1))
      waits.push(performance.now() - sentAt)
      // The source tells a burst as one: each of these is to be a change of its own.
      await new Promise((resolve) => setTimeout(resolve, 120))
    }
    expect(policyNamed('policy-0500')?.podSelector[0]?.values).toEqual(['web-19'])
    waits.sort((a, b) => a - b)
    const show = (ms = 0) => ms.toFixed(1)
    process.stderr.write(
      `1,000 policies read in ${show(readMs)} ms; a change, from sent to told: p50 ${show(waits[10])} ms, most ${show(waits[19])} ms\n`,
    )
  }, 120_000)
})
