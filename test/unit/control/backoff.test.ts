import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { backoffMs, jitterMs, parseRetryAfter } from '../../../sidecar/control/backoff.ts'

const limits = { initialMs: 500, maxMs: 30_000 }

describe('backoff', () => {
  it('doubles from the initial wait to the cap', () => {
    const most = () => 1
    expect([0, 1, 2, 3, 4, 5, 6, 7, 1000].map((attempt) => backoffMs(attempt, limits, most))).toEqual([
      500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000,
    ])
  })

  it('keeps at least half of the wait and at most all of it, for any attempt and randomness', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 10_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (attempt, random) => {
          const wait = backoffMs(attempt, limits, () => random)
          const full = backoffMs(attempt, limits, () => 1)
          return wait >= full / 2 && wait <= full && full <= limits.maxMs
        },
      ),
    )
  })
})

describe('jitter', () => {
  it('moves a time by up to the fraction, either way', () => {
    expect([0, 0.5, 1].map((random) => jitterMs(1000, 0.1, () => random))).toEqual([900, 1000, 1100])
  })
})

describe('Retry-After', () => {
  const now = Date.parse('Tue, 24 Nov 2026 12:00:00 GMT')

  it('is seconds or an HTTP date, at most the cap, never negative', () => {
    const cases = ['0', '7', ' 7 ', '999999', 'Tue, 24 Nov 2026 12:00:09 GMT', 'Tue, 24 Nov 2026 11:00:00 GMT']
    expect(cases.map((header) => parseRetryAfter(header, now, 60_000))).toEqual([0, 7000, 7000, 60_000, 9000, 0])
  })

  it('is ignored where it is absent or neither', () => {
    const cases = [undefined, '', '-1', '1.5', 'soon', 'Tue, never GMT', '1e9', '12345678901']
    expect(cases.map((header) => parseRetryAfter(header, now, 60_000))).toEqual(cases.map(() => undefined))
  })
})
