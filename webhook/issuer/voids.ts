import type { Labels, VoidEntry } from '../../api/identity.ts'
import { VOIDS, VOIDS_SLACK } from '../limits.ts'
import {
  coversRecord,
  endOfRecord,
  isAutomatic,
  isBlocked,
  joinRecords,
  refusedUntil,
  type VoidRecord,
} from './void-record.ts'

/** The WITs that no longer say the truth, until the last of them has expired. */
export interface VoidList {
  /** Adds an entry that a sidecar would be sent: with labels an override, without a voiding. Tells the listeners. */
  add(entry: VoidEntry): void
  /** Joins a record to what is known of the Pod; an override needs the labels. Tells the listeners what grew. */
  merge(uid: string, record: VoidRecord, labels?: PresentLabels): void
  /** What sidecars must know: the entries that can still concern a WIT. */
  entries(): readonly VoidEntry[]
  /** The records that can still concern a WIT, or keep a Pod from getting one. */
  records(): ReadonlyMap<string, VoidRecord>
  get(uid: string): VoidRecord | undefined
  /** Whether a WIT of that Pod is refused outright (an override only changes what it says). */
  isRevoked(uid: string, issuedAt: number): boolean
  /** The first second in which a new WIT of that Pod is not void. */
  issuableFrom(uid: string): number
  /** Whether the Pod gets no WIT at all until an operator restores it. */
  isBlocked(uid: string): boolean
  /** Records that were forgotten early, for want of room. */
  dropped(): number
  subscribe(listener: (entry: VoidEntry) => void): () => void
}

/** Of a Pod and its namespace. */
export interface PresentLabels {
  readonly labels?: Labels
  readonly namespaceLabels?: Labels
}

export interface VoidListOptions {
  /** Seconds since the epoch. */
  readonly now: () => number
  /** Lifetime of WITs and skew: a record is forgotten when the last WIT it can concern has expired. */
  readonly keepSeconds: number
}

interface Known {
  readonly record: VoidRecord
  /** What WITs stand for up to `record.relabelled`. */
  readonly labels: PresentLabels
}

export function createVoidList({ now, keepSeconds }: VoidListOptions): VoidList {
  const byUid = new Map<string, Known>()
  const listeners = new Set<(entry: VoidEntry) => void>()
  let dropped = 0
  let prunedAt = 0

  function prune(): void {
    if (byUid.size > VOIDS + VOIDS_SLACK) dropOldest()
    // Once a second is enough, as expiry counts seconds.
    if (prunedAt === now()) return
    prunedAt = now()
    for (const [uid, { record }] of byUid) if (endOfRecord(record, keepSeconds) < now()) byUid.delete(uid)
  }

  /** What an operator said is never forgotten early; of the rest what is nearest to its end, as other replicas do. */
  function dropOldest(): void {
    const automatic = [...byUid].filter(([, { record }]) => isAutomatic(record))
    automatic.sort(([, one], [, other]) => endOfRecord(one.record, 0) - endOfRecord(other.record, 0))
    for (const [uid] of automatic.slice(0, byUid.size - VOIDS)) {
      byUid.delete(uid)
      dropped++
    }
  }

  function merge(uid: string, change: VoidRecord, labels: PresentLabels = {}): void {
    const before = byUid.get(uid) ?? { record: {}, labels: {} }
    const isOverride = change.relabelled !== undefined && change.relabelled >= (before.record.relabelled ?? 0)
    if (coversRecord(before.record, change) && !isOverride) return
    const known: Known = {
      record: joinRecords(before.record, change),
      // What an override leaves out stands as the one before left it.
      labels: isOverride ? { ...before.labels, ...labels } : before.labels,
    }
    byUid.set(uid, known)
    prune()
    if (refusedUntil(known.record) > refusedUntil(before.record)) tell(refusal(uid, known))
    const isSame = known.record.relabelled === before.record.relabelled && sameText(known.labels, before.labels)
    if (isOverride && !isSame) tell(override(uid, known))
  }

  function tell(entry: VoidEntry): void {
    for (const listener of [...listeners]) listener(entry)
  }

  return {
    add({ uid, iatBefore, ...labels }) {
      const isOverride = labels.labels !== undefined || labels.namespaceLabels !== undefined
      merge(uid, isOverride ? { relabelled: iatBefore } : { voided: iatBefore }, labels)
    },
    merge,
    entries() {
      prune()
      const entries = [...byUid].flatMap(([uid, known]) => [
        ...(refusedUntil(known.record) === Number.NEGATIVE_INFINITY ? [] : [refusal(uid, known)]),
        ...(known.record.relabelled === undefined ? [] : [override(uid, known)]),
      ])
      return entries.filter(({ iatBefore }) => iatBefore + keepSeconds >= now())
    },
    records() {
      prune()
      return new Map([...byUid].map(([uid, { record }]) => [uid, record]))
    },
    get: (uid) => byUid.get(uid)?.record,
    isRevoked: (uid, issuedAt) => issuedAt <= refusedUntil(byUid.get(uid)?.record ?? {}),
    issuableFrom(uid) {
      const record = byUid.get(uid)?.record ?? {}
      return Math.max(refusedUntil(record), record.relabelled ?? -1, -1) + 1
    },
    isBlocked: (uid) => isBlocked(byUid.get(uid)?.record ?? {}),
    dropped: () => dropped,
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

function refusal(uid: string, { record }: Known): VoidEntry {
  return { uid, iatBefore: refusedUntil(record) }
}

function override(uid: string, { record, labels }: Known): VoidEntry {
  return { uid, iatBefore: record.relabelled ?? 0, ...labels }
}

function sameText(one: PresentLabels, other: PresentLabels): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}
