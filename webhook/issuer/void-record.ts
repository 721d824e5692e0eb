/**
 * Up to when WITs of one Pod are void, in seconds since the epoch, by cause. Each time only ever grows, so replicas may
 * merge what they know in any order, and an entry that is lost in one place comes back from another.
 */
export interface VoidRecord {
  /** Labels of the Pod or its namespace changed: its WITs stand with the present ones. */
  readonly relabelled?: number
  /** The Pod is finished or gone. */
  readonly ended?: number
  /** An operator declared them void; the Pod gets a new one. */
  readonly voided?: number
  /** An operator declared them void, and the Pod gets no other until it is restored. */
  readonly revoked?: number
  readonly restored?: number
}

export type VoidCause = keyof VoidRecord
export const VOID_CAUSES: readonly VoidCause[] = ['relabelled', 'ended', 'voided', 'revoked', 'restored']

const NEVER = Number.NEGATIVE_INFINITY

/** What both say together. */
export function joinRecords(one: VoidRecord, other: VoidRecord): VoidRecord {
  const times = VOID_CAUSES.flatMap((cause) => {
    const time = Math.max(one[cause] ?? NEVER, other[cause] ?? NEVER)
    return time === NEVER ? [] : [[cause, time] as const]
  })
  return Object.fromEntries(times)
}

/** Whether `known` says all that `record` says. */
export function coversRecord(known: VoidRecord | undefined, record: VoidRecord): boolean {
  return VOID_CAUSES.every((cause) => (record[cause] ?? NEVER) <= (known?.[cause] ?? NEVER))
}

/** WITs issued until then are refused outright; -Infinity where none is. */
export function refusedUntil({ ended = NEVER, voided = NEVER, revoked = NEVER }: VoidRecord): number {
  return Math.max(ended, voided, revoked)
}

/** Whether the Pod gets no WIT until an operator restores it. */
export function isBlocked({ revoked = NEVER, restored = NEVER }: VoidRecord): boolean {
  return revoked > restored
}

/** Whether no operator had a hand in it. */
export function isAutomatic({ voided, revoked }: VoidRecord): boolean {
  return voided === undefined && revoked === undefined
}

/** The last second in which the record can still concern a WIT that lives `keepSeconds`; a blocked Pod's has no end. */
export function endOfRecord(record: VoidRecord, keepSeconds: number): number {
  if (isBlocked(record)) return record.ended === undefined ? Number.POSITIVE_INFINITY : record.ended + keepSeconds
  return Math.max(...VOID_CAUSES.map((cause) => record[cause] ?? NEVER)) + keepSeconds
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
/** Clocks of replicas differ by less: a later time is a slip of the pen, and would keep a Pod from its identity. */
const AHEAD_SECONDS = 300

/** `relabelled@2026-01-31T12:00:00Z`, one word for each cause. */
export function formatRecord(record: VoidRecord): string {
  const words = VOID_CAUSES.flatMap((cause) => {
    const time = record[cause]
    return time === undefined ? [] : [`${cause}@${new Date(time * 1_000).toISOString().replace('.000', '')}`]
  })
  return words.join(' ')
}

/** The record of such a text, or a sentence on what is wrong with it. A word with a slash is a note for people. */
export function parseRecord(text: string, now: number): VoidRecord | string {
  let record: VoidRecord = {}
  for (const word of text.split(/\s+/)) {
    if (word === '' || word.includes('/')) continue
    const [name, time = '', ...rest] = word.split('@')
    const cause = VOID_CAUSES.find((known) => known === name)
    if (cause === undefined || rest.length > 0) return `"${shorten(word)}" is none of ${VOID_CAUSES.join(', ')}`
    const seconds = TIME.test(time) ? Date.parse(time) / 1_000 : Number.NaN
    if (Number.isNaN(seconds)) return `"${shorten(word)}" lacks a time such as @2026-01-31T12:00:00Z`
    if (seconds > now + AHEAD_SECONDS) return `"${shorten(word)}" is in the future`
    record = joinRecords(record, { [cause]: seconds })
  }
  return Object.keys(record).length === 0 ? 'it is empty' : record
}

function shorten(word: string): string {
  return word.length > 60 ? `${word.slice(0, 60)}…` : word
}
