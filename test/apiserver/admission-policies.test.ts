import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import { ApiError } from '../../kubernetes/errors.ts'
import { inject } from '../../webhook/admission/inject.ts'
import { parsePod } from '../../webhook/admission/pod.ts'
import { DEFAULT_INJECTION_SETTINGS } from '../../webhook/admission/settings.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { createNamespace, pathOf } from './stage.ts'

const BASE = join(import.meta.dirname, '..', '..', 'manifests', 'base')
const LABELS = { 'synguard.io/inject': 'enabled' }
const SETTINGS = {
  ...DEFAULT_INJECTION_SETTINGS,
  image: 'registry.test/sidecar:1',
  issuerUrl: 'https://10.96.7.7:443',
  issuerName: 'synguard-webhook.synguard.svc',
}

type Spec = NonNullable<V1Pod['spec']>
type Container = Spec['containers'][number]

let control: ControlPlane
beforeAll(async () => {
  control = await startControlPlane()
  for (const file of ['namespace', 'permissions', 'admission-policies']) {
    const command = ['--kubeconfig', control.kubeconfigPath, 'apply', '-f', join(BASE, `${file}.yaml`)]
    execFileSync(control.kubectlPath, command)
  }
  await createNamespace(control.admin, 'shop', { labels: LABELS })
  await createNamespace(control.admin, 'held', { labels: { ...LABELS, 'synguard.io/pod-security': 'baseline' } })
  await createNamespace(control.admin, 'plain')
  // Bindings take a moment to be known.
  await until('the policies', async () =>
    /^403/.test((await refusalOf(create('shop', { containers: [{ ...APP, volumeMounts: [MOUNT] }] }))) ?? ''),
  )
  await until('baseline', async () => /^403/.test((await refusalOf(create('held', { hostIPC: true }))) ?? ''))
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(() => control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

const APP: Container = {
  name: 'app',
  image: 'app:1',
  securityContext: { capabilities: { drop: ['NET_RAW'] } },
}
const MOUNT = { name: 'synguard-credentials', mountPath: '/x' }

const refusalOf = (answer: Promise<unknown>) =>
  answer.then(
    () => undefined,
    (error: unknown) => (error instanceof ApiError ? `${error.status} ${error.message}` : String(error)),
  )

let serial = 0
/** A Pod as our webhook leaves it; then, as another webhook might, `change` has its way with it. */
function guarded(spec: Partial<Spec> = {}, annotations: Record<string, string> = {}): V1Pod {
  const body = { metadata: { name: `pod-${++serial}`, annotations }, spec: { containers: [APP] } }
  const result = inject(parsePod(body), { name: 'shop', labels: LABELS, annotations: {} }, SETTINGS)
  if (result.kind !== 'injected') throw new Error(result.reason)
  const { pod } = result
  return { ...pod, spec: { ...pod.spec, ...spec } }
}

const post = (namespace: string, body: V1Pod) =>
  control.admin.send<V1Pod>({ method: 'POST', path: pathOf('Pod', namespace), body })
const create = (namespace: string, spec: Partial<Spec> = {}, annotations: Record<string, string> = {}) =>
  post(namespace, guarded(spec, annotations))
const withContext = (securityContext: Container['securityContext']): Partial<Spec> => ({
  containers: [APP, { name: 'late', image: 'app:1', ...(securityContext && { securityContext }) }],
})
const adding = (...add: string[]) => withContext({ capabilities: { add, drop: ['NET_RAW'] } })
const patch = (pod: V1Pod, body: unknown, sub = '') =>
  control.admin.send<V1Pod>({
    method: 'PATCH',
    path: `${pathOf('Pod', pod.metadata?.namespace, pod.metadata?.name)}${sub}`,
    contentType: 'application/strategic-merge-patch+json',
    body,
  })

describe('the admission policies', () => {
  it('let in what our webhook makes, and what they do not concern', async () => {
    expect(await refusalOf(create('shop'))).toBeUndefined()
    expect(await refusalOf(create('held'))).toBeUndefined()
    const privileged = { containers: [{ name: 'app', image: 'app:1', securityContext: { privileged: true } }] }
    const plain = { metadata: { name: 'own' }, spec: { ...privileged, hostPID: true } }
    expect(await refusalOf(post('plain', plain))).toBeUndefined()
    // Not guarded, on its node's network: the webhook says so, and policies about sidecars say nothing.
    const host = { metadata: { name: 'host' }, spec: { ...privileged, hostNetwork: true } }
    expect(await refusalOf(post('shop', host))).toBeUndefined()
  })
})

describe('our containers', () => {
  it.each([0, 1])('keep their images while a Pod runs, whoever asks (%i)', async (index) => {
    const made = await create('shop')
    const { name } = made.spec?.initContainers?.[index] ?? {}
    const change = patch(made, { spec: { initContainers: [{ name, image: 'registry.test/other:1' }] } })
    expect(await refusalOf(change)).toMatch(/^403 .*the images of synguard-init and synguard-sidecar cannot be changed/)
    const own = patch(made, { spec: { containers: [{ name: 'app', image: 'app:2' }] } })
    expect(await refusalOf(own)).toBeUndefined()
  })

  it('keep their status, while labels and other annotations change', async () => {
    const made = await create('shop')
    const status = patch(made, { metadata: { annotations: { 'synguard.io/status': 'skipped: by me' } } })
    expect(await refusalOf(status)).toMatch(/^403 .*synguard\.io\/status is the webhook's/)
    const other = patch(made, { metadata: { labels: { app: 'x' }, annotations: { 'synguard.io/mode': 'audit' } } })
    expect(await refusalOf(other)).toBeUndefined()
  })

  it('stay in front, as they were made, and together', async () => {
    const [init, sidecar] = guarded().spec?.initContainers ?? []
    if (init === undefined || sidecar === undefined) throw new Error('no containers')
    const cases: [Container[], RegExp][] = [
      [[APP, init, sidecar].map((one, index) => ({ ...one, name: index === 0 ? 'first' : one.name })), /first two/],
      [[init], /first two/],
      [[init, { ...sidecar, image: 'registry.test/other:1' }], /as Synguard makes them/],
      [
        [init, { ...sidecar, securityContext: { ...sidecar.securityContext, runAsUser: 0, runAsNonRoot: false } }],
        /as Synguard/,
      ],
      [
        [
          { ...init, securityContext: { ...init.securityContext, allowPrivilegeEscalation: true, privileged: true } },
          sidecar,
        ],
        /as Sy/,
      ],
    ]
    for (const [initContainers, reason] of cases) {
      const refusal = await refusalOf(create('shop', { initContainers }))
      expect(refusal).toMatch(/^403 /)
      expect(refusal).toMatch(reason)
    }
  })
})

describe('another container of a guarded Pod', () => {
  const ALLOWED = { 'synguard.io/allow-privileged': 'true' }

  it.each(['NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'BPF', 'ALL', 'CAP_NET_ADMIN', 'net_admin'])(
    'has no %s, unless the Pod is annotated',
    async (capability) => {
      const spec = adding(capability)
      expect(await refusalOf(create('shop', spec))).toMatch(
        /^403 .*NET_ADMIN, SYS_ADMIN, SYS_PTRACE.*: late; without it/,
      )
      expect(await refusalOf(create('shop', spec, ALLOWED))).toBeUndefined()
    },
  )

  it('is not privileged, and the Pod shares no processes, unless it is annotated', async () => {
    const context = withContext({ privileged: true })
    const cases: [Partial<Spec>, RegExp][] = [
      [context, /^403 .*privileged, or with/],
      [{ hostPID: true }, /^403 .*hostPID and shareProcessNamespace need/],
      [{ shareProcessNamespace: true }, /^403 .*hostPID and shareProcessNamespace need/],
    ]
    for (const [spec, reason] of cases) {
      expect(await refusalOf(create('shop', spec))).toMatch(reason)
      expect(await refusalOf(create('shop', spec, ALLOWED))).toBeUndefined()
    }
  })

  it('drops NET_RAW, unless the Pod is annotated', async () => {
    for (const context of [undefined, {}, { capabilities: { add: ['NET_RAW'], drop: ['ALL'] } }]) {
      const spec = withContext(context)
      expect(await refusalOf(create('shop', spec))).toMatch(/^403 .*with NET_RAW, .*: late/)
      expect(await refusalOf(create('shop', spec, { 'synguard.io/keep-net-raw': 'true' }))).toBeUndefined()
    }
    expect(await refusalOf(create('shop', withContext({ capabilities: { drop: ['ALL'] } })))).toBeUndefined()
  })

  it("has neither the sidecar's user nor its volumes, whatever the Pod says", async () => {
    const runAsUser = 15900
    const user = withContext({ runAsUser, capabilities: { drop: ['ALL'] } })
    expect(await refusalOf(create('shop', user, ALLOWED))).toMatch(/^403 .*as user 15900, .*: late/)
    const ofPod = { securityContext: { runAsUser } }
    expect(await refusalOf(create('shop', ofPod, ALLOWED))).toMatch(/^403 .*as user 15900, .*: app/)
    const mount = { containers: [{ ...APP, volumeMounts: [MOUNT] }] }
    expect(await refusalOf(create('shop', mount, ALLOWED))).toMatch(/^403 .*volume of the sidecar's mounted: app/)
  })

  it('is held to it as an ephemeral container too', async () => {
    const made = await create('shop')
    const add = (name: string, fields: object) =>
      refusalOf(
        patch(made, { spec: { ephemeralContainers: [{ name, image: 'app:1', ...fields }] } }, '/ephemeralcontainers'),
      )
    const drop = { capabilities: { drop: ['NET_RAW'] } }
    expect(await add('a', {})).toMatch(/^403 .*with NET_RAW, .*: a/)
    expect(await add('b', { securityContext: { privileged: true } })).toMatch(/^403 .*privileged, or with/)
    const joining = { securityContext: drop, targetContainerName: 'synguard-sidecar' }
    expect(await add('c', joining)).toMatch(/^403 .*in the processes of the sidecar: c/)
    expect(await add('d', { securityContext: drop, targetContainerName: 'app' })).toBeUndefined()
  })
})

describe('a namespace that asks for baseline', () => {
  const inApp = (fields: Partial<Container>): Partial<Spec> => ({ containers: [{ ...APP, ...fields }] })
  const inContext = (context: Container['securityContext']) =>
    inApp({ securityContext: { ...APP.securityContext, ...context } })
  const cases: [string, Partial<Spec>][] = [
    ['hostIPC', { hostIPC: true }],
    ['a capability beyond the usual ones', adding('SYS_TIME')],
    ['a hostPath volume', { volumes: [{ name: 'v', hostPath: { path: '/' } }] }],
    ['a host port', inApp({ ports: [{ containerPort: 80, hostPort: 80 }] })],
    ['AppArmor switched off', inContext({ appArmorProfile: { type: 'Unconfined' } })],
    ['an SELinux type', { securityContext: { seLinuxOptions: { type: 'spc_t' } } }],
    ['seccomp switched off', { securityContext: { seccompProfile: { type: 'Unconfined' } } }],
    ['a sysctl beyond the Pod', { securityContext: { sysctls: [{ name: 'kernel.msgmax', value: '1' }] } }],
    ['a probe of another host', inApp({ livenessProbe: { tcpSocket: { host: '10.0.0.1', port: 1 } } })],
  ]
  it.each(cases)('refuses %s, which another labelled namespace takes', async (_, spec) => {
    const volumes = [...(guarded().spec?.volumes ?? []), ...(spec.volumes ?? [])]
    const whole = { ...spec, volumes }
    expect(await refusalOf(create('held', whole))).toMatch(/^403 .*baseline: /)
    expect(await refusalOf(create('shop', whole))).toBeUndefined()
  })

  it('takes what baseline takes', async () => {
    const spec = {
      ...inContext({
        capabilities: { add: ['NET_BIND_SERVICE'], drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      }),
      securityContext: { sysctls: [{ name: 'net.ipv4.tcp_syncookies', value: '1' }] },
    }
    expect(await refusalOf(create('held', spec))).toBeUndefined()
  })

  it('holds Pods without a sidecar to it as well', async () => {
    const host = {
      metadata: { name: 'host' },
      spec: { containers: [{ name: 'app', image: 'app:1' }], hostNetwork: true },
    }
    expect(await refusalOf(post('held', host))).toMatch(/^403 .*baseline: hostNetwork/)
  })
})

describe('a ConfigMap of the webhook in a namespace', () => {
  const RBAC = '/apis/rbac.authorization.k8s.io/v1'
  /** As the webhook writes it: its permission is for that name, which only an apply tells. */
  const applyAs = (namespace: string, user: string, name = 'synguard-ca') => {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace } })
    const parameters = ['--kubeconfig', control.kubeconfigPath, '--as', user, 'apply', '--server-side', '-f', '-']
    const { status, stderr } = spawnSync(control.kubectlPath, parameters, { encoding: 'utf8', input })
    return status === 0 ? 'applied' : stderr
  }
  const account = (namespace: string, name: string) => `system:serviceaccount:${namespace}:${name}`
  const bind = (path: string, name: string, role: string, namespace: string, accountName: string) => {
    const subjects = [{ kind: 'ServiceAccount', namespace, name: accountName }]
    const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role }
    return control.admin.send({ method: 'POST', path, body: { metadata: { name }, roleRef, subjects } })
  }

  it.each(['synguard-ca', 'synguard-mode'])(
    "(%s) is nobody's but the webhook's in a labelled namespace, and anybody's elsewhere",
    async (name) => {
      const body = { metadata: { name }, data: { mode: 'off' } }
      const write = (namespace: string) =>
        refusalOf(control.admin.send({ method: 'POST', path: `/api/v1/namespaces/${namespace}/configmaps`, body }))
      expect(await write('shop')).toMatch(new RegExp(`^403 .*the ConfigMap ${name} is the webhook's`))
      expect(await write('plain')).toBeUndefined()
      expect(applyAs('shop', account('synguard', 'synguard-webhook'), name)).toBe('applied')
    },
  )

  it('is the webhook’s in whatever namespace and by whatever prefix it was installed', async () => {
    await bind(`${RBAC}/clusterrolebindings`, 'my-synguard', 'synguard-webhook', 'security', 'my-synguard-webhook')
    expect(applyAs('held', account('security', 'my-synguard-webhook'))).toBe('applied')
  })

  it('is not its namesakes’, nor other accounts’ that may do anything', async () => {
    const own = `${RBAC}/namespaces/held/rolebindings`
    await bind(own, 'namesake', 'cluster-admin', 'held', 'synguard-webhook')
    await bind(`${RBAC}/clusterrolebindings`, 'deployer', 'cluster-admin', 'plain', 'deployer')
    const refusal = /the ConfigMap synguard-ca is the webhook's/
    for (const user of [account('held', 'synguard-webhook'), account('plain', 'deployer')]) {
      expect(applyAs('held', user, 'other')).toBe('applied')
      expect(applyAs('held', user)).toMatch(refusal)
    }
  })
})
