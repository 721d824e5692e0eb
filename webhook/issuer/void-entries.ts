import type { VoidRecord } from './void-record.ts'
import { parseRecord } from './void-record.ts'

/** What an operator asks for a Pod, as the value of an entry; a replica takes it in and writes what came of it. */
export const VOID_REQUESTS = ['void', 'revoke', 'restore'] as const
export type VoidRequest = (typeof VOID_REQUESTS)[number]

/** The ConfigMap's `data`, read. */
export interface VoidEntries {
  /** By uid. */
  readonly records: ReadonlyMap<string, VoidRecord>
  readonly requests: readonly { readonly key: string; readonly uid: string; readonly request: VoidRequest }[]
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

/** Reads entries: `<uid>: relabelled@TIME`, and an operator's `<namespace>.<pod>: revoke` or `<uid>: revoke`. */
export function parseEntries(data: Readonly<Record<string, string>>, options: ParseOptions): VoidEntries {
  const records = new Map<string, VoidRecord>()
  const requests: { key: string; uid: string; request: VoidRequest }[] = []
  const invalid: { key: string; problem: string }[] = []
  for (const [key, value] of Object.entries(data)) {
    const uid = findUid(key, options)
    const request = VOID_REQUESTS.find((known) => known === value.trim())
    if (typeof uid !== 'string') invalid.push({ key, ...uid })
    else if (request !== undefined) requests.push({ key, uid, request })
    else if (key !== uid) invalid.push({ key, problem: `its value is none of ${VOID_REQUESTS.join(', ')}` })
    else {
      const record = parseRecord(value, options.now)
      if (typeof record === 'string') invalid.push({ key, problem: record })
      else records.set(uid, record)
    }
  }
  return { records, requests, invalid }
}

function findUid(key: string, { findPod }: ParseOptions): string | { readonly problem: string } {
  if (UID.test(key)) return key
  const { namespace, name } = POD.exec(key)?.groups ?? {}
  if (namespace === undefined || name === undefined) {
    return { problem: 'its key is neither a Pod as NAMESPACE.NAME nor the uid of one' }
  }
  return findPod(namespace, name) ?? { problem: `there is no Pod ${namespace}/${name}` }
}

/** What a request adds to the record of its Pod. Each is later than what it answers, whatever the clocks say. */
export function answerRequest(request: VoidRequest, known: VoidRecord, now: number): VoidRecord {
  const after = (time: number | undefined) => Math.max(now, (time ?? -1) + 1)
  if (request === 'void') return { voided: now }
  return request === 'revoke' ? { revoked: after(known.restored) } : { restored: after(known.revoked) }
}
