/** What applications do on Kubernetes, guarded, under policies that deny all but what is named. */
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Job, V1Pod } from '@kubernetes/client-node'
import { awaitGuarded, cleanUp, install } from './installation.ts'
import { apply, getJson, kubectl, startKubectl, until } from './kubectl.ts'
import { deployment, GUARDED, httpServer, IMAGE, namespace, podSpec, policy, service, sleeper } from './objects.ts'
import { addressOf, awaitRollouts, containersOf, fetchFrom, firstPod, listPods, REFUSED, run } from './pods.ts'

const WORK = 'work'
const DOMAIN = `${WORK}.svc.cluster.local`
/** Such a Pod may resolve names, and reach the Pods of `web`. */
const CLIENT = { app: 'client', role: 'client' }

const dnsPeers = [
  {
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
    podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
  },
]
const dnsPorts = [
  { protocol: 'UDP', port: 53 },
  { protocol: 'TCP', port: 53 },
]

const policies = () => [
  policy(WORK, 'deny-all', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] }),
  policy(WORK, 'dns', {
    podSelector: { matchLabels: { role: 'client' } },
    policyTypes: ['Egress'],
    egress: [{ to: dnsPeers, ports: dnsPorts }],
  }),
  policy(WORK, 'client-to-web', {
    podSelector: { matchLabels: { role: 'client' } },
    policyTypes: ['Egress'],
    egress: [{ to: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 8080 }] }],
  }),
  policy(WORK, 'web-admits-clients', {
    podSelector: { matchLabels: { app: 'web' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { role: 'client' } } }], ports: [{ port: 8080 }] }],
  }),
]

function clientPod(name: string, more: object): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: WORK, labels: { app: name, role: 'client' } },
    spec: podSpec(sleeper(), more),
  }
}

const fetchOnce = (name: string, url: string) => ({
  name,
  image: IMAGE,
  imagePullPolicy: 'IfNotPresent',
  command: ['timeout', '20', 'wget', '-q', '-O', '/dev/null', url],
})

function job(name: string, url: string): object {
  const { restartPolicy, ...spec } = podSpec(fetchOnce('app', url), { restartPolicy: 'Never' })
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, namespace: WORK },
    spec: {
      backoffLimit: 0,
      template: { metadata: { labels: { app: name, role: 'client' } }, spec: { ...spec, restartPolicy } },
    },
  }
}

/** Every kind of probe, each on what nobody else is let in to. */
const probed = httpServer({
  startupProbe: { exec: { command: ['test', '-f', '/tmp/index.html'] }, periodSeconds: 1 },
  readinessProbe: { httpGet: { path: '/', port: 'http' }, periodSeconds: 1 },
  livenessProbe: { tcpSocket: { port: 'http' }, periodSeconds: 1, failureThreshold: 2 },
})

function statefulSet(): object {
  return {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: { name: 'members', namespace: WORK },
    spec: {
      serviceName: 'members',
      replicas: 2,
      podManagementPolicy: 'Parallel',
      selector: { matchLabels: { app: 'members' } },
      template: { metadata: { labels: { app: 'members' } }, spec: podSpec(httpServer()) },
    },
  }
}

const workloads = () => [
  deployment(WORK, 'web', podSpec(httpServer())),
  service(WORK, 'web'),
  service(WORK, 'web-headless', { clusterIP: 'None', selector: { app: 'web' } }),
  deployment(WORK, 'probed', podSpec(probed)),
  statefulSet(),
  service(WORK, 'members', { clusterIP: 'None' }),
  policy(WORK, 'members', {
    podSelector: { matchLabels: { app: 'members' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { role: 'client' } } }] }],
  }),
  policy(WORK, 'client-to-members', {
    podSelector: { matchLabels: { role: 'client' } },
    policyTypes: ['Egress'],
    egress: [{ to: [{ podSelector: { matchLabels: { app: 'members' } } }] }],
  }),
  {
    ...(deployment(WORK, 'client', podSpec(sleeper())) as { spec: object }),
    spec: {
      selector: { matchLabels: { app: 'client' } },
      template: { metadata: { labels: CLIENT }, spec: podSpec(sleeper()) },
    },
  },
]

describe('guarded workloads under default-deny', () => {
  beforeAll(async () => {
    await install()
    await apply(namespace(WORK, GUARDED))
    await awaitGuarded(WORK)
    await apply(...policies(), ...workloads())
  })
  afterAll(() => cleanUp([WORK]))

  it('get ready: HTTP, TCP and exec probes pass although nobody is let in', async () => {
    await awaitRollouts(WORK, 'web', 'probed', 'client')
    await kubectl('-n', WORK, 'rollout', 'status', 'statefulset/members', '--timeout=120s')
    expect(await fetchFrom(WORK, 'client', `http://${await addressOf(WORK, 'probed')}:8080/`)).toBe(REFUSED)
    const [status] = (await firstPod(WORK, 'probed')).status?.containerStatuses ?? []
    expect([status?.ready, status?.restartCount]).toEqual([true, 0])
  })

  it.each([
    ['a ClusterIP', () => 'web'],
    ['a headless Service', () => 'web-headless'],
  ])('reach each other through %s, by a name that DNS resolves', async (_, name) => {
    const port = name() === 'web' ? '' : ':8080'
    expect(await fetchFrom(WORK, 'client', `http://${name()}.${DOMAIN}${port}/`)).toMatch(/^web-/)
  })

  it('reach each member of a StatefulSet by its own name', async () => {
    for (const name of ['members-0', 'members-1']) {
      expect(await fetchFrom(WORK, 'client', `http://${name}.members.${DOMAIN}:8080/`)).toBe(name)
    }
  })

  it('reach themselves through their Service', async () => {
    const { spec } = await getJson<{ spec: { clusterIP: string } }>('-n', WORK, 'service/web')
    expect(await fetchFrom(WORK, 'web', `http://${spec.clusterIP}/`)).toMatch(/^web-/)
    expect(await fetchFrom(WORK, 'web', 'http://127.0.0.1:8080/')).toMatch(/^web-/)
  })

  it('reach nothing that no policy names', async () => {
    const members = await listPods(WORK, 'members')
    const address = members[0]?.status?.podIP ?? ''
    expect(await fetchFrom(WORK, 'web', `http://${address}:8080/`)).toBe(REFUSED)
    expect(await fetchFrom(WORK, 'client', 'https://10.96.0.1/')).toBe(REFUSED)
  })

  it('have jobs that complete, and fail where what they want is denied', async () => {
    await apply(
      job('allowed', `http://web.${DOMAIN}/`),
      job('denied', `http://${await addressOf(WORK, 'probed')}:8080/`),
    )
    const ended = (name: string, type: string) =>
      until(`job ${name} to be ${type}`, async () => {
        const { status } = await getJson<V1Job>('-n', WORK, `job/${name}`)
        return status?.conditions?.some((condition) => condition.type === type && condition.status === 'True')
      })
    await Promise.all([ended('allowed', 'Complete'), ended('denied', 'Failed')])
    const pod = await getJson<{ items: V1Pod[] }>('-n', WORK, 'pods', '-l', 'app=allowed')
    expect(pod.items.map(({ status }) => status?.phase)).toEqual(['Succeeded'])
    expect(containersOf(pod.items[0] as V1Pod)).toEqual(['synguard-init', 'synguard-sidecar', 'app'])
  })

  it('have the network in their init containers, guarded there too', async () => {
    const denied = `http://${await addressOf(WORK, 'probed')}:8080/`
    await apply(
      clientPod('starts', { initContainers: [fetchOnce('first', `http://web.${DOMAIN}/`)] }),
      clientPod('waits', { initContainers: [fetchOnce('first', denied)], restartPolicy: 'Never' }),
    )
    await kubectl('-n', WORK, 'wait', '--for=condition=Ready', 'pod/starts', '--timeout=60s')
    await until('the other Pod to fail', async () => {
      const { status } = await getJson<V1Pod>('-n', WORK, 'pod/waits')
      return status?.phase === 'Failed'
    })
    expect(containersOf(await getJson<V1Pod>('-n', WORK, 'pod/starts'))).toEqual([
      'synguard-init',
      'synguard-sidecar',
      'first',
      'app',
    ])
  })

  it('roll out anew, and the old Pods end', async () => {
    const old = (await firstPod(WORK, 'web')).metadata?.name
    await kubectl('-n', WORK, 'set', 'env', 'deployment/web', 'VERSION=2')
    await awaitRollouts(WORK, 'web')
    await until('the old Pod to be gone', async () => {
      const pods = await getJson<{ items: V1Pod[] }>('-n', WORK, 'pods', '-l', 'app=web')
      return pods.items.every(({ metadata }) => metadata?.name !== old)
    })
    expect(await fetchFrom(WORK, 'client', `http://web.${DOMAIN}/`)).toMatch(/^web-/)
  })

  it('can be looked into: exec, logs, port-forward', async () => {
    expect((await run(WORK, 'web', 'echo', 'here')).stdout).toBe('here\n')
    expect(await kubectl('-n', WORK, 'logs', 'deployment/web', '--all-containers')).toContain('identity obtained')
    const forward = startKubectl(['-n', WORK, 'port-forward', 'deployment/web', ':8080'])
    try {
      const port = await until('port-forward', async () => /127\.0\.0\.1:(\d+)/.exec(forward.said())?.[1])
      const answer = await fetch(`http://127.0.0.1:${port}/`)
      expect(await answer.text()).toMatch(/^web-/)
    } finally {
      await forward.stop()
    }
  })

  it('are not reached from outside of the cluster', async () => {
    const address = await addressOf(WORK, 'probed')
    const outcome = await new Promise<string>((done) => {
      const socket = connect({ host: address, port: 8080, timeout: 3_000 })
      socket
        .once('connect', () => done('reached'))
        .once('error', (error: NodeJS.ErrnoException) => done(error.code ?? ''))
      socket.once('timeout', () => done('timeout'))
    })
    expect(['ECONNREFUSED', 'timeout', 'EHOSTUNREACH']).toContain(outcome)
  })
})
