import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import type { ApiClient } from '../kubernetes/client.ts'
import { hasStatus } from '../kubernetes/errors.ts'
import { EVENT_BURST, EVENT_KEYS, EVENT_NAMESPACES, EVENT_REFILL_MS } from './limits.ts'
import type { WebhookMetrics } from './metrics.ts'

/** What an Event is about. */
export interface EventSubject {
  readonly apiVersion: string
  readonly kind: string
  readonly name: string
  readonly namespace: string
  readonly uid?: string
}

export interface EventToWrite {
  readonly subject: EventSubject
  readonly type: 'Normal' | 'Warning'
  /** CamelCase, of a fixed set. */
  readonly reason: string
  /** What tells Events of one subject and reason apart; those that share it are counted in one. */
  readonly code: string
  readonly message: string
}

/** Writes Events where people look for them. What repeats is counted in one Event, and nobody can make many. */
export interface EventRecorder {
  /** Returns at once; what cannot be written is dropped and counted. */
  record(event: EventToWrite): void
  /** Writes what waits to be counted. */
  stop(): Promise<void>
}

export interface EventRecorderOptions {
  readonly client: ApiClient
  /** Its Events have a name of their own. */
  readonly replica: string
  readonly metrics: Pick<WebhookMetrics, 'events' | 'eventsDropped'>
  readonly log: Logger
  /** How long repetitions are gathered, where not GATHER_MS. */
  readonly gatherMs?: number
}

/** A controller repeats a refused Pod every few seconds, then more and more seldom. */
const GATHER_MS = 60_000
const SOURCE = 'synguard-webhook'
/** The API server's bound. */
const MESSAGE_CHARACTERS = 1_024

interface Known {
  readonly name: string
  event: EventToWrite
  firstAt: string
  lastAt: string
  count: number
  timer: NodeJS.Timeout | undefined
}

export function createEventRecorder(options: EventRecorderOptions): EventRecorder {
  const { client, replica, metrics, log, gatherMs = GATHER_MS } = options
  /** In the order of their last use. */
  const known = new Map<string, Known>()
  const buckets = new Map<string, { tokens: number; at: number }>()
  const running = new Set<Promise<void>>()
  let stopped = false

  /** Whether a namespace may have one more Event now. */
  function take(namespace: string): boolean {
    const now = performance.now()
    const bucket = buckets.get(namespace) ?? { tokens: EVENT_BURST, at: now }
    bucket.tokens = Math.min(EVENT_BURST, bucket.tokens + (now - bucket.at) / EVENT_REFILL_MS)
    bucket.at = now
    buckets.delete(namespace)
    buckets.set(namespace, bucket)
    dropFirst(buckets, EVENT_NAMESPACES)
    if (bucket.tokens < 1) return false
    bucket.tokens--
    return true
  }

  function write(one: Known): void {
    const done = send(one).catch((error: unknown) => {
      metrics.eventsDropped.inc({ reason: one.event.reason })
      const { message } = error as Error
      log.warn({ namespace: one.event.subject.namespace, reason: one.event.reason, error: message }, 'no Event written')
    })
    running.add(done)
    void done.finally(() => running.delete(done))
  }

  async function send(one: Known): Promise<void> {
    const path = `/api/v1/namespaces/${one.event.subject.namespace}/events`
    const { lastAt: lastTimestamp, count } = one
    if (count > 1) {
      try {
        const body = { lastTimestamp, count, message: messageOf(one.event) }
        const contentType = 'application/merge-patch+json'
        await client.send({ method: 'PATCH', path: `${path}/${one.name}`, contentType, body })
        return metrics.events.inc({ reason: one.event.reason })
      } catch (error) {
        // The API server forgets Events after an hour.
        if (!hasStatus(error, 404)) throw error
      }
    }
    await client.send({ method: 'POST', path, body: eventObject(one, replica) })
    metrics.events.inc({ reason: one.event.reason })
  }

  return {
    record(event) {
      if (stopped) return
      const { namespace, kind, name, uid = '' } = event.subject
      const key = JSON.stringify([namespace, kind, name, uid, event.reason, event.code])
      const at = new Date().toISOString()
      const found = known.get(key)
      if (found !== undefined) {
        Object.assign(found, { event, lastAt: at, count: found.count + 1 })
        found.timer ??= setTimeout(() => {
          found.timer = undefined
          if (take(namespace)) write(found)
          else metrics.eventsDropped.inc({ reason: event.reason })
        }, gatherMs).unref()
        known.delete(key)
        known.set(key, found)
        return
      }
      if (!take(namespace)) return metrics.eventsDropped.inc({ reason: event.reason })
      const digest = createHash('sha256').update(`${replica} ${at} ${key}`).digest('hex').slice(0, 16)
      const one = { name: `synguard.${digest}`, event, firstAt: at, lastAt: at, count: 1, timer: undefined }
      known.set(key, one)
      dropFirst(known, EVENT_KEYS, ({ timer }) => clearTimeout(timer))
      write(one)
    },
    async stop() {
      stopped = true
      for (const one of known.values()) {
        if (one.timer === undefined) continue
        clearTimeout(one.timer)
        write(one)
      }
      await Promise.all(running)
    },
  }
}

function dropFirst<Value>(from: Map<string, Value>, most: number, onDrop: (value: Value) => void = () => {}): void {
  for (const [key, value] of from) {
    if (from.size <= most) return
    from.delete(key)
    onDrop(value)
  }
}

function messageOf({ message }: EventToWrite): string {
  return message.length > MESSAGE_CHARACTERS ? `${message.slice(0, MESSAGE_CHARACTERS - 1)}…` : message
}

function eventObject({ name, event, firstAt, lastAt, count }: Known, replica: string) {
  const { subject, type, reason } = event
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name, namespace: subject.namespace },
    involvedObject: subject,
    type,
    reason,
    message: messageOf(event),
    source: { component: SOURCE },
    reportingComponent: SOURCE,
    reportingInstance: replica,
    firstTimestamp: firstAt,
    lastTimestamp: lastAt,
    count,
  }
}
