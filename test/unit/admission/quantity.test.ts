import { describe, expect, it } from '@jest/globals'
import { parseQuantity } from '../../../webhook/admission/quantity.ts'

describe('parseQuantity', () => {
  it.each([
    ['1', '1000m'],
    ['1Gi', '1024Mi'],
    ['0.5', '500m'],
    ['1.5Gi', '1536Mi'],
    ['1e3', '1k'],
    ['1E3', '1000'],
    ['.5', '500m'],
    ['1.', '1'],
    ['1E', '1e18'],
    ['2000n', '2u'],
    [2, '2'],
  ])('%s equals %s', (first, second) => {
    expect(parseQuantity(first)).toBe(parseQuantity(second))
    expect(parseQuantity(first)).toBeGreaterThan(0n)
  })

  it('keeps the sign', () => {
    expect(parseQuantity('-1m')).toBe(-1_000_000n)
  })

  it.each(['', '.', 'abc', '1 Gi', '1gi', '1ki', '1e999999999', '0x10', '1Gi2', '--1'])('"%s" is none', (text) => {
    expect(parseQuantity(text)).toBeUndefined()
  })
})
