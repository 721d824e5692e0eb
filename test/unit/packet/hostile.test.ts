import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { verifyHeaderChecksum, verifyTransportChecksum } from '../../../sidecar/packet/checksum.ts'
import { createPacket, type DecodeFailure, decodePacket, type Packet } from '../../../sidecar/packet/decode.ts'
import { findOption, neutralizeFastOpen, readMss } from '../../../sidecar/packet/options.ts'
import { replacePayload, stripPayload, toReset } from '../../../sidecar/packet/rewrite.ts'
import { CAPTURES, hex, ipv4, ipv6, readCapture, resultOf, TCP_SYN, UDP_DATAGRAM } from './fixtures.ts'

/** The same bytes, but reading or writing at `limit` or behind it throws. */
function guarded(bytes: Uint8Array, limit: number): Uint8Array {
  const check = (key: string | symbol) => {
    if (typeof key === 'string' && /^-?\d+$/.test(key) && (Number(key) < 0 || Number(key) >= limit)) {
      throw new RangeError(`offset ${key} of ${limit}`)
    }
  }
  return new Proxy(bytes, {
    get(target, key) {
      check(key)
      const value: unknown = Reflect.get(target, key, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
    set(target, key, value) {
      check(key)
      return Reflect.set(target, key, value, target)
    },
  })
}

/** Everything that this folder does with a packet. Returns the decoder's result. */
function handle(bytes: Uint8Array, out: Uint8Array, packet: Packet): 'ok' | DecodeFailure {
  const result = decodePacket(bytes, packet)
  if (result !== 'ok') return result
  verifyHeaderChecksum(bytes, packet)
  verifyTransportChecksum(bytes, packet)
  findOption(bytes, packet, 8)
  readMss(bytes, packet)
  replacePayload(bytes, packet, hex('010203'), 0x0402, out)
  stripPayload(bytes, packet, out)
  toReset(bytes, packet, out)
  neutralizeFastOpen(bytes, packet)
  return result
}

describe('the guard of these tests', () => {
  it('throws for a read or write at the limit', () => {
    const bytes = guarded(new Uint8Array(4), 3)
    expect(() => bytes[3]).toThrow(RangeError)
    expect(() => bytes.fill(0)).not.toThrow()
    expect(() => {
      bytes[3] = 1
    }).toThrow(RangeError)
    expect(bytes[2]).toBe(0)
  })
})

describe('recorded packets cut short', () => {
  const out = Buffer.alloc(2048)

  it.each(CAPTURES)('every prefix of %s is refused as truncated, without a read behind its end', (name) => {
    for (const bytes of readCapture(name)) {
      const results = new Set<string>()
      for (let length = 0; length < bytes.length; length += 1) {
        results.add(handle(guarded(bytes.subarray(0, length), length), out, createPacket()))
      }
      expect([...results]).toEqual(['truncated'])
    }
  })

  it.each(CAPTURES)(
    'every prefix of %s that states its own length is handled without a read behind its end',
    (name) => {
      for (const bytes of readCapture(name)) {
        const isIpv4 = (bytes[0] ?? 0) >>> 4 === 4
        const results = new Set<string>()
        for (let length = isIpv4 ? 20 : 40; length <= bytes.length; length += length < 120 ? 1 : 97) {
          // The bytes behind are those of the whole packet: who reads them gets plausible values, not zeros.
          const copy = Buffer.from(bytes)
          if (isIpv4) copy.writeUInt16BE(length, 2)
          else copy.writeUInt16BE(length - 40, 4)
          const packet = createPacket()
          results.add(handle(guarded(copy, length), out, packet))
          expect(packet.headerBytes).toBeLessThanOrEqual(bytes.length)
        }
        expect([...results].every((result) => ['ok', 'truncated', 'bad-total-length'].includes(result))).toBe(true)
        expect(results.has('ok')).toBe(true)
      }
    },
  )

  it.each(CAPTURES)('what follows a packet of %s changes nothing', (name) => {
    for (const bytes of readCapture(name)) {
      const [alone, padded] = [createPacket(), createPacket()]
      expect(decodePacket(bytes, alone)).toBe('ok')
      expect(decodePacket(Buffer.concat([bytes, Buffer.alloc(64, 0xff)]), padded)).toBe('ok')
      expect(padded).toEqual(alone)
    }
  })
})

describe('arbitrary bytes', () => {
  const out = Buffer.alloc(512)

  it('never throw, and every offset lies inside', () => {
    const anything = fc.uint8Array({ maxLength: 200 })
    // Most random bytes are no IP: half of the cases get a plausible start.
    const plausible = fc
      .tuple(
        fc.constantFrom(0x45, 0x46, 0x4f, 0x60),
        fc.constantFrom(0, 6, 17, 43, 44, 51, 60),
        fc.uint8Array({ minLength: 60, maxLength: 200 }),
      )
      .map(([first, protocol, bytes]) => {
        const isIpv4 = first >>> 4 === 4
        bytes[0] = first
        bytes[isIpv4 ? 9 : 6] = protocol
        bytes[isIpv4 ? 2 : 4] = 0
        bytes[isIpv4 ? 3 : 5] = bytes.length - (isIpv4 ? 0 : 40)
        if (isIpv4) bytes[6] = 0
        if (isIpv4) bytes[7] = 0
        return bytes
      })
    fc.assert(
      fc.property(fc.oneof(anything, plausible), (bytes) => {
        const packet = createPacket()
        if (handle(guarded(bytes, bytes.length), out, packet) !== 'ok') return
        expect(packet.totalBytes).toBeLessThanOrEqual(bytes.length)
        expect(packet.payloadOffset).toBe(packet.headerBytes + packet.dataOffsetBytes)
        expect(packet.payloadBytes).toBeGreaterThanOrEqual(0)
        expect(packet.payloadOffset + packet.payloadBytes).toBeLessThanOrEqual(packet.totalBytes)
      }),
      { numRuns: 2000 },
    )
  })

  it('in place of TCP options never throw and never read behind the header', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(0, 1, 2, 3, 4, 8, 34, 254, 0xf9, 0x89, 40, 255), { minLength: 40, maxLength: 40 }),
        (options) => {
          const header = Buffer.from(TCP_SYN)
          header[12] = 0xf0
          const bytes = ipv4(6, Buffer.concat([header, Uint8Array.from(options)]))
          expect(handle(guarded(bytes, bytes.length), out, createPacket())).toBe('ok')
          expect(findOption(bytes, { ...createPacket(), ...decodedOf(bytes) }, 34)).toBe(-1)
        },
      ),
      { numRuns: 500 },
    )
  })
})

function decodedOf(bytes: Uint8Array): Packet {
  const packet = createPacket()
  decodePacket(bytes, packet)
  return packet
}

describe('lengths that lie', () => {
  const withByte = (bytes: Buffer, offset: number, value: number): Buffer => {
    const copy = Buffer.from(bytes)
    copy[offset] = value
    return copy
  }
  const four = ipv4(6, TCP_SYN)
  const six = ipv6(6, TCP_SYN)

  it.each<[string, Uint8Array, DecodeFailure]>([
    ['no bytes', hex(''), 'truncated'],
    ['a version and nothing else', hex('45'), 'truncated'],
    ['version 0', withByte(four, 0, 0x05), 'not-ip'],
    ['version 5', withByte(four, 0, 0x55), 'not-ip'],
    ['version 15', withByte(six, 0, 0xf0), 'not-ip'],
    ['an Ethernet header before the packet', Buffer.concat([hex('020000000001 020000000002 0800'), four]), 'not-ip'],
    ['IPv4 with a header of 0 bytes', withByte(four, 0, 0x40), 'bad-header-length'],
    ['IPv4 with a header of 16 bytes', withByte(four, 0, 0x44), 'bad-header-length'],
    ['IPv4 with a header longer than the packet', withByte(four, 0, 0x4f), 'bad-total-length'],
    ['IPv4 with a total length of 0', withByte(four, 3, 0), 'bad-total-length'],
    ['IPv4 with a total length of 19', withByte(four, 3, 19), 'bad-total-length'],
    ['IPv4 with a total length past the end', withByte(four, 3, 41), 'truncated'],
    ['IPv4 with a total length of 65,535', withByte(withByte(four, 2, 255), 3, 255), 'truncated'],
    ['an IPv4 option without room for its length', ipv4(6, TCP_SYN, hex('01010107')), 'bad-ip-option'],
    ['an IPv4 option of length 0', ipv4(6, TCP_SYN, hex('07000000')), 'bad-ip-option'],
    ['an IPv4 option of length 1', ipv4(6, TCP_SYN, hex('07010000')), 'bad-ip-option'],
    ['an IPv4 option past the header', ipv4(6, TCP_SYN, hex('07050000')), 'bad-ip-option'],
    ['an IPv4 source route without pointer', ipv4(6, TCP_SYN, hex('01018302')), 'bad-ip-option'],
    ['IPv6 with a payload length past the end', withByte(six, 5, 21), 'truncated'],
    ['IPv6 with a payload length of 0 (a jumbogram)', withByte(six, 5, 0), 'truncated'],
    ['IPv6 with 39 bytes', six.subarray(0, 39), 'truncated'],
    ['hop-by-hop options past the end', ipv6(0, hex('06ff010400000000'), TCP_SYN), 'truncated'],
    ['hop-by-hop options cut in their fixed part', ipv6(0, hex('06000104000000')), 'truncated'],
    [
      'hop-by-hop options behind another header',
      ipv6(60, hex('0000010400000000 0600010400000000'), TCP_SYN),
      'misplaced-hop-by-hop',
    ],
    ['hop-by-hop options twice', ipv6(0, hex('0000010400000000 0600010400000000'), TCP_SYN), 'misplaced-hop-by-hop'],
    ['destination options past the end', ipv6(60, hex('0603010400000000'), TCP_SYN.subarray(0, 20)), 'truncated'],
    ['a routing header past the end', ipv6(43, hex('06ff000000000000'), TCP_SYN), 'truncated'],
    ['a routing header with segments left', ipv6(43, hex('0600000100000000'), TCP_SYN), 'source-routed'],
    ['a fragment header cut short', ipv6(44, hex('06000000')), 'truncated'],
    ['an authentication header below its fixed part', ipv6(51, hex('0600000000000000'), TCP_SYN), 'bad-header-length'],
    ['an authentication header of odd length', ipv6(51, hex('0603000000000000'), TCP_SYN), 'bad-header-length'],
    ['an authentication header past the end', ipv6(51, hex('06fe000000000000'), TCP_SYN), 'truncated'],
    ['the last extension header at the very end', ipv6(60, hex('0600010400000000')), 'truncated'],
    [
      'eight extension headers',
      ipv6(60, Buffer.alloc(7 * 8, hex('3c00010400000000')), hex('0600010400000000'), TCP_SYN),
      'too-many-extension-headers',
    ],
    ['TCP with 19 bytes', ipv4(6, TCP_SYN.subarray(0, 19)), 'truncated'],
    ['TCP with nothing', ipv4(6, hex('')), 'truncated'],
    ['TCP with a header of 0 bytes', ipv4(6, withByte(TCP_SYN, 12, 0x00)), 'bad-header-length'],
    ['TCP with a header of 16 bytes', ipv4(6, withByte(TCP_SYN, 12, 0x40)), 'bad-header-length'],
    ['TCP with a header past the end', ipv4(6, withByte(TCP_SYN, 12, 0x60)), 'truncated'],
    [
      'TCP with a header past the IP length, in bytes that are there',
      Buffer.concat([ipv4(6, withByte(TCP_SYN, 12, 0x60)), hex('01010101')]),
      'truncated',
    ],
    ['UDP with 7 bytes', ipv4(17, UDP_DATAGRAM.subarray(0, 7)), 'truncated'],
    ['UDP with a length of 7', ipv4(17, withByte(UDP_DATAGRAM, 5, 7)), 'bad-header-length'],
    ['UDP with a length of 0 (a jumbogram)', ipv6(17, withByte(UDP_DATAGRAM, 5, 0)), 'bad-header-length'],
    ['UDP with a length past the end', ipv4(17, withByte(UDP_DATAGRAM, 5, 13)), 'truncated'],
    ['a first fragment that cuts the TCP header', withByte(ipv4(6, TCP_SYN.subarray(0, 8)), 6, 0x20), 'truncated'],
  ])('refuses %s', (_, bytes, reason) => {
    expect(resultOf(guarded(bytes, bytes.length))).toBe(reason)
  })

  it('takes seven extension headers', () => {
    const headers = [Buffer.alloc(6 * 8, hex('3c00010400000000')), hex('0600010400000000')]
    expect(resultOf(ipv6(60, ...headers, TCP_SYN))).toBe('ok')
  })
})
