import type { Logger } from 'pino'
import { type BackoffLimits, pause, retryDelayMs } from '../../kubernetes/backoff.ts'

export interface RetryOptions {
  readonly log: Logger
  readonly signal: AbortSignal
  readonly random: () => number
  readonly backoff?: BackoffLimits
}

/**
 * Repeats `work` until it succeeds, with longer and longer waits, and says what went wrong each time. Resolves with
 * undefined where `signal` ends it.
 */
export async function persist<Result>(
  what: string,
  { log, signal, random, backoff }: RetryOptions,
  work: () => Promise<Result>,
): Promise<Result | undefined> {
  for (let attempt = 1; !signal.aborted; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (signal.aborted) break
      const waitMs = Math.round(retryDelayMs(error, attempt, random, backoff))
      const { message, name } = error as Error
      const code = (error as { code?: unknown }).code ?? name
      log.error({ what, code, error: message, waitMs }, 'failed; trying again')
      await pause(waitMs, signal)
    }
  }
  return undefined
}
