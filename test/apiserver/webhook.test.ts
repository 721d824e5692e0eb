import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { CoreV1EventList, V1ConfigMap, V1Pod, V1RoleBinding } from '@kubernetes/client-node'
import { pino } from 'pino'
import { ApiError } from '../../kubernetes/errors.ts'
import { createIdentityClient } from '../../sidecar/control/identity-client.ts'
import { createIssuerHttp } from '../../sidecar/control/issuer-http.ts'
import { POLICY_READER } from '../../webhook/namespaces/objects.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { readKeys } from './keys.ts'
import { install, SYSTEM, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { createNamespace, mintToken, pathOf, putObject, removeObject, unless } from './stage.ts'

const NAMES = { secret: 'synguard-authority', webhookConfiguration: 'synguard' }
const LABELS = { 'synguard.io/inject': 'enabled' }
const MERGE = 'application/merge-patch+json'

let control: ControlPlane
let replica: ReplicaProcess
let port: number
let ca: string
beforeAll(async () => {
  control = await startControlPlane()
  await install(control.admin, NAMES, true)
  replica = await spawnReplica({ control, names: NAMES })
  port = await replica.port()
  const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
  await control.admin.send({ method: 'POST', path, body: webhookConfiguration(NAMES.webhookConfiguration, port) })
  await until('ready', async () => (await replica.readyz()).status === 200)
  ca = (await readKeys(control.admin, NAMES.secret)).ca
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  await replica?.stop()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

function pod(metadata: V1Pod['metadata'], spec: Partial<V1Pod['spec']> = {}): V1Pod {
  return { ...(metadata && { metadata }), spec: { containers: [{ name: 'app', image: 'app:1' }], ...spec } }
}

const createPod = (namespace: string, body: V1Pod, query: Record<string, string> = {}) =>
  control.admin.send<V1Pod>({ method: 'POST', path: pathOf('Pod', namespace), query, body })

const names = ({ spec }: V1Pod) => [
  spec?.initContainers?.map(({ name }) => name),
  spec?.containers.map(({ name }) => name),
]
const readPod = (namespace: string, name: string) =>
  unless(404, control.admin.send<V1Pod>({ method: 'GET', path: pathOf('Pod', namespace, name) }))
const refusalOf = (answer: Promise<unknown>) =>
  answer.then(
    () => undefined,
    (error: unknown) => (error instanceof ApiError ? `${error.status} ${error.message}` : error),
  )

describe('a Pod that is made in a labelled namespace', () => {
  beforeAll(() => createNamespace(control.admin, 'shop', { labels: LABELS }))

  it('comes out with our init step and our sidecar first', async () => {
    const made = await createPod('shop', pod({ name: 'web' }, { initContainers: [{ name: 'own', image: 'app:1' }] }))
    expect(names(made)).toEqual([['synguard-init', 'synguard-sidecar', 'own'], ['app']])
    expect(made.metadata?.annotations?.['synguard.io/status']).toBe('injected')
    expect(made.spec?.initContainers?.[1]).toMatchObject({ image: 'registry.test/sidecar:1', restartPolicy: 'Always' })
    const environment = made.spec?.initContainers?.[1]?.env ?? []
    // The Service's address, as sidecars need no DNS.
    expect(environment.find(({ name }) => name === 'SYNGUARD_ISSUER_URL')?.value).toBe('https://10.96.7.7:443')
    expect(made.spec?.containers[0]?.securityContext?.capabilities?.drop).toEqual(['NET_RAW'])
  })

  it('comes out the same where only generateName is given', async () => {
    const made = await createPod('shop', pod({ generateName: 'web-' }))
    expect(made.metadata?.name).toMatch(/^web-.{5}$/)
    expect(names(made)).toEqual([['synguard-init', 'synguard-sidecar'], ['app']])
  })

  it('leaves nothing behind in a dry run, which shows what it would be', async () => {
    const made = await createPod('shop', pod({ name: 'dry' }), { dryRun: 'All' })
    expect(names(made)).toEqual([['synguard-init', 'synguard-sidecar'], ['app']])
    expect(await readPod('shop', 'dry')).toBeUndefined()
  })

  it('is refused with our reason where a container could leave its sidecar behind', async () => {
    const securityContext = { capabilities: { add: ['NET_ADMIN'] } }
    const body = pod({ name: 'strong' }, { containers: [{ name: 'app', image: 'app:1', securityContext }] })
    const refusal = await refusalOf(createPod('shop', body))
    expect(refusal).toContain('admission webhook "pods.synguard.io" denied the request: dangerous-capability: ')
    expect(refusal).toMatch(/^403 .*container "app" \(spec\.containers\[0\].*adds NET_ADMIN/)
  })

  it('is left alone, with the reason, on the network of its node', async () => {
    const made = await createPod('shop', pod({ name: 'host' }, { hostNetwork: true }))
    expect([names(made), made.metadata?.annotations?.['synguard.io/status']]).toEqual([
      [undefined, ['app']],
      'skipped: host-network',
    ])
  })

  it('takes no ephemeral container that joins the sidecar', async () => {
    await createPod('shop', pod({ name: 'debugged' }))
    const path = `${pathOf('Pod', 'shop', 'debugged')}/ephemeralcontainers`
    const add = (fields: object) => {
      const spec = { ephemeralContainers: [{ name: 'debug', image: 'app:1', ...fields }] }
      const contentType = 'application/strategic-merge-patch+json'
      return control.admin.send<V1Pod>({ method: 'PATCH', path, contentType, body: { spec } })
    }
    expect(await refusalOf(add({ targetContainerName: 'synguard-sidecar' }))).toContain('sidecar-targeted: ')
    const admitted = await add({ targetContainerName: 'app' })
    expect(admitted.spec?.ephemeralContainers?.[0]?.securityContext?.capabilities?.drop).toEqual(['NET_RAW'])
  })

  it('is not touched in a namespace without the label', async () => {
    await createNamespace(control.admin, 'plain')
    expect(names(await createPod('plain', pod({ name: 'web' })))).toEqual([undefined, ['app']])
  })

  it('is guarded from the very moment of the label on', async () => {
    for (let round = 0; round < 20; round++) {
      const name = `moment-${round}`
      await createNamespace(control.admin, name)
      const body = { metadata: { labels: LABELS } }
      await control.admin.send({
        method: 'PATCH',
        path: pathOf('Namespace', undefined, name),
        contentType: MERGE,
        body,
      })
      const made = await createPod(name, pod({ name: 'web' }))
      expect(names(made)).toEqual([['synguard-init', 'synguard-sidecar'], ['app']])
    }
  })

  it('is warned about where its namespace enforces a Pod Security that refuses the sidecar', async () => {
    const labels = { ...LABELS, 'pod-security.kubernetes.io/enforce': 'baseline' }
    await createNamespace(control.admin, 'secure', { labels })
    const path = '/api/v1/namespaces/secure/events'
    const event = await until('the event', async () => {
      const { items } = await control.admin.send<CoreV1EventList>({ method: 'GET', path })
      return items[0]
    })
    expect([event.type, event.reason, event.involvedObject]).toEqual([
      'Warning',
      'PodSecurityRefusesSidecar',
      { apiVersion: 'v1', kind: 'Namespace', name: 'secure', namespace: 'secure', uid: expect.any(String) },
    ])
    expect(event.message).toContain('pod-security.kubernetes.io/enforce=privileged')
    expect(await refusalOf(createPod('secure', pod({ name: 'web' })))).toMatch(/^403 .*violates PodSecurity "baseline/)
  })
})

describe('a Pod with its bound token', () => {
  it('gets its identity from the replica, and only from one of its own addresses', async () => {
    await createNamespace(control.admin, 'bank', { labels: LABELS })
    await putObject(control.admin, 'Node', { metadata: { name: 'node-1' } })
    const spec = { nodeName: 'node-1', serviceAccountName: 'web' }
    const made = await createPod('bank', pod({ name: 'teller', labels: { app: 'teller' } }, spec))
    const status = (ip: string) => ({ ...made, status: { phase: 'Running', podIPs: [{ ip }] } }) as V1Pod
    const folder = mkdtempSync(join(tmpdir(), 'synguard-identity-'))
    writeFileSync(join(folder, 'ca.crt'), ca)
    const token = await mintToken(control.admin, { namespace: 'bank', podName: 'teller', audience: 'synguard' })
    writeFileSync(join(folder, 'token'), token)
    const name = `synguard-webhook.${SYSTEM}.svc`
    const http = createIssuerHttp({ address: '127.0.0.1', port, name, caPath: join(folder, 'ca.crt'), now: Date.now })

    const ask = () =>
      new Promise<unknown>((resolve) => {
        const client = createIdentityClient({
          http,
          tokenPath: join(folder, 'token'),
          pod: { namespace: 'bank', name: 'teller', uid: made.metadata?.uid ?? '' },
          trustDomain: 'cluster.local',
          issuer: `https://${name}`,
          now: Date.now,
          random: Math.random,
          log: pino({ level: 'silent' }),
          onIdentity: ({ verified }) => done(verified.identity),
          onFailure: (error) => done(error),
        })
        const done = (result: unknown) => {
          client.stop()
          resolve(result)
        }
        client.start()
      })
    try {
      await putObject(control.admin, 'Pod', status('10.244.9.9'))
      expect(await ask()).toMatchObject({ issuerCode: 'address-mismatch' })
      await putObject(control.admin, 'Pod', status('127.0.0.1'))
      const identity = await until('the identity', async () => {
        const result = await ask()
        return !(result instanceof Error) && result
      })
      expect(identity).toMatchObject({
        namespace: 'bank',
        name: 'teller',
        uid: made.metadata?.uid,
        serviceAccount: 'web',
        labels: { app: 'teller' },
        addresses: ['127.0.0.1'],
      })
    } finally {
      http.close()
      rmSync(folder, { recursive: true })
    }
  }, 60_000)
})

describe('what the webhook keeps in a labelled namespace', () => {
  const binding = (namespace: string) =>
    `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/rolebindings/${POLICY_READER}`
  const configMap = (namespace: string) => `/api/v1/namespaces/${namespace}/configmaps/synguard-ca`
  const read = <Kind>(path: string) => unless(404, control.admin.send<Kind>({ method: 'GET', path }))
  const merge = (path: string, body: unknown) => control.admin.send({ method: 'PATCH', path, contentType: MERGE, body })
  const setLabel = (namespace: string, value: string | null) =>
    merge(pathOf('Namespace', undefined, namespace), { metadata: { labels: { 'synguard.io/inject': value } } })

  it('is there soon after the label, for its service accounts alone, and owned by our ClusterRole', async () => {
    await createNamespace(control.admin, 'kept')
    await setLabel('kept', 'enabled')
    const made = await until('the RoleBinding', () => read<V1RoleBinding>(binding('kept')))
    expect([made.roleRef.name, made.subjects]).toEqual([
      POLICY_READER,
      [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'system:serviceaccounts:kept' }],
    ])
    const trusted = await until('the ConfigMap', () => read<V1ConfigMap>(configMap('kept')))
    expect(trusted.data).toEqual({ 'ca.crt': ca })
    const role = await control.admin.send<{ metadata: { uid: string } }>({
      method: 'GET',
      path: `/apis/rbac.authorization.k8s.io/v1/clusterroles/${POLICY_READER}`,
    })
    for (const { metadata } of [made, trusted]) {
      expect(metadata?.ownerReferences?.map(({ uid }) => uid)).toEqual([role.metadata.uid])
    }
  })

  it('is restored when somebody edits or deletes it', async () => {
    await merge(configMap('kept'), { data: { 'ca.crt': 'somebody else' } })
    await until('the CA', async () => (await read<V1ConfigMap>(configMap('kept')))?.data?.['ca.crt'] === ca)
    await merge(binding('kept'), { subjects: [] })
    await until('the subject', async () => (await read<V1RoleBinding>(binding('kept')))?.subjects?.length === 1)
    await control.admin.send({ method: 'DELETE', path: binding('kept') })
    await until('the RoleBinding', () => read(binding('kept')))
    const apiGroup = 'rbac.authorization.k8s.io'
    await control.admin.send({ method: 'DELETE', path: binding('kept') })
    const other = { metadata: { name: POLICY_READER }, roleRef: { apiGroup, kind: 'ClusterRole', name: 'view' } }
    await unless(
      409,
      control.admin.send({ method: 'POST', path: binding('kept').replace(/\/[^/]*$/, ''), body: other }),
    )
    await until(
      'the right role',
      async () => (await read<V1RoleBinding>(binding('kept')))?.roleRef.name === POLICY_READER,
    )
  })

  it('has the new owner once the ClusterRole is made anew, or it would be removed as left over', async () => {
    const path = `/apis/rbac.authorization.k8s.io/v1/clusterroles/${POLICY_READER}`
    await control.admin.send({ method: 'DELETE', path })
    const body = { metadata: { name: POLICY_READER }, rules: [] }
    const made = await control.admin.send<{ metadata: { uid: string } }>({
      method: 'POST',
      path: path.replace(/\/[^/]*$/, ''),
      body,
    })
    await until('both to have it', async () => {
      const found = await Promise.all([read<V1RoleBinding>(binding('kept')), read<V1ConfigMap>(configMap('kept'))])
      const owners = found.map((one) => one?.metadata?.ownerReferences?.map(({ uid }) => uid).join())
      return owners.every((owner) => owner === made.metadata.uid)
    })
  })

  it('is not fought over by two replicas', async () => {
    const second = await spawnReplica({ control, names: NAMES })
    try {
      await until('ready', async () => (await second.readyz()).status === 200)
      await createNamespace(control.admin, 'shared', { labels: LABELS })
      await until('the ConfigMap', () => read(configMap('shared')))
      await merge(configMap('shared'), { data: { 'ca.crt': 'somebody else' } })
      await until('the CA', async () => (await read<V1ConfigMap>(configMap('shared')))?.data?.['ca.crt'] === ca)
      const versions = async () => {
        const found = await Promise.all([
          read<V1RoleBinding>(binding('shared')),
          read<V1ConfigMap>(configMap('shared')),
        ])
        return found.map((one) => one?.metadata?.resourceVersion)
      }
      const before = await versions()
      await new Promise((resolve) => setTimeout(resolve, 1_000))
      expect(await versions()).toEqual(before)
    } finally {
      await second.stop()
    }
  })

  it('goes with the label, but not before the last guarded Pod', async () => {
    await createPod('kept', pod({ name: 'last' }))
    await setLabel('kept', null)
    // Applied in order, so once this is done the label's removal was looked at.
    await createNamespace(control.admin, 'later', { labels: LABELS })
    await until('a later namespace', () => read(configMap('later')))
    expect([await read(binding('kept')), await read(configMap('kept'))]).not.toContain(undefined)
    await removeObject(control.admin, 'Pod', 'last', 'kept')
    await until('both to go', async () => {
      const found = await Promise.all([read(binding('kept')), read(configMap('kept'))])
      return found.every((one) => one === undefined)
    })
  })

  it('is not taken from a namespace that never had the label, whatever has our names there', async () => {
    await createNamespace(control.admin, 'theirs')
    const path = configMap('theirs').replace(/\/[^/]*$/, '')
    await control.admin.send({ method: 'POST', path, body: { metadata: { name: 'synguard-ca' }, data: { own: 'x' } } })
    await setLabel('later', null)
    await until('the later namespace to be cleared', async () => (await read(configMap('later'))) === undefined)
    expect(await read<V1ConfigMap>(configMap('theirs'))).toMatchObject({ data: { own: 'x' } })
  })
})

describe('the mode of a labelled namespace', () => {
  const path = '/api/v1/namespaces/urgent/configmaps/synguard-mode'
  const mode = async () => (await unless(404, control.admin.send<V1ConfigMap>({ method: 'GET', path })))?.data
  const annotate = (annotations: Record<string, string | null>) => {
    const body = { metadata: { annotations } }
    const at = pathOf('Namespace', undefined, 'urgent')
    const query = { fieldManager: 'an-operator' }
    return control.admin.send({ method: 'PATCH', path: at, query, contentType: MERGE, body })
  }
  const modeIs = (wanted: string, breakGlass: string) =>
    until(`${wanted} ${breakGlass}`, async () => {
      const said = await mode()
      return said?.mode === wanted && said['break-glass'] === breakGlass
    })
  const events = async (reason: string) => {
    const { items } = await control.admin.send<CoreV1EventList>({
      method: 'GET',
      path: '/api/v1/namespaces/urgent/events',
    })
    return items.filter((event) => event.reason === reason)
  }

  it('stands in a ConfigMap that follows its annotation, and is restored', async () => {
    await createNamespace(control.admin, 'urgent', { labels: LABELS })
    await modeIs('enforce', '')
    await annotate({ 'synguard.io/mode': 'audit' })
    await modeIs('audit', '')
    await control.admin.send({ method: 'PATCH', path, contentType: MERGE, body: { data: { 'break-glass': 'off' } } })
    await modeIs('audit', '')
    await control.admin.send({ method: 'DELETE', path })
    await modeIs('audit', '')
    await annotate({ 'synguard.io/mode': null })
    await modeIs('enforce', '')
  })

  it('is overruled by break-glass, which is recorded with its reason, each time anew, and so is its end', async () => {
    const over = (await events('BreakGlassOver')).length
    await annotate({ 'synguard.io/break-glass': 'INC-7: checkout is down' })
    await modeIs('enforce', 'audit')
    const [event] = await until('the event', async () => {
      const found = await events('BreakGlass')
      return found.length > 0 && found
    })
    expect([event?.type, event?.involvedObject.kind, event?.involvedObject.name]).toEqual([
      'Warning',
      'Namespace',
      'urgent',
    ])
    expect(event?.message).toMatch(
      /refuses nothing here \(audit\) .*: INC-7: checkout is down\. Set by an-operator at 20.*Z; take it away/,
    )
    await annotate({ 'synguard.io/break-glass': 'off: INC-7' })
    await modeIs('enforce', 'off')
    await until('the second event', async () => (await events('BreakGlass')).length === 2)
    await annotate({ 'synguard.io/break-glass': null })
    await modeIs('enforce', '')
    await until('its end', async () => (await events('BreakGlassOver')).length === over + 1)
  })
})

describe('while the webhook is down', () => {
  it('labelled namespaces admit nothing new, and all others do', async () => {
    expect(await replica.stop()).toBe(0)
    const refusal = await refusalOf(createPod('shop', pod({ name: 'late' })))
    expect(refusal).toContain('failed calling webhook "pods.synguard.io"')
    expect(await readPod('shop', 'late')).toBeUndefined()
    expect(names(await createPod('plain', pod({ name: 'late' })))).toEqual([undefined, ['app']])
  })
})
