import { describe, expect, it } from '@jest/globals'
import { createHalfOpenRing } from '../../../sidecar/datapath/half-open.ts'
import { keyOf } from './keys.ts'

const SEED = { low: 0x12345678, high: 0x9abcdef0 }
const [a, b, c, d] = [1, 2, 3, 4] as const

describe('the ring of half-open connections', () => {
  it('forgets the oldest connection first, and holds no more than its capacity', () => {
    const ring = createHalfOpenRing(3, SEED)
    for (const name of [a, b, c, d]) ring.claim(keyOf(name)).clientIsn = name
    expect([a, b, c, d].map((name) => ring.find(keyOf(name))?.clientIsn)).toEqual([undefined, b, c, d])
    expect(ring.size()).toBe(3)
  })

  it('counts a tuple used again as the newest: it is not evicted in the turn of its old slot', () => {
    const ring = createHalfOpenRing(3, SEED)
    for (const name of [a, b, a, c, d]) ring.claim(keyOf(name)).clientIsn = name
    expect([a, b, c, d].map((name) => ring.find(keyOf(name))?.clientIsn)).toEqual([a, undefined, c, d])
  })

  it('gives a reused slot without anything of its former connection', () => {
    const ring = createHalfOpenRing(1, SEED)
    Object.assign(ring.claim(keyOf(a)), { proved: true, repeats: 3, repeatedAt: 5, kind: 'identified' })
    ring.answer(keyOf(a, 80), 7)
    const { proved, answered, repeats, repeatedAt, peer, provedUnder } = ring.claim(keyOf(b))
    expect({ proved, answered, repeats, repeatedAt, peer, provedUnder }).toEqual({
      proved: false,
      answered: false,
      repeats: 0,
      repeatedAt: 0,
      peer: undefined,
      provedUnder: undefined,
    })
    expect(ring.findAnswered(keyOf(a, 80))).toBeUndefined()
  })

  it('keeps each connection’s own numbers, up to the largest', () => {
    const ring = createHalfOpenRing(4, SEED)
    const kinds = ['plain', 'identified', 'own'] as const
    const written = kinds.map((kind, i) => ({
      kind,
      version: 255 - i,
      clientIsn: 0xffff_ffff - i,
      repeats: 1_000 + i,
      repeatedAt: 1_900_000_000_000.5 + i,
    }))
    for (const [i, values] of written.entries()) {
      const slot = ring.claim(keyOf(i))
      Object.assign(slot, values)
      slot.nonces.fill(0x10 + i, slot.nonceAt, slot.nonceAt + 16)
      slot.nonces.fill(0x20 + i, slot.firstNonceAt, slot.firstNonceAt + 16)
      ring.answer(keyOf(i, 80), 0xffff_fff0 + i)
    }
    for (const [i, values] of written.entries()) {
      const slot = ring.findAnswered(keyOf(i, 80))
      expect(slot).toMatchObject({ ...values, answered: true, serverIsn: 0xffff_fff0 + i, proved: false })
      const nonces = slot && [slot.nonceAt, slot.firstNonceAt].map((at) => slot.nonces.subarray(at, at + 16))
      expect(nonces).toEqual([Buffer.alloc(16, 0x10 + i), Buffer.alloc(16, 0x20 + i)])
    }
  })

  it('gives a tuple to the connection that was answered last, which then has to be proved anew', () => {
    const ring = createHalfOpenRing(3, SEED)
    for (const name of [a, b]) {
      ring.claim(keyOf(name)).clientIsn = name
      ring.answer(keyOf(9, 80), name)
    }
    expect(ring.findAnswered(keyOf(9, 80))).toMatchObject({ clientIsn: b, serverIsn: b })
    Object.assign(ring.find(keyOf(b)) ?? {}, { proved: true })
    ring.answer(keyOf(9, 80), 5)
    expect(ring.findAnswered(keyOf(9, 80))).toMatchObject({ clientIsn: b, serverIsn: 5, proved: false })
  })

  it('forgets that a tuple was answered with the connection that it belongs to, and with no other', () => {
    const ring = createHalfOpenRing(2, SEED)
    for (const name of [a, b]) {
      ring.claim(keyOf(name)).clientIsn = name
      ring.answer(keyOf(9, 80), name)
    }
    ring.claim(keyOf(c))
    expect(ring.findAnswered(keyOf(9, 80))?.clientIsn).toBe(b)
    ring.claim(keyOf(d))
    expect(ring.findAnswered(keyOf(9, 80))).toBeUndefined()
  })
})
