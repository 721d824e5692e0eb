import type { VoidEntry } from '../../api/identity.ts'
import { VOIDS } from '../limits.ts'

/** The WITs that no longer say the truth, until the last of them has expired. */
export interface VoidList {
  /** Adds an entry, or replaces the Pod's earlier one where the new one reaches as far. Tells the listeners. */
  add(entry: VoidEntry): void
  /** The entries that can still concern a WIT. */
  entries(): readonly VoidEntry[]
  /** Whether a WIT of that Pod is refused outright (an entry with labels only overrides what it says). */
  isRevoked(uid: string, issuedAt: number): boolean
  /** The first second in which a new WIT of that Pod is not void. */
  issuableFrom(uid: string): number
  subscribe(listener: (entry: VoidEntry) => void): () => void
}

export interface VoidListOptions {
  /** Seconds since the epoch. */
  readonly now: () => number
  /** Lifetime of WITs and skew: an entry is forgotten when the last WIT it can concern has expired. */
  readonly keepSeconds: number
}

export function createVoidList({ now, keepSeconds }: VoidListOptions): VoidList {
  // Two kinds a Pod: an override must not take the place of a revocation.
  const revoked = new Map<string, VoidEntry>()
  const overridden = new Map<string, VoidEntry>()
  const listeners = new Set<(entry: VoidEntry) => void>()

  function prune(): void {
    for (const list of [revoked, overridden]) {
      for (const [uid, { iatBefore }] of list) if (iatBefore + keepSeconds < now()) list.delete(uid)
      // Overrides only: the WITs they concern are renewed at once. A revocation is never forgotten early.
      if (list === overridden) {
        for (const uid of list.keys()) {
          if (list.size <= VOIDS) break
          list.delete(uid)
        }
      }
    }
  }

  return {
    add(entry) {
      const list = entry.labels === undefined && entry.namespaceLabels === undefined ? revoked : overridden
      if ((list.get(entry.uid)?.iatBefore ?? 0) > entry.iatBefore) return
      list.delete(entry.uid)
      list.set(entry.uid, entry)
      prune()
      for (const listener of [...listeners]) listener(entry)
    },
    entries() {
      prune()
      return [...revoked.values(), ...overridden.values()]
    },
    isRevoked: (uid, issuedAt) => issuedAt <= (revoked.get(uid)?.iatBefore ?? -1),
    issuableFrom: (uid) => Math.max(revoked.get(uid)?.iatBefore ?? -1, overridden.get(uid)?.iatBefore ?? -1) + 1,
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
