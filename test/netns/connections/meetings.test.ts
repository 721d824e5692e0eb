import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { Agent } from '../../../lab/agent-client.ts'
import { isReached } from '../../../lab/agent-protocol.ts'
import { createLab, type Lab } from '../../../lab/lab.ts'
import { LAB_ADDRESSES } from '../../../lab/network.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { putPolicy } from '../../lab/objects.ts'

const TCP = 8080
const PROBED = 8081
const UDP = 5353

let lab: Lab
const pods: Record<string, RunningPod> = {}

async function runPod(namespace: string, name: string, labels: Record<string, string>): Promise<void> {
  const ports = [
    { containerPort: TCP, protocol: 'TCP' },
    { containerPort: PROBED, protocol: 'TCP' },
    { containerPort: UDP, protocol: 'UDP' },
  ]
  const readinessProbe = { tcpSocket: { port: PROBED } }
  pods[name] = await lab.runPod(
    await lab.admitPod({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace, name, labels },
      spec: { containers: [{ name: 'app', image: 'app', ports, readinessProbe }] },
    }),
  )
}

const policy = (name: string, spec: object) => putPolicy(lab, name, spec)

const guardNamespace = (annotations: Record<string, string> = {}) =>
  lab.putNamespace({
    metadata: { name: 'guarded', labels: { 'synguard.io/inject': 'enabled', team: 'guarded' }, annotations },
  })

beforeAll(async () => {
  lab = await createLab({ witLifetimeSeconds: 20 })
  await guardNamespace()
  await lab.putNamespace({ metadata: { name: 'plain', labels: { team: 'plain' } } })
  // The server admits friends of any namespace and one block outside; the client may reach friends and the server.
  policy('server', {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [
      { from: [{ namespaceSelector: {}, podSelector: { matchLabels: { friend: 'yes' } } }] },
      { from: [{ ipBlock: { cidr: '203.0.113.0/24' } }], ports: [{ port: TCP }] },
    ],
  })
  policy('client', {
    podSelector: { matchLabels: { app: 'client' } },
    policyTypes: ['Egress'],
    egress: [{ to: [{ namespaceSelector: {}, podSelector: { matchLabels: { friend: 'yes' } } }] }],
  })
  await Promise.all([
    runPod('guarded', 'server', { app: 'server', friend: 'yes' }),
    runPod('guarded', 'client', { app: 'client', friend: 'yes' }),
    runPod('guarded', 'stranger', { app: 'stranger' }),
    runPod('plain', 'plain-friend', { app: 'plain', friend: 'yes' }),
    runPod('plain', 'plain-stranger', { app: 'plain' }),
  ])
}, 120_000)
afterAll(async () => await lab?.stop())

const agentOf = (name: string): Agent =>
  name === 'node' ? lab.node : name === 'external' ? lab.external : (pods[name] as RunningPod).agent

async function reaches(from: string, to: string, port = TCP, protocol: 'TCP' | 'UDP' = 'TCP'): Promise<boolean> {
  const address = pods[to]?.network.addresses[0] ?? to
  const target = { protocol, address, port }
  return isReached(await agentOf(from).ask({ do: 'reach', target, timeoutMs: protocol === 'UDP' ? 3_000 : 6_000 }))
}

/** The sidecar's metrics; the packet path tells its counters once a second. */
async function metricsOf(name: string): Promise<string> {
  const request = { do: 'httpGet', address: '127.0.0.1', port: 15900, path: '/metrics', timeoutMs: 5_000 } as const
  return (await agentOf(name).ask(request)).body
}

/** Waits for a change to take effect, at most ten times its target of two seconds. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error('it did not take effect')
    await new Promise((done) => setTimeout(done, 100))
  }
}

describe('who meets whom', () => {
  it.each([
    ['guarded, allowed by both ends', 'client', 'server', TCP, 'TCP', true],
    ['guarded, denied by the server', 'stranger', 'server', TCP, 'TCP', false],
    ['guarded, denied by the client', 'client', 'stranger', TCP, 'TCP', false],
    ['guarded to an unguarded friend', 'client', 'plain-friend', TCP, 'TCP', true],
    ['guarded to an unguarded stranger', 'client', 'plain-stranger', TCP, 'TCP', false],
    ['guarded without an egress policy to anybody', 'stranger', 'plain-stranger', TCP, 'TCP', true],
    ['an unguarded friend to guarded', 'plain-friend', 'server', TCP, 'TCP', true],
    ['an unguarded stranger to guarded', 'plain-stranger', 'server', TCP, 'TCP', false],
    ['unguarded to unguarded', 'plain-stranger', 'plain-friend', TCP, 'TCP', true],
    ['an address outside in its ipBlock', 'external', 'server', TCP, 'TCP', true],
    ['an address outside on another port', 'external', 'server', PROBED, 'TCP', false],
    ['the own node on a probed port', 'node', 'server', PROBED, 'TCP', true],
    ['the own node on another port', 'node', 'server', TCP, 'TCP', false],
    ['guarded to the outside, denied', 'client', '203.0.113.10', TCP, 'TCP', false],
    ['datagrams, allowed by both ends', 'client', 'server', UDP, 'UDP', true],
    ['datagrams, denied by the server', 'stranger', 'server', UDP, 'UDP', false],
    ['datagrams, denied by the client', 'client', 'plain-stranger', UDP, 'UDP', false],
    ['datagrams of an unguarded friend', 'plain-friend', 'server', UDP, 'UDP', true],
    ['datagrams of an unguarded stranger', 'plain-stranger', 'server', UDP, 'UDP', false],
  ] as const)('%s: %s to %s, port %d/%s: %s', async (_what, from, to, port, protocol, expected) => {
    expect(await reaches(from, to, port, protocol)).toBe(expected)
  })

  it('a first contact by several datagrams at once loses none of them', async () => {
    // It knows nobody yet: its first datagram waits for the directory, and so do those behind it.
    await runPod('guarded', 'newcomer', { app: 'client', friend: 'yes' })
    const address = pods.server?.network.addresses[0] ?? ''
    const target = { protocol: 'UDP', address, port: UDP } as const
    expect(await agentOf('newcomer').ask({ do: 'burst', target, count: 4, timeoutMs: 4_000 })).toBe(4)
  })

  it('a Pod reaches itself through a Service, and proves it', async () => {
    const service = await lab.putService({
      metadata: { namespace: 'guarded', name: 'self' },
      spec: { selector: { app: 'server' }, ports: [{ port: 80, targetPort: TCP }] },
    })
    for (const address of service.spec?.clusterIPs ?? []) expect(await reaches('server', address, 80)).toBe(true)
  })

  it('a Pod that policies let reach nobody reaches itself through a Service, and only itself', async () => {
    policy('hermit', { podSelector: { matchLabels: { app: 'hermit' } }, policyTypes: ['Ingress', 'Egress'] })
    await runPod('guarded', 'hermit', { app: 'hermit' })
    const service = await lab.putService({
      metadata: { namespace: 'guarded', name: 'hermit' },
      spec: { selector: { app: 'hermit' }, ports: [{ port: 80, targetPort: TCP }] },
    })
    for (const address of service.spec?.clusterIPs ?? []) expect(await reaches('hermit', address, 80)).toBe(true)
    const others = await lab.putService({
      metadata: { namespace: 'guarded', name: 'others' },
      spec: { selector: { friend: 'yes' }, ports: [{ port: 80, targetPort: TCP }] },
    })
    for (const to of others.spec?.clusterIPs ?? []) expect(await reaches('hermit', to, 80)).toBe(false)
    expect(await reaches('hermit', 'server')).toBe(false)
  })

  it('a Service of unguarded Pods is allowed where every backend is', async () => {
    const service = await lab.putService({
      metadata: { namespace: 'plain', name: 'mixed' },
      spec: { selector: { app: 'plain' }, ports: [{ port: 80, targetPort: TCP }] },
    })
    const address = service.spec?.clusterIP ?? ''
    expect(await reaches('client', address, 80)).toBe(false)
    await lab.relabelPod('plain/plain-stranger', { app: 'plain', friend: 'yes' })
    await until(() => reaches('client', address, 80))
    await lab.relabelPod('plain/plain-stranger', { app: 'plain' })
    await until(async () => !(await reaches('client', address, 80)))
  }, 60_000)
})

describe('the node’s ports', () => {
  async function expose(namespace: string, nodePort: number, selector: Record<string, string>, policy = 'Cluster') {
    await lab.putService({
      metadata: { namespace, name: `exposed-${nodePort}` },
      spec: {
        type: 'NodePort',
        externalTrafficPolicy: policy,
        selector,
        ports: [{ port: 80, targetPort: TCP, nodePort }],
      },
    })
  }

  it.each([
    ['unguarded Pods that are all allowed', 'plain', 30_080, { friend: 'yes' }, 'Cluster', true],
    ['unguarded Pods of which one is not', 'plain', 30_081, { app: 'plain' }, 'Cluster', false],
    ['a guarded Pod that sees who connects', 'guarded', 30_082, { app: 'server' }, 'Local', true],
    ['a guarded Pod that sees the node in the client’s place', 'guarded', 30_083, { app: 'server' }, 'Cluster', false],
  ] as const)(
    'lead to %s',
    async (_what, namespace, port, selector, policy, expected) => {
      await expose(namespace, port, selector, policy)
      for (const address of LAB_ADDRESSES.node) expect(await reaches('client', address, port)).toBe(expected)
      // What is refused here is reached, or would be, but for a sidecar's word.
      expect(await reaches('plain-friend', LAB_ADDRESSES.node[0], port)).toBe(namespace === 'plain' || expected)
    },
    60_000,
  )
})

describe('changes while all run', () => {
  it('labels of a guarded Pod count at its peers without a restart, and back', async () => {
    await lab.relabelPod('guarded/stranger', { app: 'stranger', friend: 'yes' })
    await until(() => reaches('stranger', 'server'))
    await lab.relabelPod('guarded/stranger', { app: 'stranger' })
    await until(async () => !(await reaches('stranger', 'server')))
  }, 60_000)

  it('audit lets a denied connection pass and counts it, off passes it, enforce refuses it again', async () => {
    for (const mode of ['audit', 'off']) {
      await guardNamespace({ 'synguard.io/mode': mode })
      await until(() => reaches('stranger', 'server'))
    }
    await guardNamespace()
    await until(async () => !(await reaches('stranger', 'server')))
    await until(async () =>
      /^synguard_would_deny_total\{direction="ingress",reason="policy"\} [1-9]/m.test(await metricsOf('server')),
    )
    expect(await metricsOf('server')).toMatch(/^synguard_mode\{mode="enforce"\} 1$/m)
  }, 60_000)

  it('identities are renewed twice and more while connections are made: none fails', async () => {
    const started = Date.now()
    const failed: number[] = []
    while (Date.now() - started < 25_000) {
      if (!(await reaches('client', 'server'))) failed.push(Date.now() - started)
    }
    expect(failed).toEqual([])
    const renewals = /^synguard_identity_renewals_total\{result="ok"\} (\d+)$/m.exec(await metricsOf('client'))
    expect(Number(renewals?.[1])).toBeGreaterThan(2)
  }, 60_000)
})
