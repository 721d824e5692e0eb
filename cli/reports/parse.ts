/**
 * Reports of sidecars, read as what a stranger says: a Pod may hold anything, and people read it in a terminal. Whose report
 * it is says the API server, and no report.
 */
import type { Mode } from '../../api/identity.ts'
import type {
  AuditReport,
  FlowsReport,
  ReportedDenial,
  ReportedFlow,
  ReportedPeer,
  ReportedPod,
  RunningDenial,
} from '../../api/reports.ts'

/** More than a sidecar's own bounds. */
const MOST_ITEMS = 4_096
const MOST_CHARACTERS = 300
/** Control characters move a terminal's cursor, format characters turn a line round. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

type Json = Readonly<Record<string, unknown>>

class NotAReport extends Error {}

function object(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new NotAReport(`${what} is no object`)
  return value as Json
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string') throw new NotAReport(`${what} is no text`)
  return value.slice(0, MOST_CHARACTERS).replace(UNPRINTABLE, '?')
}

function count(value: unknown, what: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new NotAReport(`${what} is no count`)
  return value as number
}

function list<Item>(value: unknown, what: string, read: (item: unknown) => Item): Item[] {
  if (!Array.isArray(value) || value.length > MOST_ITEMS) throw new NotAReport(`${what} is no list of a sidecar's`)
  return value.map(read)
}

function oneOf<const Value>(value: unknown, what: string, all: readonly Value[]): Value {
  const found = all.find((one) => one === value)
  if (found === undefined) throw new NotAReport(`${what} is none of ${all.join(', ')}`)
  return found
}

function time(value: unknown, what: string): string {
  const at = typeof value === 'string' ? Date.parse(value) : Number.NaN
  if (Number.isNaN(at)) throw new NotAReport(`${what} is no time`)
  return new Date(at).toISOString()
}

const texts = (value: unknown, what: string) => list(value, what, (item) => text(item, what))
const flag = (value: unknown, what: string) => oneOf(value, what, [true, false])
const direction = (value: unknown) => oneOf(value, 'direction', ['ingress', 'egress'])
const MODES: readonly Mode[] = ['enforce', 'audit', 'off']

function readPeer(value: unknown): ReportedPeer {
  const { kind, address, pod } = object(value, 'peer')
  return {
    kind: oneOf(kind, 'peer.kind', ['identified', 'attested', 'address']),
    address: text(address, 'peer.address'),
    ...(pod !== undefined && { pod: readPod(pod) }),
  }
}

function readPod(value: unknown): ReportedPod {
  const { namespace, name, workload } = object(value, 'pod')
  return {
    namespace: text(namespace, 'pod.namespace'),
    name: text(name, 'pod.name'),
    workload: text(workload, 'pod.workload'),
  }
}

function readRunning(value: unknown): RunningDenial {
  const denied = object(value, 'denial')
  return {
    direction: direction(denied.direction),
    protocol: text(denied.protocol, 'protocol'),
    port: count(denied.port, 'port'),
    peer: readPeer(denied.peer),
    policies: texts(denied.policies, 'policies'),
    count: count(denied.count, 'count'),
  }
}

function readDenial(value: unknown): ReportedDenial {
  const { reason, enforced, stands, first, last } = object(value, 'denial')
  return {
    ...readRunning(value),
    reason: text(reason, 'reason'),
    enforced: flag(enforced, 'enforced'),
    stands: flag(stands, 'stands'),
    first: time(first, 'first'),
    last: time(last, 'last'),
  }
}

function readFlow(value: unknown): ReportedFlow {
  const flow = object(value, 'flow')
  const bytes = flow.bytes === null ? null : object(flow.bytes, 'bytes')
  return {
    direction: direction(flow.direction),
    protocol: text(flow.protocol, 'protocol'),
    local: text(flow.local, 'local'),
    localPort: count(flow.localPort, 'localPort'),
    remote: text(flow.remote, 'remote'),
    remotePort: count(flow.remotePort, 'remotePort'),
    peer: readPeer(flow.peer),
    decidedBy: text(flow.decidedBy, 'decidedBy'),
    allowed: oneOf(flow.allowed, 'allowed', [true, false, null]),
    bytes: bytes && {
      sent: count(bytes.sent, 'bytes.sent'),
      received: count(bytes.received, 'bytes.received'),
      by: oneOf(bytes.by, 'bytes.by', ['socket', 'conntrack']),
    },
    opened: flow.opened === null ? null : time(flow.opened, 'opened'),
  }
}

function readHead({ mode, at, since }: Json) {
  return { mode: oneOf(mode, 'mode', MODES), at: time(at, 'at'), since: time(since, 'since') }
}

/** The report that `text` is, with `pod` for the Pod that was asked. Throws Error where it is none, saying what is wrong. */
export function parseAuditReport(body: string, pod: ReportedPod): AuditReport {
  const report = object(parseJson(body), 'it')
  return {
    pod,
    ...readHead(report),
    denials: list(report.denials, 'denials', readDenial),
    unlistedDenials: count(report.unlistedDenials, 'unlistedDenials'),
    running: list(report.running, 'running', readRunning),
    unlistedRunning: count(report.unlistedRunning, 'unlistedRunning'),
  }
}

/** As parseAuditReport. */
export function parseFlowsReport(body: string, pod: ReportedPod): FlowsReport {
  const report = object(parseJson(body), 'it')
  return {
    pod,
    ...readHead(report),
    flows: list(report.flows, 'flows', readFlow),
    total: count(report.total, 'total'),
    accounting: flag(report.accounting, 'accounting'),
    refusals: list(report.refusals, 'refusals', readDenial),
  }
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    throw new NotAReport('it is no JSON')
  }
}
