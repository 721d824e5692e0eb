/** Audits and flows as people read them. */
import type { FlowsReport, ReportedDenial, ReportedFlow, ReportedPeer } from '../../api/reports.ts'
import type { Audit, DenyingEnd } from './audit.ts'

/** Names that a line lists before it counts the rest. */
const NAMES = 5

/** The groups, what could not be seen, and one line that sums up; `nowMs` for ages. */
export function formatAudit(audit: Audit, nowMs: number): string {
  const { namespace, groups, read, since, unread, off, enforcing, unlisted, mended } = audit
  const blocks = groups.map(({ from, to, protocol, port, ends }) =>
    [`${from} -> ${to}  ${protocol} ${port}`, ...ends.map((end) => `    ${formatEnd(end, from, to, nowMs)}`)].join(
      '\n',
    ),
  )
  const notes = [
    ...unread.slice(0, NAMES).map(({ pod, reason }) => `not read: ${pod}: ${reason}`),
    ...(unread.length > NAMES ? [`not read: ${unread.length - NAMES} more`] : []),
    ...(off.length > 0 ? [`off, and tells only of what runs: ${someOf(off)}`] : []),
    ...(enforcing.length > 0 ? [`enforces already, what it refuses is not listed: ${someOf(enforcing)}`] : []),
    ...(mended > 0 ? [`left out: ${counted(mended, 'denial')} that the policies allow by now`] : []),
    ...(unlisted > 0 ? [`not listed: ${counted(unlisted, 'denial')} of further kinds than a sidecar keeps`] : []),
  ]
  const span = since === null ? '' : `, counted since ${since} (${formatAge(since, nowMs)}) or longer`
  const sums = {
    refuses: `Enforcing ${namespace} would refuse ${counted(groups.length, 'kind')} of connections`,
    nothing: `Enforcing ${namespace} would refuse nothing of what was seen`,
    unknown: `Nothing that enforcing ${namespace} would refuse was seen, but not all could be seen`,
  }
  const sum = `${sums[audit.result]}: ${counted(read, 'Pod')} read${span}`
  return [blocks.join('\n\n'), notes.join('\n'), sum].filter((part) => part !== '').join('\n\n')
}

function formatEnd(end: DenyingEnd, from: string, to: string, nowMs: number): string {
  const { direction, reason, policies, connections, running, last } = end
  const by = policies.length > 0 ? policies.join(', ') : 'no policy'
  const parts = [
    ...(connections > 0 ? [counted(connections, 'connection')] : []),
    ...(running > 0 ? [`${running} running`] : []),
    ...(last !== null ? [`last ${formatAge(last, nowMs)}`] : []),
  ]
  return `${direction} of ${direction === 'ingress' ? to : from}: ${reason}, ${by}: ${parts.join(', ')}`
}

/** A Pod's connections and its last denials. */
export function formatFlows(report: FlowsReport, nowMs: number): string {
  const { pod, mode, flows, total, accounting, refusals } = report
  const rows = flows.map((flow) => [
    flow.direction,
    peerText(flow.peer),
    `${flow.protocol} ${flow.direction === 'ingress' ? flow.localPort : flow.remotePort}`,
    bytesText(flow),
    flow.opened === null ? 'age not known' : formatAge(flow.opened, nowMs),
    flow.allowed === false ? `DENIED by ${flow.decidedBy}` : flow.decidedBy || 'not decided now',
  ])
  const header = ['', 'peer', 'port', 'sent/received', 'opened', 'decided by']
  const notes = [
    ...(total > flows.length ? [`${total - flows.length} more connections are not listed`] : []),
    ...(accounting || flows.every(({ bytes }) => bytes !== null)
      ? []
      : ['bytes are known of TCP alone: the kernel does not count those of flows (net.netfilter.nf_conntrack_acct=0)']),
  ]
  const denials = refusals.map((denial) => denialRow(denial, nowMs))
  return [
    `${pod.namespace}/${pod.name} (${mode}): ${counted(total, 'connection')}`,
    ...(rows.length > 0 ? [table([header, ...rows])] : []),
    ...notes,
    '',
    refusals.length === 0 ? 'Nothing was refused' : 'Last refused, the newest first',
    ...(denials.length > 0 ? [table(denials)] : []),
  ].join('\n')
}

function denialRow(denial: ReportedDenial, nowMs: number): string[] {
  const { direction, peer, protocol, port, reason, policies, enforced, count, last } = denial
  return [
    direction,
    peerText(peer),
    `${protocol} ${port}`,
    `${enforced ? 'refused' : 'would be refused'}: ${reason}${policies.length > 0 ? `, ${policies.join(', ')}, no rule matches` : ''}`,
    `${count} times, last ${formatAge(last, nowMs)}`,
  ]
}

function peerText({ kind, address, pod }: ReportedPeer): string {
  return pod === undefined ? address : `${pod.namespace}/${pod.name} (${kind}, ${address})`
}

function bytesText({ bytes }: ReportedFlow): string {
  return bytes === null ? '-' : `${formatBytes(bytes.sent)}/${formatBytes(bytes.received)}`
}

function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let [value, unit] = [bytes, 0]
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

/** `3 min ago`; a sidecar's clock may be a little ahead of this one's. */
function formatAge(iso: string, nowMs: number): string {
  const seconds = Math.max(0, Math.round((nowMs - Date.parse(iso)) / 1_000))
  if (seconds < 120) return `${seconds} s ago`
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min ago`
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h ago` : `${Math.round(seconds / 86_400)} d ago`
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

function someOf(names: readonly string[]): string {
  return names.length <= NAMES
    ? names.join(', ')
    : `${names.slice(0, NAMES).join(', ')} and ${names.length - NAMES} more`
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map((row) => `  ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('  ')}`.trimEnd()).join('\n')
}
