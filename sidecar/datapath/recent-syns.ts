/** SYNs that this Pod's applications sent lately. */

export interface RecentSyn {
  isn: number
  /** How often this SYN was seen, the first included. */
  sent: number
  /** Bytes of the frame that it was sent with, or 0. */
  frameBytes: number
  released: boolean
  /** Its TCP options and window, for a plain copy. */
  options: Buffer
  window: number
  /** SYN-ACKs that came after the one that released the connection. */
  repeatedSynAcks: number
}

export interface RecentSyns {
  /** Notes a SYN and returns its record; a new sequence number is a new connection on the same tuple. */
  note(key: string, isn: number): RecentSyn
  find(key: string): RecentSyn | undefined
}

const NONE = Buffer.alloc(0)

/** Keeps the last `capacity` tuples, the oldest forgotten first. */
export function createRecentSyns(capacity: number): RecentSyns {
  const byKey = new Map<string, RecentSyn>()
  return {
    find: (key) => byKey.get(key),
    note(key, isn) {
      const known = byKey.get(key)
      if (known && known.isn === isn) {
        known.sent++
        return known
      }
      if (known) byKey.delete(key)
      else if (byKey.size >= capacity) {
        for (const oldest of byKey.keys()) {
          byKey.delete(oldest)
          break
        }
      }
      const syn = { isn, sent: 1, frameBytes: 0, released: false, options: NONE, window: 0, repeatedSynAcks: 0 }
      byKey.set(key, syn)
      return syn
    },
  }
}
