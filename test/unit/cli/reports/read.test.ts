import { connect } from 'node:net'
import { afterEach, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import fc from 'fast-check'
import { PATH_AUDIT, PATH_FLOWS } from '../../../../api/reports.ts'
import { formatFlows } from '../../../../cli/reports/format.ts'
import { parseAuditReport, parseFlowsReport } from '../../../../cli/reports/parse.ts'
import { readReport } from '../../../../cli/reports/read.ts'
import { createHealthServer, type HealthServer } from '../../../../sidecar/control/health.ts'
import { createMetrics } from '../../../../sidecar/control/metrics.ts'

const AT = '2026-01-01T00:00:00.000Z'
const POD = { namespace: 'shop', name: 'web-x', workload: 'pod/web-x' }
const PEER = { kind: 'identified', address: '10.244.0.9', pod: { ...POD, name: 'db-0', workload: 'statefulset/db' } }
const HEAD = { pod: POD, mode: 'audit', at: AT, since: AT }
const RUNNING = { direction: 'ingress', protocol: 'TCP', port: 80, peer: PEER, policies: ['shop/a'], count: 2 }
const DENIAL = { ...RUNNING, reason: 'policy', enforced: false, stands: true, first: AT, last: AT }
const AUDIT = { ...HEAD, denials: [DENIAL], unlistedDenials: 1, running: [RUNNING], unlistedRunning: 0 }
const FLOW = {
  direction: 'egress',
  protocol: 'TCP',
  local: '10.244.0.2',
  localPort: 40_000,
  remote: '10.244.0.9',
  remotePort: 5432,
  peer: PEER,
  decidedBy: 'shop/db rule 0',
  allowed: true,
  bytes: { sent: 100, received: 3_000_000, by: 'socket' },
  opened: AT,
}
const FLOWS = { ...HEAD, flows: [FLOW], total: 1, accounting: false, refusals: [DENIAL] }

const pod = (phase = 'Running'): V1Pod => ({
  metadata: { namespace: 'shop', name: 'web-x' },
  spec: {
    containers: [],
    initContainers: [{ name: 'synguard-sidecar', env: [{ name: 'SYNGUARD_HEALTH_PORT', value: '15999' }] }],
  },
  status: { phase },
})

let server: HealthServer | undefined
afterEach(async () => await server?.close())

/** A sidecar's own server, reached as port-forward reaches it. */
async function serve(documents: Readonly<Record<string, () => unknown>>) {
  server = await createHealthServer({
    port: 0,
    live: () => [],
    conditions: () => [],
    registry: createMetrics().registry,
    documents,
  })
  const asked: unknown[] = []
  const { port } = server
  const openPort = async (...at: readonly unknown[]) => {
    asked.push(at)
    return connect(port, '127.0.0.1')
  }
  return { openPort, asked }
}

describe('a sidecar’s report', () => {
  it('is read at its port, and is of the Pod that was asked, whatever it says', async () => {
    const { openPort, asked } = await serve({ [PATH_AUDIT]: () => ({ ...AUDIT, pod: { ...POD, name: 'another' } }) })
    expect(await readReport(openPort, pod(), PATH_AUDIT, parseAuditReport)).toEqual(AUDIT)
    expect(asked).toEqual([['shop', 'web-x', 15_999]])
  })

  it.each([
    ['its version has none', {}, pod(), 'its sidecar is of a version that has no such report'],
    [
      'it is none',
      { [PATH_AUDIT]: () => ({ ...AUDIT, mode: 'lax' }) },
      pod(),
      'no report: mode is none of enforce, audit, off',
    ],
    ['it fails', { [PATH_AUDIT]: () => Promise.reject(new Error('x')) }, pod(), 'its sidecar answers 500'],
    ['the Pod waits', {}, pod('Pending'), 'it is Pending'],
    ['it is too large', { [PATH_AUDIT]: () => 'x'.repeat(9 << 20) }, pod(), 'larger than any report'],
  ] as const)('says why it cannot be read: %s', async (_what, documents, of, message) => {
    const { openPort } = await serve(documents)
    await expect(readReport(openPort, of, PATH_AUDIT, parseAuditReport)).rejects.toThrow(message)
  })

  it('says what port-forward says', async () => {
    const openPort = () => Promise.reject(new Error('you may not create pods/portforward'))
    await expect(readReport(openPort, pod(), PATH_FLOWS, parseFlowsReport)).rejects.toThrow('you may not create')
  })

  it('moves no cursor of a terminal', () => {
    const evil = `\u001b[2J\u202eweb\n${'x'.repeat(1_000)}`
    const report = parseFlowsReport(
      JSON.stringify({ ...FLOWS, flows: [{ ...FLOW, peer: { ...PEER, pod: { ...PEER.pod, name: evil } } }] }),
      POD,
    )
    const name = report.flows[0]?.peer.pod?.name ?? ''
    expect(name).toMatch(/^\?\[2J\?web\?x+$/)
    expect(name.length).toBe(300)
  })

  it.each([
    ['audits', parseAuditReport, AUDIT],
    ['flows', parseFlowsReport, FLOWS],
  ] as const)(
    'of %s is what the sidecar says, or an error that says what is wrong, whatever is changed in it',
    (_what, parse, good) => {
      expect(parse(JSON.stringify(good), POD)).toEqual(good)
      const paths = pathsOf(good)
      fc.assert(
        fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
          const body = JSON.stringify(replaced(good, path, value))
          try {
            expect(parse(body, POD).pod).toEqual(POD)
          } catch (error) {
            expect((error as Error).message).toMatch(/ is (no|none)\b/)
          }
        }),
      )
      expect(() => parse('{', POD)).toThrow('it is no JSON')
      expect(() => parse('[]', POD)).toThrow('it is no object')
    },
  )
})

describe('flows', () => {
  it('are printed with peer, bytes and age, and what was refused last', () => {
    const report = parseFlowsReport(
      JSON.stringify({ ...FLOWS, total: 3, flows: [FLOW, { ...FLOW, protocol: 'UDP', bytes: null }] }),
      POD,
    )
    const text = formatFlows(report, Date.parse(AT) + 90_000)
    expect(text.split('\n').map((line) => line.trimEnd().replace(/ {2,}/g, '  '))).toEqual([
      'shop/web-x (audit): 3 connections',
      '  peer  port  sent/received  opened  decided by',
      '  egress  shop/db-0 (identified, 10.244.0.9)  TCP 5432  100 B/2.9 MiB  90 s ago  shop/db rule 0',
      '  egress  shop/db-0 (identified, 10.244.0.9)  UDP 5432  -  90 s ago  shop/db rule 0',
      '1 more connections are not listed',
      'bytes are known of TCP alone: the kernel does not count those of flows (net.netfilter.nf_conntrack_acct=0)',
      '',
      'Last refused, the newest first',
      '  ingress  shop/db-0 (identified, 10.244.0.9)  TCP 80  would be refused: policy, shop/a, no rule matches  2 times, last 90 s ago',
    ])
  })
})

type Path = readonly (string | number)[]

/** The places of all values in a document. */
function pathsOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, [...path, key]))]
}

function replaced(document: unknown, [key, ...rest]: Path, value: unknown): unknown {
  if (key === undefined) return value
  const inner = (document as Record<string, unknown>)[key]
  const next = replaced(inner, rest, value)
  if (Array.isArray(document)) return document.map((item, at) => (String(at) === String(key) ? next : item))
  return { ...(document as object), [key]: next }
}
