import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import {
  foldChecksum,
  sumBytes,
  updateChecksum,
  verifyHeaderChecksum,
  verifyTransportChecksum,
} from '../../../sidecar/packet/checksum.ts'
import { CAPTURES, decoded, hex, ipv4, ipv6, readCapture, readPacket, TCP_SYN, UDP_DATAGRAM } from './fixtures.ts'

describe('the Internet checksum', () => {
  it("is RFC 1071's in its example", () => {
    const bytes = hex('0001 f203 f4f5 f6f7')
    expect(sumBytes(bytes, 0, 8)).toBe(0xddf2)
    expect(foldChecksum(0x2ddf0)).toBe(0x220d)
  })

  it('pads an odd last byte with zero', () => {
    expect(sumBytes(hex('0001 f2'), 0, 3)).toBe(0xf201)
  })

  it('of pieces is the checksum of the whole', () => {
    const bytes = hex('0001 f203 f4f5 f6f7 01')
    expect(sumBytes(bytes, 4, 9, sumBytes(bytes, 0, 4))).toBe(sumBytes(bytes, 0, 9))
  })

  it('stops at the end of the bytes, and at nothing for an empty range', () => {
    const bytes = hex('0001 f203')
    expect(sumBytes(bytes, 0, 100)).toBe(0xf204)
    expect(sumBytes(bytes, 4, 4)).toBe(0)
    expect(sumBytes(bytes, 6, 4)).toBe(0)
  })

  it('of the largest packet does not overflow', () => {
    expect(sumBytes(new Uint8Array(65_535).fill(0xff), 0, 65_535, 0xffff)).toBe(0xff00)
  })
})

describe('updating a checksum', () => {
  it("gives RFC 1624's 0x0000 in its example, where RFC 1141's equation gives 0xffff", () => {
    expect(updateChecksum(0xdd2f, 0x5555, 0x3285)).toBe(0x0000)
  })

  it.each([
    ['nothing', 0x1234, 0, 0, 0x1234],
    ['zero by zero of the other kind', 0x1234, 0xffff, 0, 0x1234],
    ['0 by 0xffff', 0x1234, 0, 0xffff, 0x1234],
    ['a checksum of 0', 0x0000, 0x0001, 0x0002, 0xfffe],
    ['unfolded sums', 0x1234, 0x1_0004, 0x2_0004, 0x1233],
  ])('replaces %s', (_, checksum, oldSum, newSum, expected) => {
    expect(updateChecksum(checksum, oldSum, newSum)).toBe(expected)
  })

  it('is what computing anew gives', () => {
    const even = fc
      .uint8Array({ minLength: 2, maxLength: 64 })
      .map((bytes) => bytes.subarray(0, bytes.length & ~1))
      // Every real checksum covers something that is not zero: a version or an address.
      .filter((bytes) => sumBytes(bytes, 0, bytes.length) !== 0)
    fc.assert(
      fc.property(even, fc.uint8Array({ maxLength: 64 }), fc.uint8Array({ maxLength: 64 }), (kept, before, after) => {
        const keptSum = sumBytes(kept, 0, kept.length)
        const oldSum = sumBytes(before, 0, before.length)
        const newSum = sumBytes(after, 0, after.length)
        expect(updateChecksum(foldChecksum(keptSum + oldSum), oldSum, newSum)).toBe(foldChecksum(keptSum + newSum))
      }),
    )
  })
})

describe('verifying checksums', () => {
  it.each(CAPTURES.filter((name) => !name.endsWith('fragment')))('finds those of %s right', (name) => {
    for (const bytes of readCapture(name)) {
      const packet = decoded(bytes)
      const isTransport = packet.protocol === 6 || packet.protocol === 17
      expect(verifyHeaderChecksum(bytes, packet)).toBe(true)
      expect(verifyTransportChecksum(bytes, packet)).toBe(isTransport)
    }
  })

  it('does not look at padding behind the packet', () => {
    const bytes = Buffer.concat([readPacket('tcp4', 1), hex('ffff ffff')])
    expect(verifyTransportChecksum(bytes, decoded(bytes))).toBe(true)
  })

  it('does not look at IP payload behind the UDP datagram', () => {
    const recorded = readPacket('udp4', 1)
    const bytes = Buffer.concat([recorded, hex('ffff')])
    bytes.writeUInt16BE(bytes.length, 2)
    expect(verifyTransportChecksum(bytes, decoded(bytes))).toBe(true)
  })

  it('finds fragments not right: their checksum covers bytes elsewhere', () => {
    for (const bytes of [...readCapture('udp4-fragment'), ...readCapture('udp6-fragment')]) {
      expect(verifyTransportChecksum(bytes, decoded(bytes))).toBe(false)
    }
  })

  it('lets UDP go without over IPv4 and not over IPv6', () => {
    const four = ipv4(17, UDP_DATAGRAM)
    const six = ipv6(17, UDP_DATAGRAM)
    expect(verifyTransportChecksum(four, decoded(four))).toBe(true)
    expect(verifyTransportChecksum(six, decoded(six))).toBe(false)
  })

  it('finds a missing TCP checksum and a missing IPv4 header checksum wrong', () => {
    const bytes = ipv4(6, TCP_SYN)
    expect(verifyTransportChecksum(bytes, decoded(bytes))).toBe(false)
    expect(verifyHeaderChecksum(bytes, decoded(bytes))).toBe(false)
  })
})
