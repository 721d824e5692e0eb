/**
 * What was denied, or would have been: one row for each peer, port and reason, with a count. Operators read it before they
 * enforce, so a peer must not be able to push others out of it.
 */
import type { PodIdentity } from '../../api/identity.ts'
import type { Direction } from '../../policy/types.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { DENIAL_REORDER_MILLISECONDS, DENIAL_STALE_MILLISECONDS } from './bounds.ts'

export interface DenialRow {
  readonly direction: Direction
  readonly refusal: Refusal
  /** False where the mode let it go on. */
  readonly enforced: boolean
  /** TCP, UDP, SCTP, or the number of another. */
  readonly protocol: string
  /** The destination's real port. */
  readonly port: number
  /** The other end's address, as the connection had it last. */
  readonly address: string
  /** Who that is by its WIT, or by the directory; undefined where nothing is known but the address. */
  readonly pod: PodIdentity | undefined
  /** Whether it showed a WIT. */
  readonly identified: boolean
  /** The policies that isolate this end, as they were last. */
  readonly policies: readonly string[]
  readonly count: number
  /** Milliseconds since 1970. */
  readonly firstAt: number
  readonly lastAt: number
}

/** A denial to be noted: a row without what the table keeps. */
export type NotedDenial = Omit<DenialRow, 'count' | 'firstAt' | 'lastAt'>

export interface DenialSnapshot {
  readonly rows: readonly DenialRow[]
  /** Denials that no row tells of any more, or ever did. */
  readonly unlisted: number
}

export interface DenialTable {
  note(denial: NotedDenial, nowMilliseconds: number): void
  snapshot(): DenialSnapshot
}

interface Row {
  key: string
  holder: Holder
  /** When it last went to the end of its Maps. */
  orderedAt: number
  denial: NotedDenial
  count: number
  readonly firstAt: number
  lastAt: number
}

/** Whoever answers for rows: a Pod, or a network of addresses, as one address costs nothing to forge. */
interface Holder {
  readonly name: string
  /** Seen longest ago first. */
  readonly rows: Map<string, Row>
}

/**
 * A table of at most `maximumPods` rows about Pods and `maximumAddresses` about addresses: who is known to nobody cannot push
 * out whom a WIT or the API server names.
 *
 * Where it is full, a new row takes the place of one of the holder that has most, if that one has at least two more rows
 * than its own: so of H holders each keeps at least maximum / H - 1 rows, whatever the others do. Else it takes the place
 * of a row that nothing came to for an hour, else it is counted alone.
 */
export function createDenialTable(maximumPods: number, maximumAddresses: number): DenialTable {
  const pods = createPart(maximumPods)
  const addresses = createPart(maximumAddresses)
  return {
    note(denial, now) {
      if (denial.pod === undefined) addresses.note(networkOf(denial.address), denial.address, denial, now)
      else {
        const name = `${denial.pod.namespace}/${denial.pod.name}`
        pods.note(name, name, denial, now)
      }
    },
    snapshot() {
      const parts = [pods.snapshot(), addresses.snapshot()]
      return {
        rows: parts.flatMap(({ rows }) => rows),
        unlisted: parts.reduce((sum, { unlisted }) => sum + unlisted, 0),
      }
    },
  }
}

/** The first 16 bits of an IPv4 address, the first 48 of an IPv6 one as far as its text spells them out. */
function networkOf(address: string): string {
  return address.includes(':') ? address.split(':', 3).join(':') : address.split('.', 2).join('.')
}

function createPart(maximum: number) {
  /** Seen longest ago first. */
  const rows = new Map<string, Row>()
  const holders = new Map<string, Holder>()
  /** The holders by how many rows they have. */
  const bySize: Set<Holder>[] = []
  let largest = 0
  let unlisted = 0

  function resize(holder: Holder, from: number): void {
    const to = holder.rows.size
    bySize[from]?.delete(holder)
    if (to > 0) {
      bySize[to] ??= new Set()
      bySize[to].add(holder)
    } else holders.delete(holder.name)
    largest = Math.max(largest, to)
    while (largest > 0 && bySize[largest]?.size === 0) largest--
  }

  function remove(row: Row): void {
    rows.delete(row.key)
    row.holder.rows.delete(row.key)
    resize(row.holder, row.holder.rows.size + 1)
    unlisted += row.count
  }

  /** True where a holder of `size` rows may have one more now. */
  function makeRoom(size: number, now: number): boolean {
    if (rows.size < maximum) return true
    const holder = size + 1 < largest ? first(bySize[largest] ?? []) : undefined
    const row = first((holder?.rows ?? rows).values())
    if (row === undefined || (holder === undefined && now - row.lastAt < DENIAL_STALE_MILLISECONDS)) return false
    remove(row)
    return true
  }

  function note(holderName: string, peer: string, denial: NotedDenial, now: number): void {
    const { direction, refusal, enforced, protocol, port } = denial
    const key = `${peer} ${direction} ${refusal} ${enforced} ${protocol} ${port}`
    const known = rows.get(key)
    if (known !== undefined) return again(known, denial, now)
    if (!makeRoom(holders.get(holderName)?.rows.size ?? 0, now)) {
      unlisted++
      return
    }
    const holder = holders.get(holderName) ?? { name: holderName, rows: new Map() }
    holders.set(holderName, holder)
    const row: Row = { key, holder, orderedAt: now, denial, count: 1, firstAt: now, lastAt: now }
    rows.set(key, row)
    holder.rows.set(key, row)
    resize(holder, holder.rows.size - 1)
  }

  function again(row: Row, denial: NotedDenial, now: number): void {
    row.denial = denial
    row.count++
    row.lastAt = now
    if (now - row.orderedAt < DENIAL_REORDER_MILLISECONDS) return
    row.orderedAt = now
    for (const map of [rows, row.holder.rows]) {
      map.delete(row.key)
      map.set(row.key, row)
    }
  }

  return {
    note,
    snapshot: (): DenialSnapshot => ({
      rows: [...rows.values()].map(({ denial, count, firstAt, lastAt }) => ({ ...denial, count, firstAt, lastAt })),
      unlisted,
    }),
  }
}

function first<Item>(items: Iterable<Item>): Item | undefined {
  for (const item of items) return item
  return undefined
}
