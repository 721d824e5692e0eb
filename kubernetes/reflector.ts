import type { Logger } from 'pino'
import { API_BACKOFF, type BackoffLimits, pause, retryDelayMs } from './backoff.ts'
import type { ApiClient } from './client.ts'
import { ApiError, hasStatus } from './errors.ts'

/** Of any object what a mirror needs. */
export interface StoredObject {
  readonly metadata?: { readonly name?: string; readonly namespace?: string; readonly resourceVersion?: string }
}

export interface ReflectorOptions<Kept extends StoredObject, Sent extends StoredObject = Kept> {
  readonly client: ApiClient
  /** `/api/v1/pods` */
  readonly path: string
  /** `metadata.name=synguard-ca`; all objects without it. */
  readonly fieldSelector?: string
  /** What is kept of an object. It must not throw: the object would be asked for again and again. */
  readonly strip: (object: Sent) => Kept
  /** Hears each change once get() shows it. Where it throws, that is logged and nothing else. */
  readonly onChange: (before: Kept | undefined, after: Kept | undefined) => void
  /** Hears that everything was listed, and so told, the first time and whenever the watch was too far behind. */
  readonly onListed?: () => void
  /** Hears what goes wrong and in how many milliseconds it is tried again; without it that is logged. */
  readonly onFailure?: (error: unknown, waitMs: number) => void
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random: () => number
  readonly backoff?: BackoffLimits
}

/** A mirror of a collection: listed once, then watched; it catches up by itself whatever happens in between. */
export interface Reflector<Kept extends StoredObject> {
  start(): void
  /** Resolves once nothing is under way. */
  stop(): Promise<void>
  get(name: string, namespace?: string): Kept | undefined
  values(): Iterable<Kept>
  /** True once everything was listed. */
  synced(): boolean
  /** Milliseconds since the API server last answered; 0 is now. */
  silentMs(): number
}

interface List<Sent> {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
  readonly items?: readonly Sent[]
}

interface WatchEvent<Sent> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: Sent & { readonly code?: number; readonly reason?: string; readonly message?: string }
}

/** A page of Pods is then about 2 MB of JSON, which is parsed at once and soon garbage. */
const PAGE = 200
/**
 * A page of more than one object takes no more: read, joined, decoded and parsed it is ten times as much for a moment,
 * and a sidecar has 192 MiB in all. One object alone may be as large as the API server lets it (3 MiB of JSON).
 */
const PAGE_BYTES = 4 * 1_048_576
/** By how much fewer objects are asked for where a page was too large; the rest of the list keeps to it. */
const PAGE_DIVISOR = 4
/** The API server ends a watch after this, +-20 %, so that watches spread over API servers again. */
const WATCH_SECONDS = 480
/** A watch that lived this long was a good one: the next failure starts the waiting times anew. */
const HEALTHY_MS = 10_000

export function createReflector<Kept extends StoredObject, Sent extends StoredObject = Kept>(
  options: ReflectorOptions<Kept, Sent>,
): Reflector<Kept> {
  const { client, path, strip, onChange, log, random, backoff = API_BACKOFF } = options
  const selector = options.fieldSelector === undefined ? {} : { fieldSelector: options.fieldSelector }
  const objects = new Map<string, Kept>()
  const stopping = new AbortController()
  let resourceVersion: string | undefined
  let isNewHistory = false
  let listed = false
  let contactAt = performance.now()
  let running: Promise<void> | undefined

  function heard(): void {
    contactAt = performance.now()
  }

  function put(key: string, after: Kept | undefined): void {
    const before = objects.get(key)
    if (before === undefined && after === undefined) return
    if (after === undefined) objects.delete(key)
    else objects.set(key, after)
    try {
      onChange(before, after)
    } catch (error) {
      log.error({ path, err: error }, 'a change could not be taken in')
    }
  }

  /** Reads a page into `found`; the result says from where the next one goes on. Of the page itself nothing stays. */
  async function listPage(found: Map<string, Kept>, limit: number, token: string | undefined) {
    const page = await client.send<List<Sent>>({
      method: 'GET',
      path,
      query: { ...selector, limit: String(limit), ...(token && { continue: token }) },
      ...(limit > 1 && { maxAnswerBytes: PAGE_BYTES }),
      signal: stopping.signal,
    })
    heard()
    for (const item of page.items ?? []) found.set(keyOf(item), strip(item))
    return page.metadata ?? {}
  }

  /** Reads everything, page by page, then tells what differs from what was known. */
  async function list(): Promise<void> {
    const found = new Map<string, Kept>()
    let limit = PAGE
    let end: List<Sent>['metadata']
    do {
      try {
        end = await listPage(found, limit, end?.continue)
      } catch (error) {
        if (!(error instanceof ApiError && error.code === 'api-too-large') || limit === 1) throw error
        limit = Math.max(1, Math.floor(limit / PAGE_DIVISOR))
      }
    } while (end === undefined || end.continue)
    for (const key of [...objects.keys()]) if (!found.has(key)) put(key, undefined)
    for (const [key, after] of found) {
      const isSame = objects.get(key)?.metadata?.resourceVersion === after.metadata?.resourceVersion
      // The numbers of a new history have another meaning.
      if (isNewHistory || !isSame) put(key, after)
    }
    resourceVersion = end.resourceVersion
    isNewHistory = false
    listed = true
    options.onListed?.()
  }

  /**
   * Whether the API server is at an earlier version than it told us before, as after its etcd was put back to a copy. It
   * would take a watch from a version that is to come, and say nothing until it comes. A list without a version is of now.
   */
  async function wentBack(): Promise<boolean> {
    const query = { ...selector, limit: '1' }
    const { metadata } = await client.send<List<Sent>>({ method: 'GET', path, query, signal: stopping.signal })
    heard()
    return isEarlier(metadata?.resourceVersion, resourceVersion)
  }

  /** Follows what changes from resourceVersion on, until the API server ends the watch. True where that was its time. */
  async function watch(): Promise<boolean> {
    const openedAt = performance.now()
    const timeoutSeconds = Math.round(WATCH_SECONDS * (0.8 + 0.4 * random()))
    const query = {
      ...selector,
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: resourceVersion ?? '',
      timeoutSeconds: String(timeoutSeconds),
    }
    const events = client.watch({ path, query, signal: stopping.signal }, heard) as AsyncGenerator<WatchEvent<Sent>>
    for await (const { type, object } of events) {
      heard()
      if (type === 'ERROR') {
        const { code = 500, reason = '', message = '' } = object
        throw new ApiError('api-refused', `watch ${path}: ${code} ${reason} ${message}`, { status: code, reason })
      }
      if (type === 'DELETED') put(keyOf(object), undefined)
      else if (type !== 'BOOKMARK') put(keyOf(object), strip(object))
      resourceVersion = object.metadata?.resourceVersion ?? resourceVersion
    }
    return performance.now() - openedAt >= timeoutSeconds * 1_000
  }

  async function run(): Promise<void> {
    let attempt = 0
    let isTime = true
    while (!stopping.signal.aborted) {
      let failure: unknown
      const startedAt = performance.now()
      // Who ended a watch before its time may have been another API server than who answers next.
      const isChecked = !isTime
      isTime = false
      try {
        if (resourceVersion !== undefined && isChecked && (await wentBack())) {
          log.warn({ path, resourceVersion }, 'the API server went back to an earlier version: listing anew')
          resourceVersion = undefined
          isNewHistory = true
        }
        if (resourceVersion === undefined) await list()
        isTime = await watch()
      } catch (error) {
        failure = error
      }
      if (stopping.signal.aborted) return
      // Ended at its time, which is random, the next one may follow at once. An API server that stops ends all at once.
      const healthy = performance.now() - startedAt >= HEALTHY_MS
      attempt = isTime ? 0 : healthy ? 1 : attempt + 1
      if (hasStatus(failure, 410)) resourceVersion = undefined
      const waitMs = attempt === 0 ? 0 : retryDelayMs(failure, attempt, random, backoff)
      if (failure !== undefined) (options.onFailure ?? report)(failure, waitMs)
      await pause(waitMs, stopping.signal)
    }
  }

  function report(failure: unknown, waitMs: number): void {
    const error = failure instanceof Error ? failure : new Error(String(failure))
    const fields = {
      path,
      code: 'code' in error ? error.code : error.name,
      error: error.message,
      waitMs: Math.round(waitMs),
    }
    if (hasStatus(failure, 410)) log.info(fields, 'the watch is too far behind: listing anew')
    else log.warn(fields, 'the API server cannot be watched')
  }

  return {
    start() {
      running ??= run()
    },
    async stop() {
      stopping.abort()
      await running
    },
    get: (name, namespace = '') => objects.get(`${namespace}/${name}`),
    values: () => objects.values(),
    synced: () => listed,
    silentMs: () => performance.now() - contactAt,
  }
}

/** Versions grow as whole numbers do (KEP-5504); of others nothing is said. */
function isEarlier(version = '', known = ''): boolean {
  return /^\d+$/.test(version) && /^\d+$/.test(known) && BigInt(version) < BigInt(known)
}

function keyOf({ metadata }: StoredObject): string {
  return `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`
}
