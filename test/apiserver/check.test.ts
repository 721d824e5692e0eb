import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Deployment, V1MutatingWebhookConfiguration, V1Pod } from '@kubernetes/client-node'
import { parse, parseAllDocuments, stringify } from 'yaml'
import { POLICIES } from '../../cli/check/checks/admission.ts'
import type { Finding } from '../../cli/check/finding.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { install, SYSTEM, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { createNamespace, pathOf, putObject, removeObject } from './stage.ts'
import { writeKubeconfig } from './users.ts'

const CHECKOUT = resolve(import.meta.dirname, '..', '..')
const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const LABELS = { 'synguard.io/inject': 'enabled' }
const MERGE = 'application/merge-patch+json'
const ADMISSION = '/apis/admissionregistration.k8s.io/v1'
const CONFIGURATION = `${ADMISSION}/mutatingwebhookconfigurations/synguard`
const RBAC = '/apis/rbac.authorization.k8s.io/v1'

let control: ControlPlane
let replica: ReplicaProcess | undefined
beforeAll(async () => {
  control = await startControlPlane()
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  await replica?.stop()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

interface Checked {
  readonly status: number | null
  readonly result: string
  readonly findings: readonly Finding[]
  readonly stderr: string
}

/** `synguard check` as a process of its own; by default as an administrator, without Pods, as no kubelet runs here. */
function check(kubeconfig = control.kubeconfigPath, parameters = ['--no-pods']): Promise<Checked> {
  const main = join(CHECKOUT, 'cli', 'main.ts')
  const common = ['check', '--json', '--kubeconfig', kubeconfig, '-n', SYSTEM]
  const all = ['--no-warnings', main, ...common, ...parameters]
  const child = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000 })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  return new Promise((done) => {
    child.once('close', (status) => {
      const answer = stdout === '' ? { result: '', findings: [] } : (JSON.parse(stdout) as Checked)
      done({ ...answer, status, stderr })
    })
  })
}

/** `status check: message` of the findings that are not as they should be. */
const faults = ({ findings }: Checked) =>
  findings.filter(({ status }) => status === 'fix').map(({ check: name, message }) => `${name}: ${message}`)
const find = ({ findings }: Checked, name: string) => findings.filter((finding) => finding.check === name)
const merge = (path: string, body: unknown) => control.admin.send({ method: 'PATCH', path, contentType: MERGE, body })
const post = (path: string, body: unknown) => control.admin.send({ method: 'POST', path, body })
const plainPod = (name: string): V1Pod => ({
  metadata: { name },
  spec: { containers: [{ name: 'app', image: 'app:1' }] },
})

/** What the manifests install beside what install() does; no controller runs here that would make it true. */
async function deploy(): Promise<void> {
  const read = (file: string) =>
    parseAllDocuments(readFileSync(join(CHECKOUT, 'manifests', 'base', file), 'utf8')).map(
      (document) => document.toJS() as V1Deployment & { kind: string },
    )
  const data = { 'settings.yaml': stringify({ injection: { image: 'registry.test/sidecar:1' } }) }
  await post(`/api/v1/namespaces/${SYSTEM}/configmaps`, { metadata: { name: 'synguard-settings' }, data })
  const [deployment] = read('deployment.yaml').filter(({ kind }) => kind === 'Deployment')
  const path = `/apis/apps/v1/namespaces/${SYSTEM}/deployments`
  await post(path, { ...deployment, metadata: { ...deployment?.metadata, namespace: SYSTEM } })
  await merge(`${path}/synguard-webhook/status`, { status: { replicas: 2, readyReplicas: 2 } })
  // By name alone: those of the manifests are for an installation in another namespace.
  for (const name of POLICIES) {
    const resourceRules = [{ apiGroups: [''], apiVersions: ['v1'], resources: ['pods'], operations: ['CREATE'] }]
    const spec = { matchConstraints: { resourceRules }, validations: [{ expression: 'true' }] }
    await post(`${ADMISSION}/validatingadmissionpolicies`, { metadata: { name }, spec })
    const binding = { policyName: name, validationActions: ['Deny'] }
    await post(`${ADMISSION}/validatingadmissionpolicybindings`, { metadata: { name }, spec: binding })
  }
}

/** A kubeconfig of a service account with those rules. */
async function userWith(name: string, rules: readonly object[]): Promise<string> {
  const account = { namespace: 'default', name }
  await post('/api/v1/namespaces/default/serviceaccounts', { metadata: { name } })
  await post(`${RBAC}/clusterroles`, { metadata: { name: `check-${name}` }, rules })
  await post(`${RBAC}/clusterrolebindings`, {
    metadata: { name: `check-${name}` },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: `check-${name}` },
    subjects: [{ kind: 'ServiceAccount', ...account }],
  })
  return writeKubeconfig(control, { account })
}

describe('before an installation', () => {
  it('it says so, with a status of its own', async () => {
    const checked = await check()
    expect([checked.status, checked.result, faults(checked)]).toEqual([3, 'not-installed', []])
    expect(find(checked, 'kubernetes')[0]?.message).toMatch(/^the API server is v1\.\d+\.\d+$/)
    expect(find(checked, 'installed')).toMatchObject([
      { status: 'note', fix: expect.stringContaining('kubectl apply') },
    ])
  }, 60_000)

  it('it says what Pod Security would refuse', async () => {
    const labels = { ...LABELS, 'pod-security.kubernetes.io/enforce': 'restricted' }
    await createNamespace(control.admin, 'strict', { labels })
    const checked = await check()
    expect([checked.status, faults(checked)]).toEqual([
      1,
      ['pod-security: Pod Security "restricted" of strict refuses the sidecar\'s NET_ADMIN'],
    ])
    await merge(pathOf('Namespace', undefined, 'strict'), { metadata: { labels: { 'synguard.io/inject': null } } })
  }, 60_000)

  it("without the sidecar's image it runs no Pods, and says why", async () => {
    const checked = await check(undefined, [])
    expect(find(checked, 'kernel')).toMatchObject([{ status: 'unseen', message: expect.stringContaining('--image') }])
    expect(checked.stderr).toBe('')
  }, 60_000)
})

describe('with rules that nobody answers for', () => {
  it('it says that caBundle is empty and labelled namespaces get no Pods', async () => {
    await install(control.admin, NAMES, true)
    await post(`${ADMISSION}/mutatingwebhookconfigurations`, webhookConfiguration('synguard', 9))
    await createNamespace(control.admin, 'shop', { labels: LABELS })
    const checked = await check()
    expect(checked.status).toBe(1)
    expect(faults(checked)).toEqual([
      expect.stringMatching(/^webhook-reached: a dry run in shop: .*failed calling webhook "pods\.synguard\.io"/),
      expect.stringMatching(/^admission-policies: .*synguard-containers is missing/),
      'ca-bundle: caBundle is empty, so the API server trusts no webhook',
      'namespace-ca: shop: no ConfigMap synguard-ca, so Pods there do not start',
      ...['identity', 'serving'].map(
        (kind) =>
          `key-rotation: ${SYSTEM}/synguard-rotation-status, ${kind}: is missing: no replica of the webhook has written it.`,
      ),
      'policy-access: shop: no RoleBinding synguard-policy-reader, so sidecars read no policies',
      'namespace-mode: shop: no ConfigMap synguard-mode, so sidecars hear of no mode',
    ])
  }, 60_000)
})

describe('after an installation', () => {
  beforeAll(async () => {
    replica = await spawnReplica({ control, names: NAMES })
    const port = await replica.port()
    const clientConfig = { url: `https://127.0.0.1:${port}/mutate` }
    const found = await control.admin.send<V1MutatingWebhookConfiguration>({ method: 'GET', path: CONFIGURATION })
    const webhooks = found.webhooks?.map((webhook) => ({ ...webhook, clientConfig }))
    await merge(CONFIGURATION, { webhooks })
    await until('ready', async () => (await replica?.readyz())?.status === 200)
    await deploy()
    await until('what shop needs', async () => (await check()).findings.every(({ status }) => status !== 'fix'))
  }, 120_000)

  it('all is well, seen from admission to certificates', async () => {
    await post(pathOf('Pod', 'shop'), plainPod('web'))
    const checked = await check()
    expect([checked.status, checked.result]).toEqual([0, 'fine'])
    const messages = Object.fromEntries(checked.findings.map(({ check: name, message }) => [name, message]))
    expect(messages).toMatchObject({
      installed: `in namespace ${SYSTEM}, webhook synguard/webhook:0.1.0`,
      settings: 'namespaces with synguard.io/inject=enabled get registry.test/sidecar:1',
      replicas: '2 of 2 replicas ready',
      'webhook-reached': 'the API server reaches the webhook: 1 dry run',
      'admission-policies': '4 ValidatingAdmissionPolicies hold what the webhook made',
      'ca-bundle': expect.stringMatching(/^1 CA in caBundle, 0 days old, 182[45] days left$/),
      'serving-certificate': expect.stringMatching(/^1 replica with a certificate by caBundle, .* (29|30) days left$/),
      'namespace-ca': '1 labelled namespace with the CA that is in caBundle',
      sidecars: 'shop: 1 of 1 Pod guarded: 1 at registry.test/sidecar:1',
      'older-pods': 'all sidecars are as the settings have them',
    })
  }, 60_000)

  it('it tells rules that somebody changed', async () => {
    const before = await control.admin.send<V1MutatingWebhookConfiguration>({ method: 'GET', path: CONFIGURATION })
    const change = (fields: object) =>
      merge(CONFIGURATION, { webhooks: before.webhooks?.map((webhook) => ({ ...webhook, ...fields })) })
    await change({ failurePolicy: 'Ignore', objectSelector: { matchLabels: { tier: 'web' } } })
    const [fault = ''] = faults(await check()).filter((line) => line.startsWith('webhook-rules'))
    expect(fault).toContain('failurePolicy is not Fail')
    expect(fault).toContain('objectSelector leaves out Pods')
    await change({})
    expect(faults(await check())).toEqual([])
  }, 60_000)

  it("it tells a Pod Security that refuses the sidecar, in the API server's own words", async () => {
    await createNamespace(control.admin, 'secure', {
      labels: { ...LABELS, 'pod-security.kubernetes.io/enforce': 'baseline' },
    })
    await until('what it needs', async () => !faults(await check()).some((line) => /^(namespace-ca|policy)/.test(line)))
    const checked = await check()
    expect(faults(checked)).toEqual([
      'pod-security: Pod Security "baseline" of secure refuses the sidecar\'s NET_ADMIN',
    ])
    expect(find(checked, 'pod-security')[0]?.fix).toBe(
      'kubectl label namespace secure --overwrite pod-security.kubernetes.io/enforce=privileged',
    )
    await removeObject(control.admin, 'Namespace', 'secure')
  }, 90_000)

  it('it tells Pods that are older than the label, and sidecars that are older than the settings', async () => {
    await createNamespace(control.admin, 'late')
    await post(pathOf('Pod', 'late'), plainPod('before'))
    const [old] = (await control.admin.send<{ items: V1Pod[] }>({ method: 'GET', path: pathOf('Pod', 'shop') })).items
    const outdated = structuredClone(old?.spec?.initContainers ?? []).map((one) => ({
      ...one,
      image: 'registry.test/sidecar:0',
    }))
    const containers = old?.spec?.containers ?? []
    const { volumes = [] } = old?.spec ?? {}
    await post(pathOf('Pod', 'late'), {
      metadata: { name: 'outdated' },
      spec: { initContainers: outdated, containers, volumes, automountServiceAccountToken: false },
    })
    await merge(pathOf('Namespace', undefined, 'late'), { metadata: { labels: LABELS } })
    await until('what it needs', async () => !faults(await check()).some((line) => /^(namespace-ca|policy)/.test(line)))
    const checked = await check()
    expect(faults(checked)).toEqual([
      'unguarded-pods: late: 1 Pod of pod/before without sidecar, older than the label',
      'older-pods: late: 1 Pod of pod/outdated older than the settings (image)',
    ])
    const { message } = find(checked, 'sidecars').find(({ namespace }) => namespace === 'late') ?? {}
    expect(message).toBe('late: 1 of 2 Pods guarded: 1 at registry.test/sidecar:0')
    await merge(pathOf('Namespace', undefined, 'late'), { metadata: { labels: { 'synguard.io/inject': null } } })
  }, 90_000)

  it('it needs no more rights than docs/check.md lists', async () => {
    const text = readFileSync(join(CHECKOUT, 'docs', 'check.md'), 'utf8')
    const { rules } = parse(/```yaml\n([\s\S]+?)```/.exec(text)?.[1] ?? '') as { rules: object[] }
    const checked = await check(await userWith('listed', rules))
    expect([checked.status, checked.result]).toEqual([0, 'fine'])
    expect(checked.findings.filter(({ message }) => message.includes('you may not'))).toEqual([])
  }, 60_000)

  it('it names what a user without rights for it could not see, and says that who sees nothing sees nothing', async () => {
    const list = { verbs: ['list'] }
    const some = await check(
      await userWith('some', [
        { ...list, apiGroups: [''], resources: ['namespaces'] },
        { ...list, apiGroups: ['admissionregistration.k8s.io'], resources: ['mutatingwebhookconfigurations'] },
      ]),
    )
    expect([some.status, some.result, faults(some)]).toEqual([0, 'fine', []])
    const hidden = some.findings.filter(({ status }) => status === 'unseen')
    expect(hidden.map(({ check: name, message }) => `${name}: ${message}`)).toEqual(
      expect.arrayContaining([
        'nodes: the nodes could not be seen: you may not list nodes',
        'sidecars: shop: the Pods could not be seen: you may not list pods in the namespace shop',
        'namespace-ca: ConfigMap synguard-ca could not be seen: you may not get configmaps in the namespace shop',
        'webhook-reached: whether the webhook is reached could not be seen: you may not create pods in the namespace shop',
      ]),
    )
    const none = await check(await userWith('none', []))
    expect([none.status, none.result, faults(none)]).toEqual([2, 'blind', []])
  }, 60_000)

  it('it runs its Pods in a namespace that goes again, whatever becomes of them', async () => {
    const node = { kubeletVersion: 'v1.37.2', kernelVersion: '6.18.5', architecture: 'amd64', operatingSystem: 'linux' }
    await putObject(control.admin, 'Node', {
      metadata: { name: 'node-1' },
      status: { nodeInfo: node, conditions: [{ type: 'Ready', status: 'True' }] },
    } as object)
    const running = check(undefined, [])
    const namespaces = async () =>
      (
        await control.admin.send<{ items: { metadata: { name: string; deletionTimestamp?: string } }[] }>({
          method: 'GET',
          path: '/api/v1/namespaces',
        })
      ).items.filter(({ metadata }) => metadata.name.startsWith('synguard-check-'))
    const made = await until('the namespace', async () => (await namespaces())[0])
    // What a kubelet would make of it: the namespace's account, and Pods that fail at once.
    const { name } = made.metadata
    await post(`/api/v1/namespaces/${name}/serviceaccounts`, { metadata: { name: 'default' } })
    const terminated = { exitCode: 1, message: '{"message":"no iptables","fix":"Put it there."}' }
    const fail = async (pod: V1Pod) => {
      const state = {
        name: 'synguard-init',
        ready: false,
        image: '',
        imageID: '',
        restartCount: 0,
        state: { terminated },
      }
      await putObject(control.admin, 'Pod', {
        ...pod,
        status: { phase: 'Failed', containerStatuses: [state] },
      } as object)
    }
    let isDone = false
    void running.then(() => {
      isDone = true
    })
    while (!isDone) {
      const { items } = await control.admin.send<{ items: V1Pod[] }>({ method: 'GET', path: pathOf('Pod', name) })
      for (const pod of items) if (pod.status?.phase !== 'Failed') await fail(pod)
      await new Promise((done) => setTimeout(done, 200))
    }
    const checked = await running
    expect(find(checked, 'kernel')).toMatchObject([
      {
        status: 'fix',
        message:
          'kernel 6.18.5 amd64 (1 node, tried on node-1): container synguard-init ended with 1: no iptables Put it there.',
      },
    ])
    expect(find(checked, 'guarded-pod')[0]?.status).toBe('fix')
    // No controller empties it here: that it was asked to go is what there is to see.
    expect((await namespaces()).filter(({ metadata }) => metadata.deletionTimestamp === undefined)).toEqual([])
  }, 90_000)

  it('it tells a webhook that is gone', async () => {
    await replica?.stop()
    const checked = await check()
    expect(faults(checked)).toEqual([
      expect.stringMatching(/^webhook-reached: a dry run in shop: .*failed calling webhook/),
    ])
    expect(find(checked, 'serving-certificate')[0]?.status).toBe('unseen')
  }, 60_000)
})
