import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { type ConnectionKey, MAXIMUM_KEY_WORDS } from '../../../sidecar/datapath/connection-key.ts'
import { hashWords } from '../../../sidecar/datapath/keyed-hash.ts'
import { createSlotIndex, createSlotRing } from '../../../sidecar/datapath/slot-index.ts'
import { keyOf } from './keys.ts'

describe('the tables’ hash', () => {
  // lib/test_siphash.c of Linux: the key's bytes are 0 to 7, the input's 0 to length - 1.
  it.each([
    [0, 0x5814c896],
    [4, 0x7e059ea6],
    [8, 0x577999b1],
    [12, 0x6b28096c],
    [16, 0x8b31d501],
    [20, 0x911bb605],
    [40, 0x05327eb2],
  ])('is HalfSipHash-1-3, with %d bytes as the kernel has it', (bytes, hash) => {
    const input = Int32Array.from({ length: bytes / 4 }, (_, i) => 0x03020100 + i * 0x04040404)
    expect(hashWords({ low: 0x03020100, high: 0x07060504 }, input, input.length) >>> 0).toBe(hash)
  })

  it('differs from seed to seed, so that keys which fall together here do not elsewhere', () => {
    const bucket = (low: number, word: number) => hashWords({ low, high: 0 }, Int32Array.from([word]), 1) & 0xff
    const together = Array.from({ length: 100_000 }, (_, word) => word).filter((word) => bucket(1, word) === 0)
    expect(together.length).toBeGreaterThan(300)
    const elsewhere = new Set(together.map((word) => bucket(2, word)))
    expect(elsewhere.size).toBeGreaterThan(128)
  })
})

const seeds = fc.record({ low: fc.integer(), high: fc.integer() })
// Few keys for few slots: they meet again often, some are others' beginnings, and chains grow.
const keys = fc
  .array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: MAXIMUM_KEY_WORDS })
  .map((words) => keyOf(...words))

const nameOf = (key: ConnectionKey) => key.words.join()

describe('an index of slots', () => {
  it('finds and forgets as a Map does whose keys and values are both unique', () => {
    const steps = fc.array(
      fc.record({ kind: fc.constantFrom('put', 'put', 'remove', 'find'), slot: fc.nat(4), key: keys }),
      { minLength: 1, maxLength: 300 },
    )
    fc.assert(
      fc.property(seeds, steps, (seed, list) => {
        const index = createSlotIndex(5, seed)
        const model = new Map<string, number>()
        const forget = (slot: number) => {
          for (const [name, holder] of model) if (holder === slot) model.delete(name)
        }
        for (const { kind, slot, key } of list) {
          if (kind === 'put') {
            index.put(slot, key)
            forget(slot)
            model.set(nameOf(key), slot)
          } else if (kind === 'remove') {
            index.remove(slot)
            forget(slot)
          }
          expect([index.find(key), index.size()]).toEqual([model.get(nameOf(key)) ?? -1, model.size])
        }
        for (const { key } of list) expect(index.find(key)).toBe(model.get(nameOf(key)) ?? -1)
      }),
      { numRuns: 500 },
    )
  })

  it('takes no note of a key that changes after it was given', () => {
    const index = createSlotIndex(2, { low: 1, high: 1 })
    const key = keyOf(1, 2, 3)
    index.put(0, key)
    key.words[2] = 4
    expect([index.find(key), index.find(keyOf(1, 2, 3))]).toEqual([-1, 0])
  })
})

describe('a ring of slots', () => {
  it('keeps the newest keys, each in one slot, and gives the slots out in a circle', () => {
    fc.assert(
      fc.property(seeds, fc.integer({ min: 1, max: 9 }), fc.array(keys, { maxLength: 200 }), (seed, capacity, list) => {
        const ring = createSlotRing(capacity, seed)
        const slots: (string | undefined)[] = Array.from({ length: capacity }, () => undefined)
        for (const [turn, key] of list.entries()) {
          const name = nameOf(key)
          const former = slots.indexOf(name)
          if (former !== -1) slots[former] = undefined
          slots[turn % capacity] = name
          expect(ring.claim(key)).toBe(turn % capacity)
          expect(ring.size()).toBe(slots.filter((held) => held !== undefined).length)
        }
        for (const key of list) expect(ring.find(key)).toBe(slots.indexOf(nameOf(key)))
      }),
      { numRuns: 300 },
    )
  })
})
