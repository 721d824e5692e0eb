/** A Map that forgets its oldest entry rather than grow past its bound. */
export interface BoundedMap<K, V> {
  get(key: K): V | undefined
  has(key: K): boolean
  /** Returns the value of the entry that had to go for a new one. A key set again keeps its age. */
  set(key: K, value: V): V | undefined
  delete(key: K): void
  values(): Iterable<V>
  clear(): void
  size(): number
}

export function createBoundedMap<K, V>(maximum: number): BoundedMap<K, V> {
  const entries = new Map<K, V>()
  // Kept from one time to the next: a new iterator would pass over all that was deleted since the Map last grew.
  let byAge = entries.entries()

  function forgetOldest(): V | undefined {
    let oldest = byAge.next()
    if (oldest.done) {
      byAge = entries.entries()
      oldest = byAge.next()
    }
    if (oldest.done) return undefined
    entries.delete(oldest.value[0])
    return oldest.value[1]
  }

  return {
    get: (key) => entries.get(key),
    has: (key) => entries.has(key),
    set(key, value) {
      const forgotten = entries.size >= maximum && !entries.has(key) ? forgetOldest() : undefined
      entries.set(key, value)
      return forgotten
    },
    delete(key) {
      entries.delete(key)
    },
    values: () => entries.values(),
    clear: () => entries.clear(),
    size: () => entries.size,
  }
}
