import type { V1ConfigMap, V1Namespace, V1Pod } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { pause } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
import { createReflector } from '../../kubernetes/reflector.ts'
import type { Cluster } from '../cluster.ts'
import { isLive } from '../directory/pod-identity.ts'
import { WebhookError } from '../errors.ts'
import { createWorkQueue } from '../kubernetes/work-queue.ts'
import { applyConfigMap, configMapsPath, patchConfigMap } from './config-map.ts'
import {
  answerRequest,
  formatEntry,
  joinNotes,
  parseEntries,
  type VoidEntries,
  type VoidNote,
  type VoidRequested,
} from './void-entries.ts'
import { coversRecord, endOfRecord, joinRecords, type VoidRecord } from './void-record.ts'
import type { VoidList } from './voids.ts'

/** The void list in a ConfigMap: shared by all replicas, and there again after a restart. */
export interface VoidStore {
  start(): void
  /** True once what the ConfigMap holds is in the list. */
  synced(): boolean
  /** Resolves once the ConfigMap holds what the list says of that Pod. Rejects with `cluster-unavailable`. */
  settled(uid: string): Promise<void>
  /** Entries of the ConfigMap that say nothing. */
  invalid(): VoidEntries['invalid']
  stop(): Promise<void>
}

export interface VoidStoreOptions {
  readonly client: ApiClient
  readonly namespace: string
  /** Of the ConfigMap. */
  readonly name: string
  readonly cluster: Cluster
  readonly voids: VoidList
  /** As the list's. */
  readonly keepSeconds: number
  /** Hears of each entry that says nothing, once. */
  readonly onInvalid: (entry: VoidEntries['invalid'][number]) => void
  /** Hears of each request that this replica answered, once its answer stands. */
  readonly onAnswered?: (request: VoidRequested) => void
  readonly log: Logger
  /** Seconds since the epoch. */
  readonly now: () => number
  /** From 0 up to 1. */
  readonly random: () => number
}

/** A relabelled namespace is many entries, and another replica may write them first. */
const WRITE_DELAY_MS = 300
/** The ends of entries, and requests for Pods that were not there yet. */
const RESYNC_MS = 30_000
const SETTLE_MS = 5_000
const SYNC_CHECK_MS = 100
/** An entry so near to its end is not written again: a replica whose clock is ahead has just removed it. */
const LAST_SECONDS = 60
const LAST_PART = 1 / 8
const KEY = 'voids'

export function createVoidStore(options: VoidStoreOptions): VoidStore {
  const { client, namespace, name, cluster, voids, keepSeconds, log, now, random } = options
  const stopping = new AbortController()
  const waiting = new Set<() => void>()
  const reported = new Map<string, string>()
  let timer: NodeJS.Timeout | undefined
  let delay: NodeJS.Timeout | undefined
  let unsubscribe = () => {}
  let read = false
  let stored: { readonly version: string | undefined; readonly records: VoidEntries['records'] } | undefined
  let invalid: VoidEntries['invalid'] = []
  const queue = createWorkQueue({ work, log, random })
  const reflector = createReflector<V1ConfigMap>({
    client,
    path: configMapsPath(namespace),
    fieldSelector: `metadata.name=${name}`,
    strip: ({ metadata, data }) => ({ metadata: { ...metadata, managedFields: [] }, ...(data && { data }) }),
    onChange: () => queue.add(KEY),
    onListed: () => queue.add(KEY),
    log,
    random,
  })

  const current = () => reflector.get(name, namespace)

  function parse(data: Readonly<Record<string, string>>): VoidEntries {
    const findPod = (at: string, pod: string) => cluster.get('Pod', pod, at)?.metadata?.uid
    return parseEntries(data, { now: now(), findPod })
  }

  /** Takes in what others wrote, answers operators, then writes what the ConfigMap lacks. */
  async function work(): Promise<void> {
    // Whose Pod an entry concerns is not known before: it would be taken for one that is gone.
    if (!reflector.synced() || !cluster.synced()) return again(SYNC_CHECK_MS)
    const configMap = current()
    const entries = parse(configMap?.data ?? {})
    const unknown = [...entries.records].filter(([uid, record]) => !coversRecord(voids.get(uid), record))
    const pods = unknown.length === 0 ? new Map<string, V1Pod>() : livePods(cluster)
    for (const [uid, record] of unknown) takeIn(uid, record, pods.get(uid))
    for (const { uid, request, key, note } of entries.requests) {
      voids.merge(uid, answerRequest(request, voids.get(uid) ?? {}, now()))
      log.info({ key, uid, request, ...note }, 'an operator asks for a Pod')
    }
    report(entries.invalid)
    read = true
    if (configMap === undefined) await applyConfigMap(client, namespace, name, stopping.signal)
    else if (await write(configMap, changesOf(entries))) {
      for (const request of entries.requests) options.onAnswered?.(request)
    }
    for (const check of [...waiting]) check()
  }

  function isEnding(record: VoidRecord): boolean {
    return endOfRecord(record, keepSeconds) < now() + Math.min(LAST_SECONDS, keepSeconds * LAST_PART)
  }

  function takeIn(uid: string, record: VoidRecord, pod: V1Pod | undefined): void {
    if (endOfRecord(record, keepSeconds) < now()) return
    const { relabelled } = record
    const labels = pod && labelsOf(pod, namespaceOf(cluster, pod))
    if (pod !== undefined || relabelled === undefined) voids.merge(uid, record, labels)
    // Nobody knows any more what its WITs stand for.
    else voids.merge(uid, joinRecords(record, { ended: relabelled }))
  }

  function changesOf(entries: VoidEntries): Record<string, string | null> {
    const changes: Record<string, string | null> = {}
    const records = voids.records()
    for (const { key } of entries.requests) changes[key] = null
    for (const uid of entries.records.keys()) if (!records.has(uid)) changes[uid] = null
    for (const [uid, record] of records) {
      const asked = entries.requests.filter((request) => request.uid === uid)
      if (asked.length === 0 && (coversRecord(entries.records.get(uid), record) || isEnding(record))) continue
      changes[uid] = formatEntry(record, asked.map(noteOf).reduce(joinNotes, entries.notes.get(uid) ?? NO_NOTE))
    }
    return changes
  }

  /** Compare and swap: where somebody else wrote since (false), what they wrote is taken in first. */
  async function write(configMap: V1ConfigMap, changes: Record<string, string | null>): Promise<boolean> {
    if (Object.keys(changes).length === 0) return true
    const { resourceVersion = '' } = configMap.metadata ?? {}
    try {
      await patchConfigMap(client, { namespace, name, resourceVersion, data: changes, signal: stopping.signal })
      return true
    } catch (error) {
      if (!hasStatus(error, 409) && !hasStatus(error, 404)) throw error
      again(50 + 250 * random())
      return false
    }
  }

  function again(waitMs: number): void {
    void pause(waitMs, stopping.signal).then(() => queue.add(KEY))
  }

  function report(found: VoidEntries['invalid']): void {
    invalid = found
    for (const key of [...reported.keys()]) if (!found.some((entry) => entry.key === key)) reported.delete(key)
    for (const entry of found) {
      if (reported.get(entry.key) === entry.problem) continue
      reported.set(entry.key, entry.problem)
      log.warn({ configMap: name, ...entry }, 'an entry of the void list says nothing')
      options.onInvalid(entry)
    }
  }

  function isSettled(uid: string): boolean {
    const record = voids.get(uid)
    if (record === undefined || isEnding(record)) return read
    const { metadata, data = {} } = current() ?? {}
    if (stored === undefined || stored.version !== metadata?.resourceVersion) {
      stored = { version: metadata?.resourceVersion, records: parse(data).records }
    }
    return read && coversRecord(stored.records.get(uid), record)
  }

  return {
    start() {
      unsubscribe = voids.subscribe(() => {
        delay ??= setTimeout(() => {
          delay = undefined
          queue.add(KEY)
        }, WRITE_DELAY_MS * random())
      })
      timer = setInterval(() => queue.add(KEY), RESYNC_MS * (0.8 + 0.4 * random()))
      reflector.start()
    },
    synced: () => read,
    settled(uid) {
      if (isSettled(uid)) return Promise.resolve()
      queue.add(KEY)
      return new Promise((resolve, reject) => {
        const done = (settle: () => void) => {
          clearTimeout(limit)
          waiting.delete(check)
          settle()
        }
        const check = () => isSettled(uid) && done(resolve)
        const limit = setTimeout(
          () => done(() => reject(new WebhookError('cluster-unavailable', 'The void list cannot be written.'))),
          SETTLE_MS,
        )
        waiting.add(check)
      })
    },
    invalid: () => invalid,
    async stop() {
      stopping.abort()
      unsubscribe()
      clearInterval(timer)
      clearTimeout(delay)
      await Promise.all([queue.stop(), reflector.stop()])
    },
  }
}

const NO_NOTE: VoidNote = { words: [] }

/** What a request tells people: by name, whose it is. */
function noteOf({ key, uid, note }: VoidRequested): VoidNote {
  return key === uid ? note : joinNotes({ words: [key.replace('.', '/')] }, note)
}

/** All live Pods by their uid. */
export function livePods(cluster: Cluster): Map<string, V1Pod> {
  return new Map([...cluster.list('Pod')].filter(isLive).map((pod) => [pod.metadata?.uid ?? '', pod]))
}

export function namespaceOf(cluster: Cluster, { metadata }: V1Pod): V1Namespace | undefined {
  return cluster.get('Namespace', metadata?.namespace ?? '')
}

/** What a WIT of the Pod would say now. */
export function labelsOf(pod: V1Pod, namespace: V1Namespace | undefined) {
  return { labels: { ...pod.metadata?.labels }, namespaceLabels: { ...namespace?.metadata?.labels } }
}
