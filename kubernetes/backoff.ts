import { ApiError } from './errors.ts'

/** Waits between attempts, in milliseconds. */
export interface BackoffLimits {
  readonly initialMs: number
  readonly maxMs: number
}

/** Half of client-go's cap: what waits for it may be a policy that denies. */
export const API_BACKOFF: BackoffLimits = { initialMs: 500, maxMs: 15_000 }

/**
 * The wait before attempt number `attempt` (1 for the first that repeats), in milliseconds: doubling, of which the upper
 * half is random (`random` gives 0 up to 1), so that replicas that failed together do not return together; and never
 * less than what the API server asked for.
 */
export function retryDelayMs(
  error: unknown,
  attempt: number,
  random: () => number,
  { initialMs, maxMs }: BackoffLimits = API_BACKOFF,
): number {
  // 2 ** 30 times any start is past every cap.
  const full = Math.min(maxMs, initialMs * 2 ** Math.min(Math.max(attempt - 1, 0), 30))
  const asked = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0
  return Math.max(full / 2, asked) + (full / 2) * random()
}

/** Resolves after `ms`, or at once when `signal` is aborted; never rejects. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}
