/** Waiting times as pure functions; randomness (a number in [0, 1), as Math.random gives it) is passed in. */

export interface BackoffLimits {
  readonly initialMs: number
  readonly maxMs: number
}

/**
 * The wait before retry number `attempt` (0 for the first), in milliseconds: doubling from initialMs up to maxMs, of
 * which the upper half is random, so that many sidecars that failed together do not return together.
 */
export function backoffMs(attempt: number, limits: BackoffLimits, random: () => number): number {
  // 2 ** 30 times any start is past every cap; without the bound a long outage would reach Infinity.
  const full = Math.min(limits.maxMs, limits.initialMs * 2 ** Math.min(Math.max(attempt, 0), 30))
  return full / 2 + (full / 2) * random()
}

/** `ms` moved by up to `fraction` of itself in either direction. */
export function jitterMs(ms: number, fraction: number, random: () => number): number {
  return ms * (1 + fraction * (2 * random() - 1))
}

/**
 * The wait that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or an HTTP date), in milliseconds from `nowMs`
 * and at most `maxMs`, so that one bad answer cannot silence a sidecar; undefined where it is absent or malformed.
 */
export function parseRetryAfter(header: string | undefined, nowMs: number, maxMs: number): number | undefined {
  if (header === undefined) return undefined
  const text = header.trim()
  if (/^\d{1,9}$/.test(text)) return Math.min(Number(text) * 1000, maxMs)
  // An HTTP date ends in GMT; anything else that Date.parse would accept ("1", "-5") is no HTTP date.
  if (!/^[A-Z][a-z]{2}, .* GMT$/.test(text)) return undefined
  const at = Date.parse(text)
  return Number.isNaN(at) ? undefined : Math.min(Math.max(at - nowMs, 0), maxMs)
}
