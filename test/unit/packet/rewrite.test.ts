import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { buildTcp, type TcpFields } from '../../../sidecar/packet/build.ts'
import { sumBytes, verifyHeaderChecksum, verifyTransportChecksum } from '../../../sidecar/packet/checksum.ts'
import { createPacket, decodePacket, type Packet } from '../../../sidecar/packet/decode.ts'
import { findOption } from '../../../sidecar/packet/options.ts'
import { replacePayload, stripPayload, toReset } from '../../../sidecar/packet/rewrite.ts'
import { CAPTURES, decoded, hex, ipv4, ipv6, readCapture, readPacket, TCP_SYN, UDP_DATAGRAM } from './fixtures.ts'

const FRAME = Buffer.from('a frame of odd length')

const REWRITES: readonly [string, (bytes: Uint8Array, packet: Packet, out: Uint8Array) => number][] = [
  ['replacing', (bytes, packet, out) => replacePayload(bytes, packet, FRAME, sumBytes(FRAME, 0, FRAME.length), out)],
  ['stripping', stripPayload],
  ['resetting', toReset],
]

/** The rewritten packet. */
function rewritten(bytes: Uint8Array, rewrite: (typeof REWRITES)[number][1]): Buffer {
  const out = Buffer.alloc(2048, 0xee)
  return out.subarray(0, rewrite(bytes, decoded(bytes), out))
}

function isIntact(bytes: Uint8Array, packet: Packet): boolean {
  return verifyHeaderChecksum(bytes, packet) && verifyTransportChecksum(bytes, packet)
}

function build(fields: TcpFields, payload: Uint8Array): Buffer {
  const out = Buffer.alloc(2048, 0xee)
  return out.subarray(0, buildTcp(fields, payload, out))
}

const fieldsOf = (family: 4 | 6) =>
  fc.record({
    family: fc.constant(family),
    source: fc.uint8Array({ minLength: family === 4 ? 4 : 16, maxLength: family === 4 ? 4 : 16 }),
    destination: fc.uint8Array({ minLength: family === 4 ? 4 : 16, maxLength: family === 4 ? 4 : 16 }),
    sourcePort: fc.nat(0xffff),
    destinationPort: fc.nat(0xffff),
    sequence: fc.nat(0xffffffff),
    acknowledgement: fc.nat(0xffffffff),
    flags: fc.nat(0xff),
    window: fc.nat(0xffff),
    hopLimit: fc.nat(255),
  })
const anyFields = fc.oneof(fieldsOf(4), fieldsOf(6))
const anyPayload = fc.uint8Array({ maxLength: 200 })

describe('rewriting packets', () => {
  it('with another payload is the packet built with that payload', () => {
    fc.assert(
      fc.property(anyFields, anyPayload, anyPayload, (fields, before, after) => {
        const bytes = build(fields, before)
        const out = Buffer.alloc(2048)
        const length = replacePayload(bytes, decoded(bytes), after, sumBytes(after, 0, after.length), out)
        expect(out.subarray(0, length)).toEqual(build(fields, after))
      }),
    )
  })

  it('without payload is the packet built without', () => {
    fc.assert(
      fc.property(anyFields, anyPayload, (fields, payload) => {
        expect(rewritten(build(fields, payload), stripPayload)).toEqual(build(fields, new Uint8Array(0)))
      }),
    )
  })

  it('to a reset is the reset built with the same numbers, and without options and window', () => {
    fc.assert(
      fc.property(anyFields, anyPayload, (fields, payload) => {
        const bytes = build({ ...fields, options: hex('020405b4 01030307') }, payload)
        const reset = build({ ...fields, flags: 0x14, window: 0 }, new Uint8Array(0))
        expect(rewritten(bytes, toReset)).toEqual(reset)
      }),
    )
  })

  it('to a reset takes another acknowledgement', () => {
    fc.assert(
      fc.property(anyFields, fc.nat(0xffffffff), (fields, acknowledgement) => {
        const bytes = build(fields, FRAME)
        const out = Buffer.alloc(2048)
        const length = toReset(bytes, decoded(bytes), out, acknowledgement)
        const reset = build({ ...fields, acknowledgement, flags: 0x14, window: 0 }, new Uint8Array(0))
        expect(out.subarray(0, length)).toEqual(reset)
      }),
    )
  })

  it.each(REWRITES)('%s works in place', (_, rewrite) => {
    for (const name of CAPTURES.filter((capture) => capture.startsWith('tcp'))) {
      for (const bytes of readCapture(name)) {
        const inPlace = Buffer.concat([bytes, Buffer.alloc(64)])
        const length = rewrite(inPlace, decoded(bytes), inPlace)
        expect(inPlace.subarray(0, length)).toEqual(rewritten(bytes, rewrite))
      }
    }
  })

  it.each(REWRITES)('%s leaves recorded packets intact, with their IP headers', (_, rewrite) => {
    for (const name of CAPTURES.filter((capture) => capture.startsWith('tcp'))) {
      for (const bytes of readCapture(name)) {
        const packet = decoded(bytes)
        const after = rewritten(bytes, rewrite)
        expect(isIntact(after, decoded(after))).toBe(true)
        expect(decoded(after).headerBytes).toBe(packet.headerBytes)
        // Behind the length and checksum fields nothing of the IP header changes.
        expect(after.subarray(12, packet.headerBytes)).toEqual(bytes.subarray(12, packet.headerBytes))
      }
    }
  })

  it('takes Fast Open data and option off a SYN, and leaves the other options', () => {
    const early = readCapture('tcp4-fast-open').find(
      (bytes) => decoded(bytes).flags === 0x02 && decoded(bytes).payloadBytes === 5,
    )
    if (early === undefined) throw new Error('no SYN with data was recorded')
    const packet = decoded(early)
    const cookieOffset = findOption(early, packet, 34)
    const cookieBytes = early.readUInt8(cookieOffset + 1)

    const expectedOptions = Buffer.from(early.subarray(packet.headerBytes + 20, packet.payloadOffset))
    const start = cookieOffset - packet.headerBytes - 20
    expectedOptions.fill(1, start, start + cookieBytes)
    const after = rewritten(early, REWRITES[0]?.[1] ?? stripPayload)
    expect(after.subarray(packet.headerBytes + 20)).toEqual(Buffer.concat([expectedOptions, FRAME]))
    expect(isIntact(after, decoded(after))).toBe(true)
  })

  it('leaves the options of what is no SYN as they are', () => {
    fc.assert(
      fc.property(anyFields, anyPayload, (fields, payload) => {
        const established = { ...fields, flags: fields.flags & ~0x02, options: hex('2204 1122 fe04f989') }
        expect(rewritten(build(established, payload), stripPayload)).toEqual(build(established, new Uint8Array(0)))
      }),
    )
  })

  it('leaves the bytes that it reads alone', () => {
    const bytes = readPacket('tcp4-fast-open', 1)
    const before = Buffer.from(bytes)
    for (const [, rewrite] of REWRITES) rewritten(bytes, rewrite)
    expect(bytes).toEqual(before)
  })
})

describe('packets that cannot be rewritten', () => {
  const firstFragment = ipv4(6, TCP_SYN)
  firstFragment[6] = 0x20
  const laterFragment = ipv4(6, TCP_SYN)
  laterFragment[7] = 1

  it.each([
    ['UDP', ipv4(17, UDP_DATAGRAM)],
    ['ICMPv6', ipv6(58, hex('8000 0000'))],
    ['a first fragment', firstFragment],
    ['a later fragment', laterFragment],
  ])('%s gives 0 and writes nothing', (_, bytes) => {
    for (const [, rewrite] of REWRITES) {
      const out = Buffer.alloc(256, 0xee)
      expect(rewrite(bytes, decoded(bytes), out)).toBe(0)
      expect(out).toEqual(Buffer.alloc(256, 0xee))
    }
  })

  it.each([
    ['replacing', 0, 40 + FRAME.length],
    ['stripping', 1, 40],
    ['resetting', 2, 40],
  ])('%s into too small a buffer gives 0 and writes nothing', (_, index, needed) => {
    const bytes = ipv4(6, TCP_SYN)
    const rewrite = REWRITES[index]?.[1] ?? stripPayload
    const small = Buffer.alloc(needed - 1, 0xee)
    expect(rewrite(bytes, decoded(bytes), small)).toBe(0)
    expect(small).toEqual(Buffer.alloc(needed - 1, 0xee))
    expect(rewrite(bytes, decoded(bytes), Buffer.alloc(needed))).toBe(needed)
  })

  it.each([
    ['IPv4', ipv4(6, TCP_SYN), 65_535 - 40],
    ['IPv6', ipv6(6, TCP_SYN), 65_535 - 20],
  ])('a payload past the length field of %s gives 0', (_, bytes, room) => {
    const out = Buffer.alloc(70_000)
    const packet = decoded(bytes)
    expect(replacePayload(bytes, packet, Buffer.alloc(room + 1), 0, out)).toBe(0)
    expect(replacePayload(bytes, packet, Buffer.alloc(room), 0, out)).toBe(packet.headerBytes + 20 + room)
  })
})

describe('a packet that arrived corrupt stays corrupt', () => {
  const samples: readonly [string, number][] = [
    ['tcp4', 1],
    ['tcp4', 4],
    ['tcp6', 2],
    ['tcp6', 4],
    ['tcp4-fast-open', 1],
    ['tcp6-fast-open', 2],
    ['tcp4-record-route', 4],
    ['tcp6-options', 1],
  ]

  it.each(samples)('with any one bit of %s %i flipped', (name, number) => {
    const bytes = readPacket(name, number)
    const packet = createPacket()
    const after = createPacket()
    const out = Buffer.alloc(512)
    let rewrites = 0
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const corrupt = Buffer.from(bytes)
      const offset = bit >>> 3
      corrupt.writeUInt8(corrupt.readUInt8(offset) ^ (1 << (bit & 7)), offset)
      if (decodePacket(corrupt, packet) !== 'ok') continue
      if (isIntact(corrupt, packet)) {
        // Traffic class, flow label, hop limit and extension headers of IPv6: no checksum covers them.
        expect(packet.family === 6 && (offset < 8 || offset >= 40) && offset < packet.headerBytes).toBe(true)
        continue
      }
      for (const [, rewrite] of REWRITES) {
        const length = rewrite(corrupt, packet, out)
        // A flip in the protocol field, or one that makes it a fragment, leaves nothing to rewrite.
        if (length === 0) continue
        rewrites += 1
        const result = decodePacket(out.subarray(0, length), after)
        expect(result === 'ok' && isIntact(out, after)).toBe(false)
      }
    }
    // Every bit of addresses, TCP header and payload got here, but for those that break the decoding.
    expect(rewrites).toBeGreaterThan((bytes.length - 12) * 8)
  })

  it('where the corruption was in the payload that was taken away', () => {
    const bytes = readPacket('tcp4', 4)
    const last = bytes.length - 1
    bytes.writeUInt8(bytes.readUInt8(last) ^ 0x10, last)
    for (const [, rewrite] of REWRITES) {
      const after = rewritten(bytes, rewrite)
      expect(verifyTransportChecksum(after, decoded(after))).toBe(false)
    }
  })
})
