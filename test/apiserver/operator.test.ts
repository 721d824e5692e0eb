/** What an operator asks and orders by the command line, at a real API server: `synguard explain` and `synguard revoke`. */
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { CoreV1EventList, V1ConfigMap, V1Pod, V1Role } from '@kubernetes/client-node'
import { parse, stringify } from 'yaml'
import type { Answer } from '../../cli/explain/answer.ts'
import { createRevocations, type Revoked } from '../../cli/revoke/revocations.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { createIssuerClient, type IssuerClient, type OpenStream } from './issuer-client.ts'
import { install, SYSTEM, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { createNamespace, mintToken, pathOf, putObject, unless } from './stage.ts'
import { writeKubeconfig } from './users.ts'

const CHECKOUT = resolve(import.meta.dirname, '..', '..')
const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const MERGE = 'application/merge-patch+json'
const RBAC = '/apis/rbac.authorization.k8s.io/v1'
const NETWORKING = '/apis/networking.k8s.io/v1'
const VOIDS = `/api/v1/namespaces/${SYSTEM}/configmaps/synguard-voids`
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'

let control: ControlPlane
let replica: ReplicaProcess
let issuer: IssuerClient
const streams: OpenStream[] = []

const post = (path: string, body: unknown) => control.admin.send({ method: 'POST', path, body })
const merge = (path: string, body: unknown) => control.admin.send({ method: 'PATCH', path, contentType: MERGE, body })

async function startReplica(): Promise<void> {
  // Pods whose identity is asked for from here are at loopback addresses, in place of a Pod network's.
  const injection = { image: 'registry.test/sidecar:1', clusterNetworks: ['10.0.0.0/8', '127.0.0.0/8'] }
  replica = await spawnReplica({ control, names: NAMES, settings: { injection } })
  await until('the voids', async () => (await replica.readyz()).body.conditions.voids)
}

/** Knows the issuer by what every labelled namespace has of it. */
async function connectIssuer(): Promise<void> {
  const path = '/api/v1/namespaces/shop/configmaps/synguard-ca'
  const ca = await until(
    'the CA',
    async () => (await unless(404, control.admin.send<V1ConfigMap>({ method: 'GET', path })))?.data,
  )
  issuer = createIssuerClient(await replica.port(), ca['ca.crt'] ?? '')
}

beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, NAMES, true)
  await startReplica()
  await post(CONFIGURATION, webhookConfiguration(NAMES.webhookConfiguration, await replica.port()))
  await until('ready', async () => (await replica.readyz()).status === 200)
  await putObject(control.admin, 'Node', {
    metadata: { name: 'node-1' },
    status: { addresses: [{ type: 'InternalIP', address: '10.200.0.2' }] },
  } as never)
  await createNamespace(control.admin, 'shop', { labels: { 'synguard.io/inject': 'enabled' } })
  await connectIssuer()
  await createNamespace(control.admin, 'plain')
  await runPod('shop', 'web', '127.0.0.2')
  await runPod('shop', 'client', '127.0.0.3')
  await runPod('plain', 'visitor', '127.0.0.4')
  await post('/api/v1/namespaces/shop/services', {
    metadata: { name: 'web' },
    spec: { clusterIP: '10.96.0.80', selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
  })
  await post('/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices', {
    metadata: { name: 'web-1', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    // No endpoint controller runs here, and loopback addresses, at which these Pods are, are refused in slices.
    endpoints: [{ addresses: ['10.244.0.9'] }],
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  })
  await runPod('shop', 'backend', '10.244.0.9')
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  for (const stream of streams) stream.close()
  await replica?.stop()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

/** A Pod as its kubelet shows it; guarded where its namespace is labelled. */
async function runPod(namespace: string, name: string, ip: string): Promise<void> {
  const path = pathOf('Pod', namespace)
  const spec = { nodeName: 'node-1', serviceAccountName: 'web', containers: [{ name: 'app', image: 'app:1' }] }
  await post(path, { metadata: { name, labels: { app: name } }, spec })
  const status = {
    phase: 'Running',
    podIP: ip,
    podIPs: [{ ip }],
    hostIP: '10.200.0.2',
    hostIPs: [{ ip: '10.200.0.2' }],
    initContainerStatuses: [
      { name: 'synguard-sidecar', ready: true, image: '', imageID: '', restartCount: 0, state: {}, lastState: {} },
    ],
  }
  await merge(`${path}/${name}/status`, {
    status: namespace === 'shop' ? status : { ...status, initContainerStatuses: [] },
  })
}

interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

function synguard(parameters: readonly string[], kubeconfig = control.kubeconfigPath): Promise<Run> {
  const main = join(CHECKOUT, 'cli', 'main.ts')
  const all = ['--no-warnings', main, ...parameters, '--kubeconfig', kubeconfig, '-n', SYSTEM]
  const child = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000 })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  return new Promise((done) => child.once('close', (status) => done({ status, stdout, stderr })))
}

const asked = (from: string, to: string, port: string) => ['explain', '--from', from, '--to', to, '--port', port]
async function explain(parameters: readonly string[], kubeconfig?: string): Promise<[number | null, Answer]> {
  const { status, stdout, stderr } = await synguard([...parameters, '--json'], kubeconfig)
  if (stdout === '') throw new Error(stderr)
  return [status, JSON.parse(stdout) as Answer]
}
/** What both ends of each way say. */
const reasons = ({ ways }: Answer) => ways.map(({ egress, ingress }) => [egress.reason, ingress.reason])

/** A kubeconfig of a service account that may do that much: in the whole cluster, or in that namespace. */
async function userWith(name: string, rules: readonly object[], namespace?: string): Promise<string> {
  const account = { namespace: 'default', name }
  await post('/api/v1/namespaces/default/serviceaccounts', { metadata: { name } })
  const [kind, path] = namespace === undefined ? ['ClusterRole', RBAC] : ['Role', `${RBAC}/namespaces/${namespace}`]
  await post(`${path}/${kind.toLowerCase()}s`, { metadata: { name }, rules })
  await post(`${path}/${kind.toLowerCase()}bindings`, {
    metadata: { name },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name },
    subjects: [{ kind: 'ServiceAccount', ...account }],
  })
  return writeKubeconfig(control, { account })
}

const policy = (name: string, from: readonly object[]) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { namespace: 'shop', name },
  spec: { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ from, ports: [{ port: 8080 }] }] },
})
const POLICIES = `${NETWORKING}/namespaces/shop/networkpolicies`

describe('synguard explain', () => {
  it('tells what nothing denies, of Pods that the webhook guards and of those that nobody does', async () => {
    const [status, found] = await explain(asked('shop/client', 'shop/pod/web', '8080'))
    expect([status, found.allowed, found.notes]).toEqual([0, true, []])
    const guard = { mode: 'enforce', ready: true, revoked: false }
    expect(found.ways[0]).toMatchObject({ egress: { guard }, ingress: { guard, peer: 'shop/client, by its identity' } })
    expect(reasons((await explain(asked('shop/client', '127.0.0.4', '80')))[1])).toEqual([
      ['egress allowed: no policy isolates the Pod', 'ingress not judged: nobody guards this end'],
    ])
  }, 60_000)

  it('tries policies that the cluster does not have, and changes nothing', async () => {
    const folder = join(control.statePath, 'tried')
    mkdirSync(folder)
    const write = (from: readonly object[]) => writeFileSync(join(folder, 'a.yaml'), stringify(policy('web', from)))
    const question = asked('shop/client', 'shop/pod/web', '8080')
    const outsiders = [{ ipBlock: { cidr: '203.0.113.0/24' } }]
    write(outsiders)
    const [status, found] = await explain([...question, '--policies', folder])
    expect([status, reasons(found)[0]?.[1]]).toEqual([3, 'ingress denied: isolated by shop/web, no rule allows it'])
    expect((await explain(question))[0]).toBe(0)
    // The other way round: what the cluster has denies, and the tried one stands in its place.
    await post(POLICIES, policy('web', outsiders))
    write([{ podSelector: { matchLabels: { app: 'client' } } }])
    expect((await explain(question))[0]).toBe(3)
    const [tried, allowed] = await explain([...question, '--policies', folder])
    expect([tried, reasons(allowed)[0]?.[1]]).toEqual([0, 'ingress allowed by shop/web rule 0'])
  }, 60_000)

  it('suggests a policy that the API server takes and that allows what was denied', async () => {
    const question = asked('plain/visitor', 'shop/pod/web', '8080')
    const [before, denied] = await explain(question)
    const { ingress } = denied.ways[0] ?? {}
    expect([before, ingress?.refusal, ingress?.peer]).toEqual([
      3,
      'policy',
      'plain/visitor, by the labels of the Pod at 127.0.0.4',
    ])
    await post(POLICIES, ingress?.suggestion)
    const [after, allowed] = await explain(question)
    expect([after, reasons(allowed)[0]?.[1]]).toEqual([0, 'ingress allowed by shop/web-ingress-8080 rule 0'])
  }, 60_000)

  it('follows a Service to its endpoints, by the name of its port', async () => {
    const [status, found] = await explain(asked('shop/client', 'shop/svc/web', 'http'))
    expect(status).toBe(0)
    expect(found.ways).toMatchObject([
      {
        dialled: { address: '10.96.0.80', port: 80 },
        service: 'shop/web',
        endpoint: { address: '10.244.0.9', port: 8080, pod: 'shop/backend' },
      },
    ])
    const { status: usage, stderr } = await synguard(asked('shop/client', 'shop/web', '80'))
    expect([usage, stderr]).toEqual([2, expect.stringContaining('write shop/pod/web or shop/svc/web')])
  }, 60_000)

  it('answers with rights in one namespace what these show, and says what they do not', async () => {
    const read = ['get', 'list']
    const rules = [
      { apiGroups: [''], resources: ['pods', 'services', 'configmaps'], verbs: read },
      { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: read },
      { apiGroups: ['networking.k8s.io'], resources: ['networkpolicies'], verbs: read },
    ]
    const user = await userWith('shopkeeper', rules, 'shop')
    const question = asked('shop/client', 'shop/svc/web', '80')
    const { status, stderr } = await synguard(question, user)
    expect([status, stderr]).toEqual([
      2,
      expect.stringMatching(/Namespace shop could not be seen: .*\[explain-unseen\]/),
    ])
    await post(`${RBAC}/clusterroles`, {
      metadata: { name: 'namespaces' },
      rules: [{ apiGroups: [''], resources: ['namespaces'], verbs: ['get'] }],
    })
    await post(`${RBAC}/clusterrolebindings`, {
      metadata: { name: 'namespaces' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'namespaces' },
      subjects: [{ kind: 'ServiceAccount', namespace: 'default', name: 'shopkeeper' }],
    })
    const [again, found] = await explain(question, user)
    expect([again, found.notes]).toEqual([
      0,
      expect.arrayContaining([
        expect.stringMatching(/^Pods of other namespaces could not be seen: you may not list pods/),
        expect.stringMatching(/^nodes could not be seen/),
        expect.stringMatching(/^whether a Pod is revoked could not be seen: you may not get configmaps/),
      ]),
    ])
    const byAddress = await synguard(asked('127.0.0.3', 'shop/svc/web', '80'), user)
    expect([byAddress.status, byAddress.stderr]).toEqual([2, expect.stringContaining('[explain-unseen]')])
  }, 60_000)

  it('says what there is not', async () => {
    const { status, stdout, stderr } = await synguard(asked('shop/client', 'shop/nobody', '80'))
    expect([status, stdout, stderr]).toEqual([
      2,
      '',
      'synguard: --to: there is no Pod and no Service shop/nobody [explain-unknown]\n',
    ])
    const port = await synguard(asked('shop/client', 'shop/svc/web', '81'))
    expect([port.status, port.stderr]).toEqual([
      2,
      'synguard: Service shop/web has no port TCP/81: it has TCP/80 (http) [explain-unknown]\n',
    ])
  }, 60_000)
})

const localAddresses: Readonly<Record<string, string>> = { web: '127.0.0.2', client: '127.0.0.3' }
async function identify(podName: string) {
  const token = await mintToken(control.admin, { namespace: 'shop', podName, audience: 'synguard' })
  return issuer.identify(token, localAddresses[podName] ?? '')
}
async function identity(podName: string) {
  return until('an identity', async () => {
    const found = await identify(podName)
    return typeof found !== 'string' && found
  })
}
const uidOf = async (name: string) =>
  (await control.admin.send<V1Pod>({ method: 'GET', path: pathOf('Pod', 'shop', name) })).metadata?.uid ?? ''
const entries = async () => (await control.admin.send<V1ConfigMap>({ method: 'GET', path: VOIDS })).data ?? {}

describe('synguard revoke', () => {
  let revoker = ''
  beforeAll(async () => {
    const { rules = [] } = parse(readFileSync(join(CHECKOUT, 'manifests/base/revoker.yaml'), 'utf8')) as V1Role
    revoker = await userWith('revoker', rules, SYSTEM)
    // As an operator has it anyway, in the namespaces that are his.
    const rule = { apiGroups: [''], resources: ['pods'], verbs: ['get'] }
    await post(`${RBAC}/namespaces/shop/roles`, { metadata: { name: 'pods' }, rules: [rule] })
    await post(`${RBAC}/namespaces/shop/rolebindings`, {
      metadata: { name: 'pods' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'pods' },
      subjects: [{ kind: 'ServiceAccount', namespace: 'default', name: 'revoker' }],
    })
  })

  it('voids the identity at every sidecar, gives the Pod no other, and takes that back', async () => {
    const [uid, held, watcher] = [await uidOf('client'), await identity('client'), await identity('web')]
    const stream = await issuer.openStream(watcher)
    if (typeof stream === 'string') throw new Error(stream)
    streams.push(stream)
    const revoked = await synguard(['revoke', 'shop/client', '--reason', 'its key\nwas stolen'], revoker)
    expect(revoked).toEqual({
      status: 0,
      stdout: expect.stringMatching(
        /^shop\/client is revoked since 2\S+Z; synguard revoke --undo shop\/client takes it back\n$/,
      ),
      stderr: '',
    })
    await until('the void', () => stream.voids().find((entry) => entry.uid === uid))
    expect([await issuer.openStream(held), await identify('client')]).toEqual(['wit-void', 'identity-revoked'])
    const list = await synguard(['revoke', '--list', '--json'], revoker)
    expect((JSON.parse(list.stdout) as { revoked: Revoked[] }).revoked).toEqual([
      { pod: 'shop/client', uid, since: expect.any(String), reason: 'its key was stolen', ended: false },
    ])
    const [status, found] = await explain(asked('shop/client', 'shop/svc/web', '80'))
    const { egress, ingress } = found.ways[0] ?? {}
    expect([status, egress?.reason, ingress?.refusal]).toEqual([
      3,
      'egress denied: an operator revoked the Pod',
      'wit-void',
    ])

    const told = async () => {
      const query = { fieldSelector: `involvedObject.uid=${uid}` }
      const path = '/api/v1/namespaces/shop/events'
      const { items } = await control.admin.send<CoreV1EventList>({ method: 'GET', path, query })
      return items.map(({ type, reason, message }) => `${type} ${reason}: ${message}`)
    }
    expect(await until('the Event', async () => (await told()).length > 0 && told())).toEqual([
      'Warning IdentityRevoked: An operator revoked the Pod: it gets no identity until that is undone. Reason: its key was stolen',
    ])

    expect(await synguard(['revoke', '--undo', 'shop/client'], revoker)).toMatchObject({ status: 0, stderr: '' })
    await identity('client')
    expect((await synguard(['revoke', '--list'], revoker)).stdout).toBe('No Pod is revoked\n')
    expect((await synguard(['revoke', '--undo', 'shop/client'], revoker)).stdout).toBe('shop/client is not revoked\n')
  }, 90_000)

  it('is refused to whoever has not the role, and says what it cannot revoke', async () => {
    const user = await userWith('reader', [{ apiGroups: [''], resources: ['pods', 'configmaps'], verbs: ['get'] }])
    const before = await entries()
    const { status, stderr } = await synguard(['revoke', 'shop/web'], user)
    expect([status, stderr]).toEqual([
      2,
      expect.stringMatching(/403 .*cannot patch resource "configmaps".*\[api-refused\]/),
    ])
    for (const [pod, message] of [
      ['shop/nobody', 'there is no Pod shop/nobody [revoke-unknown]'],
      ['plain/visitor', 'Pod plain/visitor has no sidecar, so it has no identity to revoke [revoke-unknown]'],
      ['shop', '"shop" is not NAMESPACE/POD'],
    ]) {
      const refused = await synguard(['revoke', pod ?? ''])
      expect([refused.status, refused.stderr]).toEqual([2, expect.stringContaining(message ?? '')])
    }
    expect(await entries()).toEqual(before)
  }, 60_000)

  it('stands beside what is known of the Pod while no replica runs, and is answered once one does', async () => {
    const uid = await uidOf('web')
    await identity('web')
    await merge(pathOf('Pod', 'shop', 'web'), { metadata: { labels: { tier: 'new' } } })
    const known = await until('the new labels', async () => (await entries())[uid])
    await replica.stop()
    const revocations = createRevocations({ client: control.admin, namespace: SYSTEM, answerMs: 300 })
    const pod = { namespace: 'shop', name: 'web' }
    await expect(revocations.revoke(pod, 'too late')).rejects.toMatchObject({ code: 'revoke-unanswered' })
    expect((await entries())[uid]).toBe(`revoke ${known} shop/web # too late`)
    await startReplica()
    const list = await until('the answer', async () => {
      const found = await revocations.list()
      return found.length > 0 && found
    })
    expect(list).toMatchObject([{ pod: 'shop/web', uid, reason: 'too late' }])
    expect((await entries())[uid]).toMatch(/^relabelled@\S+ revoked@\S+ shop\/web # too late$/)
  }, 90_000)
})
