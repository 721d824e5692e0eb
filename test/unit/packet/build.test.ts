import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { buildTcp, type TcpFields } from '../../../sidecar/packet/build.ts'
import { verifyHeaderChecksum, verifyTransportChecksum } from '../../../sidecar/packet/checksum.ts'
import { decoded, hex, readPacket } from './fixtures.ts'

const FIELDS: TcpFields = {
  family: 4,
  source: hex('0a000001'),
  destination: hex('0a000002'),
  sourcePort: 4660,
  destinationPort: 80,
  sequence: 0xfffffffe,
  acknowledgement: 0x80000001,
  flags: 0x18,
  window: 502,
}
const FIELDS_6: TcpFields = {
  ...FIELDS,
  family: 6,
  source: hex('fd00 0000 0000 0000 0000 0000 0000 0001'),
  destination: hex('fd00 0000 0000 0000 0000 0000 0000 0002'),
}

function build(fields: TcpFields, payload: Uint8Array): Buffer {
  // Old bytes in the buffer must not shine through.
  const out = Buffer.alloc(2048, 0xee)
  return out.subarray(0, buildTcp(fields, payload, out))
}

describe('building TCP packets', () => {
  it.each([
    ['tcp4', 2],
    ['tcp4', 4],
    ['tcp6', 2],
    ['tcp6', 4],
  ])('gives what the kernel sent: %s %i', (name, number) => {
    const recorded = readPacket(name, number)
    // The kernel's own choice: an identification, a flow label.
    const isIpv4 = name === 'tcp4'
    const packet = decoded(recorded)
    const built = build(
      {
        family: packet.family,
        source: recorded.subarray(packet.sourceOffset, packet.destinationOffset),
        destination: recorded.subarray(packet.destinationOffset, packet.destinationOffset + packet.addressBytes),
        sourcePort: packet.sourcePort,
        destinationPort: packet.destinationPort,
        sequence: packet.sequence,
        acknowledgement: packet.acknowledgement,
        flags: packet.flags,
        window: packet.window,
        options: recorded.subarray(packet.headerBytes + 20, packet.payloadOffset),
      },
      recorded.subarray(packet.payloadOffset),
    )
    expect(built.subarray(isIpv4 ? 12 : 4)).toEqual(recorded.subarray(isIpv4 ? 12 : 4))
    expect(verifyHeaderChecksum(built, decoded(built))).toBe(true)
  })

  it('writes an IPv4 packet byte by byte as RFC 791 and RFC 9293 have it', () => {
    expect(build(FIELDS, Buffer.from('abc')).toString('hex')).toBe(
      hex(`4500 002b 0000 4000 4006 26cb 0a000001 0a000002
           1234 0050 fffffffe 80000001 5018 01f6 42ea 0000 616263`).toString('hex'),
    )
  })

  it('writes an IPv6 packet byte by byte as RFC 8200 and RFC 9293 have it', () => {
    expect(build({ ...FIELDS_6, hopLimit: 255 }, Buffer.from('abc')).toString('hex')).toBe(
      hex(`60000000 0017 06 ff
           fd00 0000 0000 0000 0000 0000 0000 0001 fd00 0000 0000 0000 0000 0000 0000 0002
           1234 0050 fffffffe 80000001 5018 01f6 5ce8 0000 616263`).toString('hex'),
    )
  })

  it('decodes to what it was built from, with right checksums', () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.nat(0xffff),
        fc.nat(0xffffffff),
        fc.nat(0xffffffff),
        fc.nat(0xff),
        fc.uint8Array({ maxLength: 200 }),
        (isIpv4, port, sequence, acknowledgement, flags, payload) => {
          const fields = { ...(isIpv4 ? FIELDS : FIELDS_6), sourcePort: port, sequence, acknowledgement, flags }
          const bytes = build(fields, payload)
          const packet = decoded(bytes)
          const headerBytes = isIpv4 ? 20 : 40
          expect(packet).toEqual({
            family: fields.family,
            headerBytes,
            protocol: 6,
            totalBytes: headerBytes + 20 + payload.length,
            sourceOffset: isIpv4 ? 12 : 8,
            destinationOffset: isIpv4 ? 16 : 24,
            addressBytes: isIpv4 ? 4 : 16,
            fragment: 'none',
            sourcePort: port,
            destinationPort: 80,
            dataOffsetBytes: 20,
            sequence,
            acknowledgement,
            flags,
            window: 502,
            payloadOffset: headerBytes + 20,
            payloadBytes: payload.length,
          })
          expect(verifyHeaderChecksum(bytes, packet)).toBe(true)
          expect(verifyTransportChecksum(bytes, packet)).toBe(true)
        },
      ),
    )
  })

  it.each<[string, TcpFields, number, number]>([
    ['an IPv6 address in IPv4', { ...FIELDS, source: FIELDS_6.source }, 0, 2048],
    ['an IPv4 address in IPv6', { ...FIELDS_6, destination: FIELDS.destination }, 0, 2048],
    ['options of a length that is no multiple of 4', { ...FIELDS, options: hex('010101') }, 0, 2048],
    ['more options than a header holds', { ...FIELDS, options: new Uint8Array(44) }, 0, 2048],
    ['a buffer that is a byte too small', FIELDS, 3, 42],
    ['more than the IPv4 length field holds', FIELDS, 65_496, 70_000],
    ['more than the IPv6 length field holds', FIELDS_6, 65_516, 70_000],
  ])('gives 0 and writes nothing for %s', (_, fields, payloadBytes, outBytes) => {
    const out = Buffer.alloc(outBytes, 0xee)
    expect(buildTcp(fields, Buffer.alloc(payloadBytes), out)).toBe(0)
    expect(out.equals(Buffer.alloc(outBytes, 0xee))).toBe(true)
  })

  it('fills the length field to the last byte', () => {
    const out = Buffer.alloc(70_000)
    expect(buildTcp(FIELDS, Buffer.alloc(65_495), out)).toBe(65_535)
    expect(buildTcp(FIELDS_6, Buffer.alloc(65_515), out)).toBe(65_575)
    expect(verifyTransportChecksum(out, decoded(out))).toBe(true)
  })
})
