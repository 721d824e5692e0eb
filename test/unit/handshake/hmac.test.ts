import { createHmac } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { computeMac, createMacState, equalInConstantTime } from '../../../sidecar/handshake/hmac.ts'

function mac(key: Uint8Array, message: Uint8Array): string {
  const out = Buffer.alloc(32)
  computeMac(createMacState(key), message, message.length, out, 0)
  return out.toString('hex')
}

describe('HMAC-SHA-256', () => {
  it.each([
    // RFC 4231, test cases 1, 2, 3, 4
    [
      '0b'.repeat(20),
      Buffer.from('Hi There').toString('hex'),
      'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7',
    ],
    [
      Buffer.from('Jefe').toString('hex'),
      Buffer.from('what do ya want for nothing?').toString('hex'),
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    ],
    ['aa'.repeat(20), 'dd'.repeat(50), '773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe'],
    [
      '0102030405060708090a0b0c0d0e0f10111213141516171819',
      'cd'.repeat(50),
      '82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b',
    ],
  ])('gives the vectors of RFC 4231 (key %s)', (key, message, expected) => {
    expect(mac(Buffer.from(key, 'hex'), Buffer.from(message, 'hex'))).toBe(expected)
  })

  it('agrees with node:crypto for every message length, with and without a compressed prefix', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 64 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.integer({ min: 0, max: 2 }),
        (key, message, blocks) => {
          const prefix = Buffer.alloc(64 * blocks, 0x5a)
          const out = Buffer.alloc(40, 0xee)
          computeMac(createMacState(key, prefix), message, message.length, out, 4)
          const expected = createHmac('sha256', key).update(prefix).update(message).digest()
          expect(out).toEqual(Buffer.concat([Buffer.alloc(4, 0xee), expected, Buffer.alloc(4, 0xee)]))
        },
      ),
    )
  })

  it('refuses a prefix that is not whole blocks and a key longer than a block', () => {
    expect(() => createMacState(Buffer.alloc(32), Buffer.alloc(63))).toThrow(RangeError)
    expect(() => createMacState(Buffer.alloc(65))).toThrow(RangeError)
  })
})

describe('equalInConstantTime', () => {
  it('is true for equal ranges only, and false past the end of either', () => {
    const a = Buffer.from([1, 2, 3, 4])
    expect(equalInConstantTime(a, 1, Buffer.from([9, 2, 3]), 1, 2)).toBe(true)
    expect(equalInConstantTime(a, 1, Buffer.from([9, 2, 7]), 1, 2)).toBe(false)
    expect(equalInConstantTime(a, 3, a, 3, 2)).toBe(false)
  })
})
