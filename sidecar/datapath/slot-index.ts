/** Tables of connections as plain numbers: nothing for the garbage collector to look at, nothing allocated after the start. */
import { type ConnectionKey, MAXIMUM_KEY_WORDS } from './connection-key.ts'
import { type HashSeed, hashWords } from './keyed-hash.ts'

/** Finds slots, numbers below a capacity, by a key. A slot has one key or none, a key one slot or none. */
export interface SlotIndex {
  /** The slot that has the key, or -1. */
  find(key: ConnectionKey): number
  /** Gives the slot a key, a copy of this one; whatever had that key, and the slot's former key, are forgotten. */
  put(slot: number, key: ConnectionKey): void
  /** Takes the slot's key away, if it has one. */
  remove(slot: number): void
  /** Slots with a key. */
  size(): number
}

/** Where things are in a slot's row of words. */
const NEXT = 0
const HASH = 1
const LENGTH = 2
const KEY = 3
const ROW_WORDS = KEY + MAXIMUM_KEY_WORDS

/**
 * A hash table with a chain for each hash. A link is a slot's number plus one, 0 the end of a chain: so all begins as
 * zeros, and memory that nobody has written yet costs no page.
 */
export function createSlotIndex(capacity: number, seed: HashSeed): SlotIndex {
  const buckets = 1 << (32 - Math.clz32(capacity - 1))
  const first = new Int32Array(buckets)
  const rows = new Int32Array(capacity * ROW_WORDS)
  let size = 0

  function hasKey(row: number, key: ConnectionKey, hash: number): boolean {
    if (rows[row + HASH] !== hash || rows[row + LENGTH] !== key.length) return false
    for (let i = 0; i < key.length; i++) if (rows[row + KEY + i] !== key.words[i]) return false
    return true
  }

  function findHashed(key: ConnectionKey, hash: number): number {
    let link = first[hash & (buckets - 1)] as number
    while (link !== 0) {
      const row = (link - 1) * ROW_WORDS
      if (hasKey(row, key, hash)) return link - 1
      link = rows[row + NEXT] as number
    }
    return -1
  }

  function remove(slot: number): void {
    const row = slot * ROW_WORDS
    if (rows[row + LENGTH] === 0) return
    const bucket = (rows[row + HASH] as number) & (buckets - 1)
    const next = rows[row + NEXT] as number
    if (first[bucket] === slot + 1) {
      first[bucket] = next
    } else {
      let before = ((first[bucket] as number) - 1) * ROW_WORDS
      while (rows[before + NEXT] !== slot + 1) before = ((rows[before + NEXT] as number) - 1) * ROW_WORDS
      rows[before + NEXT] = next
    }
    rows[row + LENGTH] = 0
    size--
  }

  return {
    find: (key) => findHashed(key, hashWords(seed, key.words, key.length)),
    put(slot, key) {
      const hash = hashWords(seed, key.words, key.length)
      const holder = findHashed(key, hash)
      if (holder === slot) return
      if (holder !== -1) remove(holder)
      remove(slot)
      const row = slot * ROW_WORDS
      const bucket = hash & (buckets - 1)
      rows[row + NEXT] = first[bucket] as number
      rows[row + HASH] = hash
      rows[row + LENGTH] = key.length
      for (let i = 0; i < key.length; i++) rows[row + KEY + i] = key.words[i] as number
      first[bucket] = slot + 1
      size++
    },
    remove,
    size: () => size,
  }
}

/** A slot index that gives its slots out in a circle: a new key takes the slot that was given out first. */
export interface SlotRing {
  find(key: ConnectionKey): number
  /** The oldest slot, which has this key from now on, and no other slot has. */
  claim(key: ConnectionKey): number
  size(): number
}

export function createSlotRing(capacity: number, seed: HashSeed): SlotRing {
  const index = createSlotIndex(capacity, seed)
  let next = 0
  return {
    find: index.find,
    claim(key) {
      const slot = next
      next = next + 1 === capacity ? 0 : next + 1
      index.put(slot, key)
      return slot
    },
    size: index.size,
  }
}
