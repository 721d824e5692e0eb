import type { VoidRecord } from './void-record.ts'
import { formatRecord, parseRecord } from './void-record.ts'

/** What an operator asks for a Pod, as the value of an entry; a replica takes it in and writes what came of it. */
export const VOID_REQUESTS = ['void', 'revoke', 'restore'] as const
export type VoidRequest = (typeof VOID_REQUESTS)[number]

/** What people want to know of an entry beside its times. */
export interface VoidNote {
  /** Words with a slash: the Pod's `namespace/name`. */
  readonly words: readonly string[]
  /** Why an operator wrote it. */
  readonly reason?: string
}

export interface VoidRequested {
  readonly key: string
  readonly uid: string
  readonly request: VoidRequest
  readonly note: VoidNote
}

/** The ConfigMap's `data`, read. */
export interface VoidEntries {
  /** By uid. */
  readonly records: ReadonlyMap<string, VoidRecord>
  /** By uid, of the records. */
  readonly notes: ReadonlyMap<string, VoidNote>
  readonly requests: readonly VoidRequested[]
  /** Entries that say nothing, each with what is wrong. They stay where they are. */
  readonly invalid: readonly { readonly key: string; readonly problem: string }[]
}

export interface ParseOptions {
  /** Seconds since the epoch. */
  readonly now: number
  /** The uid of a live Pod. */
  readonly findPod: (namespace: string, name: string) => string | undefined
}

/** As API servers make them (RFC 9562); what else stands there as a key is a slip of the pen. */
const UID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
/** A ConfigMap's key takes no slash, and a namespace's name no dot. */
const POD = /^(?<namespace>[a-z0-9-]{1,63})\.(?<name>[a-z0-9.-]{1,253})$/
/** The list has room for 10,000 Pods within etcd's 1 MiB. */
const REASON_CHARACTERS = 200

/**
 * Reads entries: `<uid>: relabelled@TIME`, and an operator's `<namespace>.<pod>: revoke` or `<uid>: revoke`, each with a
 * note for people behind it: `shop/web-1 # the reason`. A request by uid may stand beside the record, which it leaves.
 */
export function parseEntries(data: Readonly<Record<string, string>>, options: ParseOptions): VoidEntries {
  const records = new Map<string, VoidRecord>()
  const notes = new Map<string, VoidNote>()
  const requests: VoidRequested[] = []
  const invalid: { key: string; problem: string }[] = []
  for (const [key, value] of Object.entries(data)) {
    const uid = findUid(key, options)
    const { said, note } = splitNote(value)
    const request = VOID_REQUESTS.find((known) => known === said[0])
    const rest = (request === undefined ? said : said.slice(1)).join(' ')
    const record = request !== undefined && rest === '' ? undefined : parseRecord(rest, options.now)
    if (typeof uid !== 'string') invalid.push({ key, ...uid })
    else if (key !== uid && (request === undefined || rest !== '')) {
      invalid.push({ key, problem: `its value is none of ${VOID_REQUESTS.join(', ')}` })
    } else if (typeof record === 'string') invalid.push({ key, problem: record })
    else {
      if (record !== undefined) records.set(uid, record)
      if (request !== undefined) requests.push({ key, uid, request, note })
      if (key === uid) notes.set(uid, note)
    }
  }
  return { records, notes, requests, invalid }
}

function findUid(key: string, { findPod }: ParseOptions): string | { readonly problem: string } {
  if (UID.test(key)) return key
  const { namespace, name } = POD.exec(key)?.groups ?? {}
  if (namespace === undefined || name === undefined) {
    return { problem: 'its key is neither a Pod as NAMESPACE.NAME nor the uid of one' }
  }
  return findPod(namespace, name) ?? { problem: `there is no Pod ${namespace}/${name}` }
}

function splitNote(value: string): { readonly said: readonly string[]; readonly note: VoidNote } {
  const at = value.search(/(^|\s)#/)
  const reason = at < 0 ? '' : cleanReason(value.slice(at).trim().slice(1))
  const words = (at < 0 ? value : value.slice(0, at)).split(/\s+/).filter((word) => word !== '')
  const note = { words: words.filter((word) => word.includes('/')), ...(reason !== '' && { reason }) }
  return { said: words.filter((word) => !word.includes('/')), note }
}

/** One line of bounded length, as it stands in an entry. */
export function cleanReason(text: string): string {
  return text
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim()
    .slice(0, REASON_CHARACTERS)
    .trim()
}

/** An entry's value: a record, a request, or a request beside the record that it shall leave. */
export function formatEntry(record: VoidRecord, { words, reason }: VoidNote, request?: VoidRequest): string {
  const parts = [request ?? '', formatRecord(record), ...words, reason === undefined ? '' : `# ${reason}`]
  return parts.filter((part) => part !== '').join(' ')
}

/** What both tell people; of two reasons the later one's. */
export function joinNotes(one: VoidNote, later: VoidNote): VoidNote {
  const reason = later.reason ?? one.reason
  return { words: [...new Set([...one.words, ...later.words])], ...(reason !== undefined && { reason }) }
}

/** What a request adds to the record of its Pod. Each is later than what it answers, whatever the clocks say. */
export function answerRequest(request: VoidRequest, known: VoidRecord, now: number): VoidRecord {
  const after = (time: number | undefined) => Math.max(now, (time ?? -1) + 1)
  if (request === 'void') return { voided: now }
  return request === 'revoke' ? { revoked: after(known.restored) } : { restored: after(known.revoked) }
}
