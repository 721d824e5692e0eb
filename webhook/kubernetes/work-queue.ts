import type { Logger } from 'pino'
import { type BackoffLimits, pause, retryDelayMs } from '../../kubernetes/backoff.ts'

/** Work by key: one round of a key at a time, and one more where it was asked for meanwhile; failures come again. */
export interface WorkQueue {
  add(key: string): void
  /** Resolves once nothing is under way. */
  stop(): Promise<void>
}

export interface WorkQueueOptions {
  /** Brings what `key` names to what it should be. */
  readonly work: (key: string) => Promise<void>
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random: () => number
  readonly backoff?: BackoffLimits
}

/** Enough that a slow answer holds up nobody, few enough that a new CA in 1,000 namespaces is no burst. */
const PARALLEL = 4

export function createWorkQueue({ work, log, random, backoff }: WorkQueueOptions): WorkQueue {
  const waiting = new Set<string>()
  const running = new Map<string, Promise<void>>()
  const attempts = new Map<string, number>()
  const stopping = new AbortController()

  async function round(key: string): Promise<void> {
    try {
      await work(key)
      attempts.delete(key)
    } catch (error) {
      if (stopping.signal.aborted) return
      const attempt = (attempts.get(key) ?? 0) + 1
      attempts.set(key, attempt)
      const waitMs = Math.round(retryDelayMs(error, attempt, random, backoff))
      const { message, name } = error as Error
      log.warn(
        { key, code: (error as { code?: unknown }).code ?? name, error: message, waitMs },
        'failed; trying again',
      )
      void pause(waitMs, stopping.signal).then(() => add(key))
    }
  }

  function add(key: string): void {
    if (stopping.signal.aborted) return
    waiting.add(key)
    startNext()
  }

  function startNext(): void {
    for (const key of waiting) {
      if (running.size >= PARALLEL) return
      if (running.has(key)) continue
      waiting.delete(key)
      const done = round(key).finally(() => {
        running.delete(key)
        if (!stopping.signal.aborted) startNext()
      })
      running.set(key, done)
    }
  }

  return {
    add,
    async stop() {
      stopping.abort()
      waiting.clear()
      await Promise.all(running.values())
    },
  }
}
