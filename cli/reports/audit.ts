/** What the sidecars of a namespace say that enforcing would refuse, put together. Pure. */
import type { AuditReport, ReportedPeer, ReportedPod, RunningDenial } from '../../api/reports.ts'

export interface Unread {
  /** `namespace/name` */
  readonly pod: string
  readonly reason: string
}

/** One end that denies, or would. */
export interface DenyingEnd {
  /** Whose policies: of incoming connections the destination's, of outgoing ones the source's. */
  readonly direction: 'ingress' | 'egress'
  readonly reason: string
  readonly policies: readonly string[]
  /** Denied since each sidecar began to count. */
  readonly connections: number
  /** Of these and earlier ones, those that run and would be ended. */
  readonly running: number
  /** ISO 8601; null where none was counted, and one runs since before. */
  readonly last: string | null
}

export interface AuditGroup {
  /** `namespace/kind/name`, or an address. */
  readonly from: string
  readonly to: string
  readonly protocol: string
  readonly port: number
  readonly ends: readonly DenyingEnd[]
}

export type AuditResult = 'nothing' | 'refuses' | 'unknown'

export interface Audit {
  readonly namespace: string
  readonly result: AuditResult
  readonly groups: readonly AuditGroup[]
  /** Sidecars that told. */
  readonly read: number
  /** When the youngest of them began to count; null where none told. */
  readonly since: string | null
  readonly unread: readonly Unread[]
  /** Pods in mode off tell of no denial but of what runs. */
  readonly off: readonly string[]
  /** Pods that enforce already: what they deny is refused, and not listed. */
  readonly enforcing: readonly string[]
  /** Denials of further kinds than sidecars list. */
  readonly unlisted: number
  /** Denials that the policies in force allow by now: left out. */
  readonly mended: number
}

interface Mutable {
  readonly key: string
  readonly group: Omit<AuditGroup, 'ends'>
  readonly ends: Map<string, { -readonly [Key in keyof DenyingEnd]: DenyingEnd[Key] }>
}

/** Groups what the reports tell by source, destination and port; both ends that deny stand in one group. */
export function mergeAudit(namespace: string, reports: readonly AuditReport[], unread: readonly Unread[]): Audit {
  const groups = new Map<string, Mutable>()
  let unlisted = 0
  let mended = 0
  for (const { pod, denials, running, unlistedDenials, unlistedRunning } of reports) {
    unlisted += unlistedDenials + unlistedRunning
    for (const denial of denials) {
      if (denial.enforced) continue
      if (!denial.stands) {
        mended += denial.count
        continue
      }
      const end = endOf(groups, pod, denial, denial.reason)
      end.connections += denial.count
      if (end.last === null || end.last < denial.last) end.last = denial.last
    }
    for (const one of running) endOf(groups, pod, one, 'policy').running += one.count
  }
  const sorted = [...groups.values()]
    .map(({ group, ends }) => ({ ...group, ends: [...ends.values()].sort(byDirection) }))
    .sort((a, b) => weight(b) - weight(a) || keyOf(a).localeCompare(keyOf(b)))
  const off = named(reports, 'off')
  const isUnknown = unread.length > 0 || off.length > 0 || unlisted > 0 || reports.length === 0
  return {
    namespace,
    result: sorted.length > 0 ? 'refuses' : isUnknown ? 'unknown' : 'nothing',
    groups: sorted,
    read: reports.length,
    since: reports.reduce<string | null>((last, { since }) => (last === null || since > last ? since : last), null),
    unread,
    off,
    enforcing: named(reports, 'enforce'),
    unlisted,
    mended,
  }
}

function endOf(groups: Map<string, Mutable>, pod: ReportedPod, denied: RunningDenial, reason: string) {
  const self = nameOf(pod)
  const peer = peerOf(denied.peer)
  const [from, to] = denied.direction === 'ingress' ? [peer, self] : [self, peer]
  const group = { from, to, protocol: denied.protocol, port: denied.port }
  const key = keyOf(group)
  const found = groups.get(key) ?? { key, group, ends: new Map() }
  groups.set(key, found)
  const { direction, policies } = denied
  const endKey = JSON.stringify([direction, reason, policies])
  const end = found.ends.get(endKey) ?? { direction, reason, policies, connections: 0, running: 0, last: null }
  found.ends.set(endKey, end)
  return end
}

const nameOf = ({ namespace, workload }: ReportedPod) => `${namespace}/${workload}`
const peerOf = ({ pod, address }: ReportedPeer) => (pod === undefined ? address : nameOf(pod))
const keyOf = ({ from, to, protocol, port }: Omit<AuditGroup, 'ends'>) => JSON.stringify([from, to, protocol, port])
const named = (reports: readonly AuditReport[], wanted: AuditReport['mode']) =>
  reports.filter(({ mode }) => mode === wanted).map(({ pod }) => `${pod.namespace}/${pod.name}`)
const byDirection = (a: DenyingEnd, b: DenyingEnd) => b.direction.localeCompare(a.direction)
/** Both ends count a connection that both deny. */
const weight = ({ ends }: AuditGroup) => Math.max(...ends.map(({ connections, running }) => connections + running))
