/** Rate limits; time is passed in. */
import { createBoundedMap } from './bounded-map.ts'

export interface TokenBucket {
  /** Takes one token; false where none is left. */
  take(nowMilliseconds: number): boolean
}

/** A bucket of `burst` tokens, refilled at `perSecond`. */
export function createTokenBucket(perSecond: number, burst: number): TokenBucket {
  let tokens = burst
  let last = Number.NEGATIVE_INFINITY
  return {
    take(now) {
      if (now > last) {
        tokens = last === Number.NEGATIVE_INFINITY ? burst : Math.min(burst, tokens + ((now - last) / 1000) * perSecond)
        last = now
      }
      if (tokens < 1) return false
      tokens--
      return true
    },
  }
}

/** One bucket a source, the oldest source forgotten first above `maximumSources`. */
export function createSourceBuckets(
  perSecond: number,
  burst: number,
  maximumSources: number,
): { take(source: string, nowMilliseconds: number): boolean } {
  const buckets = createBoundedMap<string, TokenBucket>(maximumSources)
  return {
    take(source, now) {
      let bucket = buckets.get(source)
      if (!bucket) {
        bucket = createTokenBucket(perSecond, burst)
        buckets.set(source, bucket)
      }
      return bucket.take(now)
    },
  }
}
