/**
 * Datagrams through one guarded Pod: resolvers' queries, each a flow of its own and so a decision of its own, and a flood of
 * them, which has a queue of its own to fill.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { QUEUE_OTHER, QUEUE_TCP } from '../../../api/names.ts'
import { runCommand, writeSysctls } from '../../../lab/command.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { QUEUE_OTHER_PACKETS } from '../../../sidecar/datapath/bounds.ts'
import { addressOf, putPolicy } from '../../lab/objects.ts'
import { compile, inside } from '../../lab/programs.ts'
import { createField, type Field, pause, print, signalSidecar } from './field.ts'

const DNS_PORT = 53
const QUERIES_PER_SECOND = 2_000
const SECONDS = 2

interface Asked {
  readonly sent: number
  readonly answered: number
  readonly wrong: number
  readonly p50: number
  readonly p99: number
  readonly slowest: number
  readonly firstError: string
}

let field: Field
let dns: string
/** May reach the DNS servers' port 53 and the TCP server, and nothing else. */
let client: RunningPod
let server: RunningPod
let resolvers: Readonly<Record<'plain' | 'guarded', RunningPod>>
/** Of the plain one. */
let serviceAddress: string

beforeAll(async () => {
  field = await createField()
  // Services lead from Pod to Pod by the node's rules.
  await writeSysctls(field.lab.network.node, ['net.bridge.bridge-nf-call-iptables=1'])
  dns = await compile(join(import.meta.dirname, 'dns.c'), field.lab.run.directory)
  const toDns = { to: [{ namespaceSelector: {}, podSelector: { matchLabels: { app: 'dns' } } }] }
  putPolicy(field.lab, 'client', {
    podSelector: { matchLabels: { app: 'client' } },
    policyTypes: ['Egress'],
    egress: [
      { ...toDns, ports: [{ protocol: 'UDP', port: DNS_PORT }] },
      { to: [{ podSelector: { matchLabels: { app: 'server' } } }], ports: [{ protocol: 'TCP' }] },
    ],
  })
  putPolicy(field.lab, 'dns', {
    podSelector: { matchLabels: { app: 'dns' } },
    policyTypes: ['Ingress'],
    ingress: [
      { from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ protocol: 'UDP', port: DNS_PORT }] },
    ],
  })
  const [one, two, plain, guarded] = await Promise.all([
    field.runPod('guarded', 'client'),
    field.runPod('guarded', 'server'),
    field.runPod('plain', 'dns'),
    field.runPod('guarded', 'dns'),
  ])
  client = one
  server = two
  resolvers = { plain, guarded }
  await field.rig.serveLoad(server)
  for (const pod of [plain, guarded]) {
    const child = spawn('ip', inside(pod, dns, 'serve', String(DNS_PORT)))
    await once(child.stdout, 'data')
  }
  const service = await field.lab.putService({
    metadata: { namespace: 'plain', name: 'dns' },
    spec: { selector: { app: 'dns' }, ports: [{ port: DNS_PORT, protocol: 'UDP' }] },
  })
  serviceAddress = service.spec?.clusterIP ?? ''
}, 90_000)
afterAll(async () => await field?.stop())

async function ask(address: string, perSecond: number, count: number): Promise<Asked> {
  const words = [dns, 'ask', address, ...[DNS_PORT, perSecond, count].map(String)]
  return JSON.parse(await runCommand('ip', inside(client, ...words), { timeoutMs: 60_000 }))
}

/** Of the client's queues: packets that wait, those dropped for want of a place, and of room in the socket. */
async function queues() {
  const text = await runCommand('ip', inside(client, 'cat', '/proc/net/netfilter/nfnetlink_queue'))
  const rows = text
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
  const rowOf = (queue: number) => {
    const [, , waiting = 0, , , withoutPlace = 0, withoutRoom = 0] = rows.find(([number]) => number === queue) ?? []
    return { waiting, withoutPlace, withoutRoom }
  }
  return { tcp: rowOf(QUEUE_TCP), other: rowOf(QUEUE_OTHER) }
}

describe(`${QUERIES_PER_SECOND} DNS queries a second, each from a port of its own, through a Pod that may reach nothing else`, () => {
  it.each([
    ['to a Pod without a sidecar', () => addressOf(resolvers.plain)],
    ['through its Service', () => serviceAddress],
    ['to a guarded Pod, judged at both ends', () => addressOf(resolvers.guarded)],
  ])(
    'lose none: %s',
    async (how, address) => {
      const count = QUERIES_PER_SECOND * SECONDS
      const before = await field.metrics(client)
      const asked = await ask(address(), QUERIES_PER_SECOND, count)
      const after = await field.metrics(client)
      const queued = after.sum('packets_queued_total', '"datagram"') - before.sum('packets_queued_total', '"datagram"')
      print(`DNS ${how}:`, JSON.stringify(asked), `${queued} datagrams queued at the client`)
      expect(asked).toMatchObject({ sent: count, answered: count, wrong: 0, firstError: '' })
      // Each was decided: none passed by what another's had been.
      expect(queued).toBeGreaterThan(count / 2)
      expect(await queues()).toMatchObject({ tcp: { withoutPlace: 0 }, other: { withoutPlace: 0, withoutRoom: 0 } })
    },
    60_000,
  )

  it('reach no other port of the DNS server, and no other server', async () => {
    const words = (address: string, port: number) => [dns, 'ask', address, String(port), '20', '5']
    const others = [words(addressOf(resolvers.plain), 5353), words(addressOf(server), DNS_PORT)]
    for (const command of others) {
      const asked: Asked = JSON.parse(await runCommand('ip', inside(client, ...command), { timeoutMs: 20_000 }))
      expect(asked.answered).toBe(0)
      expect(asked.firstError).toBe('EHOSTUNREACH')
    }
  })
})

describe('a workload that floods with datagrams while its sidecar stands still', () => {
  it.each([100, 1_400])(
    'of %d bytes fills a queue of its own to its bound: TCP keeps its place, and goes on once the sidecar does',
    async (bytes) => {
      const before = await queues()
      let connecting: ReturnType<typeof field.pace> | undefined
      let during: Awaited<ReturnType<typeof queues>>
      signalSidecar(client, 'SIGSTOP')
      try {
        const words = [dns, 'flood', '10.244.250.250', '5000', '1', String(bytes)]
        await runCommand('ip', inside(client, ...words), { timeoutMs: 20_000 })
        connecting = field.pace(client, server, 20, 10)
        await pause(800)
        during = await queues()
      } finally {
        signalSidecar(client, 'SIGCONT')
      }
      const { succeeded, slowest } = await connecting
      const refused = during.other.withoutPlace + during.other.withoutRoom
      const dropped = refused - before.other.withoutPlace - before.other.withoutRoom
      print(
        `5,000 datagrams of ${bytes} bytes: ${during.other.waiting} waited, ${dropped} dropped; of TCP`,
        `${during.tcp.waiting} waited, ${during.tcp.withoutRoom - before.tcp.withoutRoom} dropped; slowest of 10: ${slowest} ms`,
      )
      expect(during.other.waiting).toBeLessThanOrEqual(QUEUE_OTHER_PACKETS)
      expect(dropped).toBeGreaterThan(0)
      expect(during.tcp.withoutRoom - before.tcp.withoutRoom).toBe(0)
      expect(succeeded).toBe(10)
      // Nothing of it is left: queries are answered again.
      expect(await ask(addressOf(resolvers.plain), 200, 200)).toMatchObject({ answered: 200 })
    },
    60_000,
  )
})
