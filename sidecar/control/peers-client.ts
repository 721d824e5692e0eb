import type { DirectoryEntry } from '../../api/identity.ts'
import { ControlError, IssuerRefusal } from './errors.ts'
import type { IssuerHttp } from './issuer-http.ts'
import { parseDirectoryEntry } from './issuer-messages.ts'

/** What is known of an address, or that it cannot be asked: then only ipBlock rules may match it. */
export type PeerAnswer =
  | { readonly kind: 'known'; readonly entry: DirectoryEntry }
  | { readonly kind: 'cannot-ask'; readonly reason: string }

export interface PeersClientOptions {
  readonly http: IssuerHttp
  readonly authenticate: (path: string) => Promise<Record<string, string>>
  readonly now: () => number
  /** The stream should subscribe to new addresses: at most once in subscribeDelayMs. */
  readonly onUnsubscribed?: () => void
  /** Hears of entries that came to be or changed, whatever brought them. */
  readonly onEntry?: (address: string, entry: DirectoryEntry) => void
  readonly limits?: Partial<PeersLimits>
}

export interface PeersLimits {
  /** Requests at a time; further ones wait. */
  readonly concurrency: number
  /** Requests that may wait; beyond, the answer is `cannot-ask` at once. */
  readonly waiting: number
  readonly maxEntries: number
  /** Addresses in a StreamRequest: the ones used last. */
  readonly maxSubscribed: number
  readonly timeoutMs: number
  /** How long an answer stands that no stream watches over. */
  readonly unwatchedMs: number
  /** How long an entry stands while the issuer cannot be asked, from when it was last known to be right. */
  readonly staleMs: number
  /** After a failure the issuer is left alone for this long. */
  readonly pauseMs: number
  readonly subscribeDelayMs: number
}

const LIMITS: PeersLimits = {
  concurrency: 16,
  waiting: 1024,
  maxEntries: 10_000,
  maxSubscribed: 1000,
  timeoutMs: 3000,
  unwatchedMs: 30_000,
  staleMs: 600_000,
  pauseMs: 1000,
  subscribeDelayMs: 5000,
}

interface Row {
  readonly entry: DirectoryEntry
  /** When it was last known to be right, in milliseconds. */
  readonly confirmedAtMs: number
  /** Known to be right since the stream that is open now began to tell its changes. */
  readonly watched: boolean
}

export interface PeersClient {
  /** The entry where it is known to be right now, without asking. */
  peek(address: string): DirectoryEntry | undefined
  /** The entry of a canonical address, from the cache or the issuer. Never rejects. */
  ask(address: string): Promise<PeerAnswer>
  /** A `directory` message of the stream. */
  update(address: string, entry: DirectoryEntry): void
  /** The stream said hello and tells the changes of these addresses from now on. */
  streamOpened(addresses: readonly string[]): void
  streamLost(): void
  /** What the next stream should watch over, used last first. */
  addresses(): readonly string[]
  size(): number
  stop(): void
}

/** The path of a question, the same for the request and its proof. */
function pathOf(address: string): string {
  return `/v1/peers?ip=${encodeURIComponent(address)}`
}

/** Whether a failure says something of the issuer, and not only of the address asked: a peer picks its address. */
function concernsAll(error: unknown): boolean {
  if (error instanceof IssuerRefusal) return error.status >= 500 || [401, 403, 429].includes(error.status)
  return !(error instanceof ControlError && error.code === 'issuer-answer')
}

/** Addresses outside the cluster are many, and asking again after unwatchedMs is enough for them. */
function worthWatching(entry: DirectoryEntry): boolean {
  return entry.kind !== 'external'
}

/**
 * The directory as this sidecar knows it. An entry that the open stream watches over stands; another is asked for anew
 * after unwatchedMs. Where the issuer cannot be asked, an entry stands for staleMs more, then nothing is known of it.
 */
export function createPeersClient(options: PeersClientOptions): PeersClient {
  const limits: PeersLimits = { ...LIMITS, ...options.limits }
  const { now } = options
  // In the order of use, so that the first is the one to forget.
  const rows = new Map<string, Row>()
  const asked = new Map<string, Promise<PeerAnswer>>()
  const queue: (() => void)[] = []
  const aborter = new AbortController()
  let running = 0
  let pausedUntilMs = Number.NEGATIVE_INFINITY
  let pauseReason = ''
  let subscribed: ReadonlySet<string> | undefined
  let subscribeTimer: NodeJS.Timeout | undefined
  /** Counts streams and updates: an answer that was on its way meanwhile must not overwrite what they said. */
  const changed = new Map<string, number>()
  let streams = 0

  function fresh(row: Row): boolean {
    return row.watched || now() - row.confirmedAtMs < limits.unwatchedMs
  }

  function store(address: string, entry: DirectoryEntry, watched: boolean): void {
    rows.delete(address)
    if (rows.size >= limits.maxEntries) {
      const [oldest] = rows.keys()
      if (oldest !== undefined) rows.delete(oldest)
    }
    rows.set(address, { entry, confirmedAtMs: now(), watched })
    options.onEntry?.(address, entry)
  }

  function peek(address: string): DirectoryEntry | undefined {
    const row = rows.get(address)
    if (row === undefined || !fresh(row)) return undefined
    rows.delete(address)
    rows.set(address, row)
    return row.entry
  }

  /** What stands where the issuer gives no answer. */
  function withoutAnswer(address: string, reason: string): PeerAnswer {
    const row = rows.get(address)
    if (row !== undefined && (row.watched || now() - row.confirmedAtMs < limits.staleMs)) {
      return { kind: 'known', entry: row.entry }
    }
    rows.delete(address)
    return { kind: 'cannot-ask', reason }
  }

  async function turn(): Promise<void> {
    if (running < limits.concurrency) running += 1
    // Whoever ends hands its place over, so `running` stays as it is.
    else await new Promise<void>((resolve) => queue.push(resolve))
  }

  function endTurn(): void {
    const next = queue.shift()
    if (next === undefined) running -= 1
    else next()
  }

  async function fetchEntry(address: string): Promise<PeerAnswer> {
    await turn()
    try {
      if (now() < pausedUntilMs) return withoutAnswer(address, pauseReason)
      const stream = streams
      changed.set(address, 0)
      const path = pathOf(address)
      const headers = await options.authenticate(path)
      const { timeoutMs } = limits
      const body = await options.http.send({ method: 'GET', path, headers, timeoutMs, signal: aborter.signal })
      const entry = parseDirectoryEntry(body)
      const newer = rows.get(address)
      // The stream told a change while the answer was on its way: the answer may be the older of the two.
      if (changed.get(address) !== 0 && newer !== undefined) return { kind: 'known', entry: newer.entry }
      const watched = stream === streams && (subscribed?.has(address) ?? false)
      store(address, entry, watched)
      if (!watched && subscribed !== undefined && worthWatching(entry)) wantSubscription()
      return { kind: 'known', entry }
    } catch (error) {
      const reason = error instanceof ControlError ? error.message : String(error)
      if (concernsAll(error)) {
        const askedMs = error instanceof IssuerRefusal ? (error.retryAfterMs ?? 0) : 0
        pauseReason = reason
        pausedUntilMs = now() + Math.max(limits.pauseMs, askedMs)
      }
      return withoutAnswer(address, reason)
    } finally {
      changed.delete(address)
      endTurn()
    }
  }

  function wantSubscription(): void {
    if (subscribeTimer !== undefined || options.onUnsubscribed === undefined || aborter.signal.aborted) return
    subscribeTimer = setTimeout(() => {
      subscribeTimer = undefined
      options.onUnsubscribed?.()
    }, limits.subscribeDelayMs)
    subscribeTimer.unref()
  }

  return {
    peek,
    async ask(address) {
      const entry = peek(address)
      if (entry !== undefined) return { kind: 'known', entry }
      const under = asked.get(address)
      if (under !== undefined) return under
      if (now() < pausedUntilMs) return withoutAnswer(address, pauseReason)
      if (queue.length >= limits.waiting) return withoutAnswer(address, 'too many addresses are being asked for')
      const answer = fetchEntry(address).finally(() => asked.delete(address))
      asked.set(address, answer)
      return answer
    },
    update(address, entry) {
      const pending = changed.get(address)
      if (pending !== undefined) changed.set(address, pending + 1)
      store(address, entry, subscribed?.has(address) ?? false)
    },
    streamOpened(addresses) {
      streams += 1
      subscribed = new Set(addresses)
      // The issuer that was away is back.
      pausedUntilMs = Number.NEGATIVE_INFINITY
      clearTimeout(subscribeTimer)
      subscribeTimer = undefined
    },
    streamLost() {
      streams += 1
      subscribed = undefined
      for (const [address, row] of rows) {
        if (row.watched) rows.set(address, { ...row, watched: false, confirmedAtMs: now() })
      }
    },
    addresses: () =>
      [...rows]
        .filter(([, row]) => worthWatching(row.entry))
        .map(([address]) => address)
        .reverse()
        .slice(0, limits.maxSubscribed),
    size: () => rows.size,
    stop() {
      aborter.abort()
      clearTimeout(subscribeTimer)
    },
  }
}
