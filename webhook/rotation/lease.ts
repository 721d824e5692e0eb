import type { LeaseRecord, LeaseStore } from './store.ts'

export interface LeaseOptions {
  readonly store: LeaseStore
  readonly name: string
  /** Seconds on a clock that only runs. */
  readonly elapsed: () => number
  /** A holder from whom nothing is heard for so long is followed by another. */
  readonly seconds: number
}

/**
 * Who steps: one replica at a time, so that two do not do all the work to let one of them lose. Nothing depends on it being
 * only one, as every write is compare-and-swap. As in client-go, clocks of two replicas are not compared: each counts
 * from when it saw the last renewal.
 */
export function createLease({ store, name, elapsed, seconds }: LeaseOptions) {
  let seen: { readonly lease: LeaseRecord; readonly at: number } | undefined

  /** Takes or renews the lease; whether this replica holds it. Rejects as the store does. */
  return async function hold(): Promise<boolean> {
    const { value: lease, version } = await store.readLease()
    const isNews = lease?.holder !== seen?.lease.holder || lease?.beat !== seen?.lease.beat
    if (lease !== undefined && isNews) seen = { lease, at: elapsed() }
    const isOthers = lease !== undefined && lease.holder !== name
    if (isOthers && seen !== undefined && elapsed() - seen.at < seconds) return false
    const next = { holder: name, beat: (lease?.beat ?? 0) + 1 }
    return store.writeLease(next, version)
  }
}
