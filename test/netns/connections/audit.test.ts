/** What audit says that enforcing would refuse, and what enforcing then refuses: sidecars as they run in a cluster. */
import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import {
  type AuditReport,
  type FlowsReport,
  PATH_AUDIT,
  PATH_FLOWS,
  type ReportedDenial,
} from '../../../api/reports.ts'
import type { Agent } from '../../../lab/agent-client.ts'
import { isReached } from '../../../lab/agent-protocol.ts'
import type { Lab } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { addressOf, createTestLab, putPolicy } from '../../lab/objects.ts'

const TCP = 8080
const UDP = 5353
const SIDECAR = 15_900

let lab: Lab
const pods: Record<string, RunningPod> = {}

async function runPod(namespace: string, name: string, labels: Record<string, string>): Promise<void> {
  const ports = [
    { containerPort: TCP, protocol: 'TCP' },
    { containerPort: UDP, protocol: 'UDP' },
  ]
  pods[name] = await lab.runPod(
    await lab.admitPod({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace, name, labels },
      spec: { containers: [{ name: 'app', image: 'app', ports }] },
    }),
  )
}

const setMode = (mode: string) =>
  lab.putNamespace({
    metadata: {
      name: 'guarded',
      labels: { 'synguard.io/inject': 'enabled' },
      annotations: { 'synguard.io/mode': mode },
    },
  })

let service = ''
beforeAll(async () => {
  lab = await createTestLab()
  await setMode('audit')
  const friends = [{ namespaceSelector: {}, podSelector: { matchLabels: { friend: 'yes' } } }]
  putPolicy(lab, 'server', {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: friends }],
  })
  putPolicy(lab, 'client', {
    podSelector: { matchLabels: { app: 'client' } },
    policyTypes: ['Egress'],
    egress: [{ to: friends }],
  })
  await Promise.all([
    runPod('guarded', 'server', { app: 'server', friend: 'yes' }),
    runPod('guarded', 'client', { app: 'client', friend: 'yes' }),
    // Named as a Deployment's Pod.
    runPod('guarded', 'stranger-6b9f8d4c5-x2x4z', { app: 'stranger', 'pod-template-hash': '6b9f8d4c5' }),
    runPod('plain', 'plain-friend', { friend: 'yes' }),
    runPod('plain', 'plain-stranger', {}),
  ])
  const made = await lab.putService({
    metadata: { namespace: 'guarded', name: 'stranger' },
    spec: { selector: { app: 'stranger' }, ports: [{ port: 80, targetPort: TCP }] },
  })
  service = made.spec?.clusterIPs?.find((address) => !address.includes(':')) ?? ''
}, 120_000)
afterAll(async () => await lab?.stop())

const podOf = (name: string) => pods[name === 'stranger' ? 'stranger-6b9f8d4c5-x2x4z' : name] as RunningPod
const agentOf = (name: string): Agent =>
  name === 'node' ? lab.node : name === 'external' ? lab.external : podOf(name).agent
const addressNamed = (to: string) => (to === 'service' ? service : addressOf(podOf(to)))

const ATTEMPTS = [
  ['client', 'server', TCP, 'TCP', true],
  ['client', 'server', UDP, 'UDP', true],
  ['plain-friend', 'server', TCP, 'TCP', true],
  ['stranger', 'server', TCP, 'TCP', false],
  ['stranger', 'server', UDP, 'UDP', false],
  ['plain-stranger', 'server', TCP, 'TCP', false],
  ['plain-stranger', 'server', UDP, 'UDP', false],
  ['external', 'server', TCP, 'TCP', false],
  ['node', 'server', TCP, 'TCP', false],
  ['client', 'stranger', TCP, 'TCP', false],
  ['client', 'service', 80, 'TCP', false],
  ['client', 'plain-stranger', TCP, 'TCP', false],
  ['client', 'plain-stranger', UDP, 'UDP', false],
] as const

/** Tries all, one after the other; which of them were reached. */
async function tryAll(): Promise<boolean[]> {
  const reached: boolean[] = []
  for (const [from, to, port, protocol] of ATTEMPTS) {
    const target = { protocol, address: addressNamed(to), port }
    reached.push(isReached(await agentOf(from).ask({ do: 'reach', target, timeoutMs: 4_000 })))
  }
  return reached
}

async function ask<Report>(name: string, path: string): Promise<Report> {
  const request = { do: 'httpGet', address: '127.0.0.1', port: SIDECAR, path, timeoutMs: 5_000 } as const
  const { status, body } = await agentOf(name).ask(request)
  if (status !== 200) throw new Error(`${name} answers ${status}: ${body}`)
  return JSON.parse(body) as Report
}

async function metricsOf(name: string): Promise<string> {
  const request = { do: 'httpGet', address: '127.0.0.1', port: SIDECAR, path: '/metrics', timeoutMs: 5_000 } as const
  return (await agentOf(name).ask(request)).body
}

const described = ({ direction, protocol, port, peer, policies, reason }: ReportedDenial): string => {
  const who = peer.pod === undefined ? peer.address : `${peer.pod.namespace}/${peer.pod.workload}`
  return `${direction} ${protocol} ${port} ${peer.kind} ${who}: ${reason} by ${policies.join()}`
}

/** What each end said of denials in that mode. */
async function denialsOf(name: string, enforced: boolean): Promise<string[]> {
  const { denials, unlistedDenials } = await ask<AuditReport>(name, PATH_AUDIT)
  expect(unlistedDenials).toBe(0)
  return denials
    .filter((denial) => denial.enforced === enforced)
    .map(described)
    .sort()
}

/** A report is made at most once a second. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error('it did not take effect')
    await new Promise((done) => setTimeout(done, 200))
  }
}

const AT_SERVER = [
  'ingress TCP 8080 address 203.0.113.10: policy by guarded/server',
  'ingress TCP 8080 address NODE: policy by guarded/server',
  'ingress TCP 8080 attested plain/pod/plain-stranger: policy by guarded/server',
  'ingress TCP 8080 identified guarded/deployment/stranger: policy by guarded/server',
  'ingress UDP 5353 attested guarded/deployment/stranger: policy by guarded/server',
  'ingress UDP 5353 attested plain/pod/plain-stranger: policy by guarded/server',
]
const AT_CLIENT = [
  'egress TCP 8080 attested plain/pod/plain-stranger: policy by guarded/client',
  // Behind the Service too: the real port is what policies see.
  'egress TCP 8080 identified guarded/deployment/stranger: policy by guarded/client',
  'egress UDP 5353 attested plain/pod/plain-stranger: policy by guarded/client',
]
const withoutNode = (rows: readonly string[]) =>
  rows.map((row) => row.replace(/address (?!203)[\d.]+:/, 'address NODE:')).sort()

describe('audit', () => {
  it('refuses nothing, and says at each end whom enforcing would refuse, once a connection', async () => {
    expect(await tryAll()).toEqual(ATTEMPTS.map(() => true))
    expect(withoutNode(await denialsOf('server', false))).toEqual(AT_SERVER)
    expect(await denialsOf('client', false)).toEqual(AT_CLIENT)
    expect([await denialsOf('server', true), await denialsOf('client', true)]).toEqual([[], []])
    const { denials, mode, pod } = await ask<AuditReport>('server', PATH_AUDIT)
    expect({ mode, pod }).toEqual({
      mode: 'audit',
      pod: { namespace: 'guarded', name: 'server', workload: 'pod/server' },
    })
    expect(denials.map(({ count }) => count)).toEqual(denials.map(() => 1))
    const atClient = await ask<AuditReport>('client', PATH_AUDIT)
    expect(atClient.denials.map(({ peer, count }) => [peer.pod?.workload, count])).toEqual(
      expect.arrayContaining([['deployment/stranger', 2]]),
    )
  }, 120_000)

  it('names the connections that run and would end, and shows them with their peer, bytes and age', async () => {
    const target = { protocol: 'TCP', address: addressOf(podOf('server')), port: TCP } as const
    const before = Date.now()
    expect(isReached(await agentOf('stranger').ask({ do: 'open', target, connection: 'stays' }))).toBe(true)
    await until(async () => (await ask<FlowsReport>('server', PATH_FLOWS)).flows.some(({ bytes }) => bytes !== null))
    // Flows of UDP are forgotten half a minute after their last datagram.
    const running = async () =>
      (await ask<AuditReport>('server', PATH_AUDIT)).running.filter(({ protocol }) => protocol === 'TCP')
    await until(async () => (await running()).length > 0)
    expect(await running()).toMatchObject([
      {
        direction: 'ingress',
        port: TCP,
        count: 1,
        policies: ['guarded/server'],
        peer: { kind: 'identified', pod: { namespace: 'guarded', workload: 'deployment/stranger' } },
      },
    ])
    const { flows, accounting } = await ask<FlowsReport>('server', PATH_FLOWS)
    const flow = flows.find(({ bytes }) => bytes !== null)
    expect(flow).toMatchObject({
      direction: 'ingress',
      protocol: 'TCP',
      localPort: TCP,
      remote: addressOf(podOf('stranger')),
      allowed: false,
      decidedBy: 'guarded/server',
      bytes: { received: 0, by: 'socket' },
    })
    // The server speaks first.
    expect(flow?.bytes?.sent).toBeGreaterThan(0)
    expect(Math.abs(Date.parse(flow?.opened ?? '') - before)).toBeLessThan(60_000)
    expect(accounting).toBe(false)
    const { flows: atClient } = await ask<FlowsReport>('stranger', PATH_FLOWS)
    expect(atClient.find(({ bytes }) => bytes !== null)).toMatchObject({
      direction: 'egress',
      remotePort: TCP,
      peer: { kind: 'identified', pod: { namespace: 'guarded', name: 'server', workload: 'pod/server' } },
      allowed: true,
      decidedBy: 'not isolated',
    })
  }, 60_000)

  it('leaves out what the policies allow by now, and has it again', async () => {
    const admitAnybody = (app: string) =>
      putPolicy(lab, 'anybody', { podSelector: { matchLabels: { app } }, ingress: [{}] })
    admitAnybody('server')
    const standing = async (name: string) =>
      (await ask<AuditReport>(name, PATH_AUDIT)).denials.filter(({ stands }) => stands).length
    await until(async () => (await standing('server')) === 0)
    expect((await ask<AuditReport>('server', PATH_AUDIT)).running).toEqual([])
    admitAnybody('nobody')
    await until(async () => (await standing('server')) === AT_SERVER.length)
  }, 60_000)

  it('shows the bytes of datagrams, and when a flow began, where the kernel keeps them', async () => {
    const netns = podOf('server').network.netns
    for (const name of ['acct', 'timestamp']) {
      execFileSync('ip', ['netns', 'exec', netns, 'sysctl', '-qw', `net.netfilter.nf_conntrack_${name}=1`])
    }
    const target = { protocol: 'UDP', address: addressOf(podOf('server')), port: UDP } as const
    const before = Date.now()
    expect(isReached(await agentOf('client').ask({ do: 'reach', target, timeoutMs: 4_000 }))).toBe(true)
    const isCounted = ({ bytes }: FlowsReport['flows'][number]) => bytes?.by === 'conntrack'
    await until(async () => (await ask<FlowsReport>('server', PATH_FLOWS)).flows.some(isCounted))
    const { flows, accounting } = await ask<FlowsReport>('server', PATH_FLOWS)
    expect(accounting).toBe(true)
    const flow = flows.find(isCounted)
    expect(flow).toMatchObject({ protocol: 'UDP', localPort: UDP, peer: { pod: { name: 'client' } } })
    // With the headers of IP and UDP.
    expect(Math.min(flow?.bytes?.sent ?? 0, flow?.bytes?.received ?? 0)).toBeGreaterThan(28)
    expect(Math.abs(Date.parse(flow?.opened ?? '') - before)).toBeLessThan(60_000)
  }, 60_000)

  it('tells no other Pod', async () => {
    const address = addressOf(podOf('server'))
    for (const path of [PATH_AUDIT, PATH_FLOWS]) {
      const request = { do: 'httpGet', address, port: SIDECAR, path, timeoutMs: 5_000 } as const
      for (const from of ['plain-friend', 'node']) {
        expect(await agentOf(from).ask(request)).toMatchObject({ status: 403 })
      }
    }
  }, 60_000)
})

describe('enforce', () => {
  it('refuses exactly these, ends the connection that was named, and tells the same of it', async () => {
    await setMode('enforce')
    expect(await agentOf('stranger').ask({ do: 'ended', connection: 'stays', timeoutMs: 20_000 })).toMatchObject({
      how: 'ECONNRESET',
    })
    await until(async () => (await ask<FlowsReport>('client', PATH_FLOWS)).mode === 'enforce')
    expect(await tryAll()).toEqual(ATTEMPTS.map(([, , , , allowed]) => allowed))
    await until(async () => (await denialsOf('server', true)).length >= AT_SERVER.length)
    expect(withoutNode(await denialsOf('server', true))).toEqual(AT_SERVER)
    expect(await denialsOf('client', true)).toEqual(AT_CLIENT)
    await until(async () => (await ask<FlowsReport>('client', PATH_FLOWS)).refusals.some(({ enforced }) => enforced))
    const { refusals } = await ask<FlowsReport>('client', PATH_FLOWS)
    expect(refusals.map(({ enforced }) => enforced)).toEqual([true, true, true, false, false, false])
    expect(refusals[0]).toMatchObject({ policies: ['guarded/client'] })
    // Which makes Events of it where there is an API server.
    await until(async () =>
      /^synguard_issuer_requests_total\{endpoint="\/v1\/refusals",code="200"\} 1$/m.test(await metricsOf('client')),
    )
  }, 120_000)
})
