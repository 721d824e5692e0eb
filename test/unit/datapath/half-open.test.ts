import { describe, expect, it } from '@jest/globals'
import { createHalfOpenRing } from '../../../sidecar/datapath/half-open.ts'

describe('the ring of half-open connections', () => {
  it('forgets the oldest connection first, and holds no more than its capacity', () => {
    const ring = createHalfOpenRing(3)
    for (const key of ['a', 'b', 'c', 'd']) ring.claim(key)
    expect(['a', 'b', 'c', 'd'].map((key) => ring.find(key)?.key)).toEqual([undefined, 'b', 'c', 'd'])
    expect(ring.size()).toBe(3)
  })

  it('counts a tuple used again as the newest: it is not evicted in the turn of its old slot', () => {
    const ring = createHalfOpenRing(3)
    for (const key of ['a', 'b', 'a', 'c', 'd']) ring.claim(key)
    expect(['a', 'b', 'c', 'd'].map((key) => ring.find(key)?.key)).toEqual(['a', undefined, 'c', 'd'])
  })

  it('gives a reused slot without anything of its former connection', () => {
    const ring = createHalfOpenRing(1)
    Object.assign(ring.claim('a'), { proved: true, answered: true, serverIsn: 7, repeats: 3 })
    const { proved, answered, repeats, peer } = ring.claim('b')
    expect({ proved, answered, repeats, peer }).toEqual({ proved: false, answered: false, repeats: 0, peer: undefined })
  })
})
