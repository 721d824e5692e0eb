/**
 * The identity table: which peer an index in a connection's mark stands for. It lies in a memory emptyDir, so that a
 * restarted sidecar still knows the peers of running connections. A row is on disk before the first verdict uses it.
 */
import { hash } from 'node:crypto'
import { appendFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PodIdentity } from '../../api/identity.ts'
import { MARK_INDEX } from '../../api/marks.ts'
import { ControlError } from './errors.ts'
import { parsePodIdentity } from './issuer-messages.ts'

export interface IdentityRow {
  /** 1 to 2^20 - 1. */
  readonly index: number
  readonly identity: PodIdentity
  /** For connections through a translated address: the peer's real port. 0 elsewhere. */
  readonly port: number
  /** The authority's key that signed the newest WIT. */
  readonly kid: string
  /** Seconds since the epoch, of the newest WIT. */
  readonly issuedAt: number
  readonly expiresAt: number
}

export interface IdentityTable {
  get(index: number): IdentityRow | undefined
  /**
   * The row for a peer with exactly these facts, made if need be, its times those of the newest WIT. Undefined where
   * all 2^20 - 1 indexes are taken, or the row cannot be written.
   */
  obtain(row: Omit<IdentityRow, 'index'>): IdentityRow | undefined
  rows(): Iterable<IdentityRow>
  /** Frees the rows whose WITs have expired, but those that connections still carry. Returns how many it freed. */
  prune(inUse: ReadonlySet<number>, nowSeconds: number): number
  size(): number
}

/** The table's file in its folder. */
export const IDENTITY_FILE = 'identities.jsonl'
/** Lines beyond two for each row: with every renewal of a peer comes one more, and the file lies in the Pod's memory. */
const STALE_LINES = 64

/**
 * Opens the table in a directory. A file that breaks off (the node lost power) loses its last line; a file that is no
 * table at all is an error, because its connections would be judged by nothing: ControlError `state-unreadable`.
 */
export function openIdentityTable(directory: string, onWriteError: (error: Error) => void): IdentityTable {
  const path = join(directory, IDENTITY_FILE)
  const byIndex = new Map<number, IdentityRow>()
  const byKey = new Map<string, IdentityRow>()
  let next = 1
  /** True after a write that failed: the file may end in half a line. */
  let torn = false
  let lines = 0

  function keep(row: IdentityRow, key: string): void {
    byIndex.set(row.index, row)
    byKey.set(key, row)
  }

  for (const row of readRows(path)) {
    // In a file that could not be written anew, an index may be there twice: the later row is whom it stands for.
    const replaced = byIndex.get(row.index)
    if (replaced !== undefined) byKey.delete(keyOf(replaced))
    keep(row, keyOf(row))
  }
  for (const index of byIndex.keys()) next = Math.max(next, index + 1)
  rewrite()

  function rewrite(): void {
    const rows = [...byIndex.values()].map((row) => `${JSON.stringify(row)}\n`)
    writeFileSync(`${path}.new`, rows.join(''), { mode: 0o600 })
    renameSync(`${path}.new`, path)
    lines = rows.length
  }

  function append(row: IdentityRow): void {
    if (torn || lines >= 2 * byIndex.size + STALE_LINES) rewrite()
    appendFileSync(path, `${JSON.stringify(row)}\n`, { mode: 0o600 })
    lines++
  }

  /** Whether the file now says what the table does; where not, it is written whole before the next row. */
  function tryToWrite(write: () => void): boolean {
    try {
      write()
      torn = false
    } catch (error) {
      torn = true
      onWriteError(error as Error)
    }
    return !torn
  }

  function freeIndex(): number | undefined {
    for (let tried = 0; tried < MARK_INDEX; tried++) {
      if (next > MARK_INDEX) next = 1
      const candidate = next++
      if (!byIndex.has(candidate)) return candidate
    }
    return undefined
  }

  return {
    get: (index) => byIndex.get(index),
    rows: () => byIndex.values(),
    size: () => byIndex.size,
    obtain(wanted) {
      const key = keyOf(wanted)
      const known = byKey.get(key)
      if (known && known.expiresAt >= wanted.expiresAt) return known
      const index = known?.index ?? freeIndex()
      if (index === undefined) return undefined
      const row = { ...wanted, index }
      if (!tryToWrite(() => append(row))) return undefined
      keep(row, key)
      return row
    },
    prune(inUse, nowSeconds) {
      let freed = 0
      for (const row of byIndex.values()) {
        if (row.expiresAt >= nowSeconds || inUse.has(row.index)) continue
        byIndex.delete(row.index)
        byKey.delete(keyOf(row))
        freed++
      }
      if (freed > 0) tryToWrite(rewrite)
      return freed
    },
  }
}

/** Rows are the same where every fact that policies can ask for is. */
function keyOf(row: Pick<IdentityRow, 'identity' | 'port'>): string {
  const facts = hash('sha256', JSON.stringify(row.identity), 'base64url')
  return `${row.identity.uid} ${row.port} ${facts}`
}

function readRows(path: string): IdentityRow[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  return whole
    .split('\n')
    .filter((line) => line !== '')
    .map((line, at) => parseRow(line, `${path} line ${at + 1}`))
}

/** The row as it was written: its key depends on the order of its members. Throws ControlError `state-unreadable`. */
function parseRow(line: string, where: string): IdentityRow {
  try {
    const row = JSON.parse(line) as IdentityRow
    parsePodIdentity(row.identity, 'identity')
    const { index, port, issuedAt, expiresAt } = row
    const numbers = [index, port, issuedAt, expiresAt]
    if (!numbers.every((number) => Number.isSafeInteger(number) && number >= 0)) throw new RangeError('its numbers')
    if (index < 1 || index > MARK_INDEX || port > 65_535) throw new RangeError('its index or port')
    if (typeof row.kid !== 'string') throw new TypeError('its kid')
    return row
  } catch (cause) {
    throw new ControlError('state-unreadable', `${where} is no row of the identity table`, { cause })
  }
}
