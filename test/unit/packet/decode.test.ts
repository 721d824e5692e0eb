import { describe, expect, it } from '@jest/globals'
import { createPacket, decodePacket, type Packet } from '../../../sidecar/packet/decode.ts'
import { decoded, hex, ipv4, ipv6, readCapture, readPacket, TCP_SYN, UDP_DATAGRAM } from './fixtures.ts'

/** What decodes from TCP_SYN right behind an IP header of `headerBytes`. */
function synAt(family: 4 | 6, headerBytes: number): Packet {
  return {
    family,
    headerBytes,
    protocol: 6,
    totalBytes: headerBytes + 20,
    sourceOffset: family === 4 ? 12 : 8,
    destinationOffset: family === 4 ? 16 : 24,
    addressBytes: family === 4 ? 4 : 16,
    fragment: 'none',
    sourcePort: 4660,
    destinationPort: 80,
    dataOffsetBytes: 20,
    sequence: 1,
    acknowledgement: 2,
    flags: 0x02,
    window: 65_535,
    payloadOffset: headerBytes + 20,
    payloadBytes: 0,
  }
}

const HOP_BY_HOP = (next: number) => Uint8Array.of(next, 0, 1, 4, 0, 0, 0, 0)
const DESTINATION = (next: number) => Uint8Array.of(next, 1, 0x1e, 12, ...new Array<number>(12).fill(0))
const ROUTING = (next: number, segmentsLeft: number) =>
  Uint8Array.of(next, 2, 2, segmentsLeft, ...new Array<number>(20).fill(0))
const FRAGMENT = (next: number, offsetUnits: number, more: number) =>
  Uint8Array.of(next, 0, offsetUnits >>> 5, ((offsetUnits << 3) & 0xff) | more, 0, 0, 0, 7)
const AUTHENTICATION = (next: number) => Uint8Array.of(next, 4, 0, 0, ...new Array<number>(20).fill(0xaa))

describe('decoding recorded packets', () => {
  it('finds the fields of a SYN over IPv4', () => {
    const bytes = readPacket('tcp4', 1)
    expect(decoded(bytes)).toEqual({
      family: 4,
      headerBytes: 20,
      protocol: 6,
      totalBytes: 60,
      sourceOffset: 12,
      destinationOffset: 16,
      addressBytes: 4,
      fragment: 'none',
      sourcePort: bytes.readUInt16BE(20),
      destinationPort: 80,
      dataOffsetBytes: 40,
      sequence: bytes.readUInt32BE(24),
      acknowledgement: 0,
      flags: 0x02,
      window: bytes.readUInt16BE(34),
      payloadOffset: 60,
      payloadBytes: 0,
    })
    expect(bytes.subarray(12, 20)).toEqual(hex('0a630001 0a630002'))
  })

  it.each([
    ['tcp4', [0x02, 0x12, 0x10, 0x18, 0x10, 0x11, 0x10]],
    ['tcp6', [0x02, 0x12, 0x10, 0x18, 0x10, 0x11, 0x10]],
    ['tcp4-record-route', [0x02, 0x12, 0x10, 0x18, 0x10, 0x11, 0x10]],
    ['tcp6-options', [0x02, 0x12, 0x10, 0x18, 0x10, 0x11, 0x10]],
    ['tcp4-refused', [0x02, 0x14]],
  ])('finds the course of a connection in the flags of %s', (name, flags) => {
    expect(readCapture(name).map((bytes) => decoded(bytes).flags)).toEqual(flags)
  })

  it.each([
    ['tcp4', 4],
    ['tcp6', 4],
    ['tcp4-record-route', 4],
    ['tcp6-options', 4],
    ['udp4', 1],
    ['udp6', 1],
  ])('finds the payload of %s', (name, number) => {
    const bytes = readPacket(name, number)
    const packet = decoded(bytes)
    const payload = bytes.subarray(packet.payloadOffset, packet.payloadOffset + packet.payloadBytes)
    expect(payload).toEqual(name.startsWith('tcp') ? Buffer.from('hello') : hex('00 01 02 03 04'))
  })

  it('finds the Fast Open data on the SYN', () => {
    const early = readCapture('tcp4-fast-open')
      .map((bytes) => ({ bytes, packet: decoded(bytes) }))
      .filter(({ packet }) => packet.flags === 0x02 && packet.payloadBytes > 0)
      .map(({ bytes, packet }) => bytes.subarray(packet.payloadOffset).toString())
    expect(early).toEqual(['early'])
  })

  it('steps over hop-by-hop and destination options', () => {
    expect(decoded(readPacket('tcp6-options', 1)).headerBytes).toBe(40 + 8 + 16)
  })

  it('steps over IPv4 options', () => {
    expect(decoded(readPacket('tcp4-record-route', 1)).headerBytes).toBe(20 + 12)
  })

  it.each(['udp4-fragment', 'udp6-fragment'])('tells first and later fragments of %s', (name) => {
    const fragments = readCapture(name).map((bytes) => {
      const { fragment, protocol, destinationPort } = decoded(bytes)
      return { fragment, protocol, destinationPort }
    })
    expect(fragments).toEqual([
      { fragment: 'first', protocol: 17, destinationPort: 53 },
      { fragment: 'later', protocol: 17, destinationPort: 0 },
    ])
  })

  it('gives other protocols as they are, with the payload behind the IP headers', () => {
    const { protocol, headerBytes, payloadOffset, payloadBytes, sourcePort } = decoded(readPacket('udp4-refused', 2))
    expect({ protocol, headerBytes, payloadOffset, payloadBytes, sourcePort }).toEqual({
      protocol: 1,
      headerBytes: 20,
      payloadOffset: 20,
      payloadBytes: 41,
      sourcePort: 0,
    })
  })
})

describe('decoding IPv6 extension headers', () => {
  it.each([
    ['none', ipv6(6, TCP_SYN), 40],
    ['hop-by-hop', ipv6(0, HOP_BY_HOP(6), TCP_SYN), 48],
    ['destination', ipv6(60, DESTINATION(6), TCP_SYN), 56],
    ['routing with no segments left', ipv6(43, ROUTING(6, 0), TCP_SYN), 64],
    ['an atomic fragment', ipv6(44, FRAGMENT(6, 0, 0), TCP_SYN), 48],
    ['authentication', ipv6(51, AUTHENTICATION(6), TCP_SYN), 64],
    [
      'all that RFC 8200 recommends, in its order',
      ipv6(
        0,
        HOP_BY_HOP(60),
        DESTINATION(43),
        ROUTING(44, 0),
        FRAGMENT(51, 0, 0),
        AUTHENTICATION(60),
        DESTINATION(6),
        TCP_SYN,
      ),
      40 + 8 + 16 + 24 + 8 + 24 + 16,
    ],
  ])('steps over %s', (_, bytes, headerBytes) => {
    expect(decoded(bytes)).toEqual(synAt(6, headerBytes))
  })

  it('takes the ports of a first fragment', () => {
    expect(decoded(ipv6(44, FRAGMENT(6, 0, 1), TCP_SYN))).toEqual({ ...synAt(6, 48), fragment: 'first' })
  })

  it('takes nothing behind the fragment header of a later fragment, even where it names an extension header', () => {
    const { fragment, protocol, headerBytes, payloadBytes } = decoded(ipv6(44, FRAGMENT(60, 1, 0), TCP_SYN))
    expect({ fragment, protocol, headerBytes, payloadBytes }).toEqual({
      fragment: 'later',
      protocol: 60,
      headerBytes: 48,
      payloadBytes: 20,
    })
  })

  it.each([
    ['ESP', 50],
    ['mobility', 135],
    ['no next header', 59],
    ['SCTP', 132],
    ['ICMPv6', 58],
  ])('ends at %s', (_, protocol) => {
    const packet = decoded(ipv6(protocol, TCP_SYN))
    expect([packet.protocol, packet.headerBytes, packet.destinationPort]).toEqual([protocol, 40, 0])
  })

  it('reads a segment routing header that is used up, and refuses one that is not', () => {
    expect(decodePacket(ipv6(43, ROUTING(6, 1), TCP_SYN), createPacket())).toBe('source-routed')
  })
})

describe('decoding IPv4', () => {
  it.each([
    ['NOPs', '01010101'],
    ['an end and rubbish behind it', '00ffffff'],
    ['router alert', '94040000'],
    ['a used up loose source route', '8307080a 00000200'],
    ['a used up strict source route', '8907080a 00000200'],
  ])('steps over %s', (_, options) => {
    const bytes = hex(options)
    expect(decoded(ipv4(6, TCP_SYN, bytes))).toEqual(synAt(4, 20 + bytes.length))
  })

  it.each([
    ['loose', '8307040a 00000200'],
    ['strict', '8907040a 00000200'],
    ['a pointer at the last octet, which RFC 791 counts as not used up', '8307070a 00000200'],
    ['strict, behind a NOP', '01890704 0a000002'],
  ])('refuses a source route with hops to go: %s', (_, options) => {
    expect(decodePacket(ipv4(6, TCP_SYN, hex(options)), createPacket())).toBe('source-routed')
  })

  it('tells fragments', () => {
    const first = ipv4(6, TCP_SYN)
    first.writeUInt16BE(0x2000, 6)
    const later = ipv4(6, TCP_SYN)
    later.writeUInt16BE(0x0001, 6)
    expect(decoded(first)).toEqual({ ...synAt(4, 20), fragment: 'first' })
    expect(decoded(later)).toEqual({
      ...synAt(4, 20),
      fragment: 'later',
      sourcePort: 0,
      destinationPort: 0,
      dataOffsetBytes: 0,
      sequence: 0,
      acknowledgement: 0,
      flags: 0,
      window: 0,
      payloadOffset: 20,
      payloadBytes: 20,
    })
  })

  it.each([0x0001, 0x1000, 0x1fff, 0x3000])('sees a later fragment in the flags and offset %i', (field) => {
    const bytes = ipv4(6, TCP_SYN)
    bytes.writeUInt16BE(field, 6)
    expect(decoded(bytes).fragment).toBe('later')
  })

  it("does not take don't-fragment and the reserved bit for a fragment", () => {
    const bytes = ipv4(6, TCP_SYN)
    bytes.writeUInt16BE(0xc000, 6)
    expect(decoded(bytes).fragment).toBe('none')
  })

  it('takes the IP length, not the length of the bytes: the rest is padding', () => {
    const padded = Buffer.concat([ipv4(6, TCP_SYN), hex('00 00 00 00 00 00')])
    expect(decoded(padded)).toEqual(synAt(4, 20))
  })

  it('ends the payload of UDP where UDP says', () => {
    const packet = decoded(ipv4(17, Buffer.concat([UDP_DATAGRAM, hex('ffff')])))
    expect([packet.payloadOffset, packet.payloadBytes]).toEqual([28, 4])
  })

  it('reads 32-bit numbers without sign', () => {
    const header = hex('1234 0050 ffffffff 80000000 5010 ffff 0000 0000')
    const packet = decoded(ipv4(6, header))
    expect([packet.sequence, packet.acknowledgement]).toEqual([0xffffffff, 0x80000000])
  })

  it('leaves nothing of the packet before in a packet that is used again', () => {
    const packet = createPacket()
    decodePacket(ipv6(44, FRAGMENT(6, 0, 1), TCP_SYN), packet)
    expect(decodePacket(ipv4(1, hex('0800 0000')), packet)).toBe('ok')
    expect(packet).toEqual(decoded(ipv4(1, hex('0800 0000'))))

    decodePacket(ipv6(44, FRAGMENT(6, 1, 0), TCP_SYN), packet)
    expect(decodePacket(ipv6(6, TCP_SYN), packet)).toBe('ok')
    expect(packet).toEqual(synAt(6, 40))
  })
})
