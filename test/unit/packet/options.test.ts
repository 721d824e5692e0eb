import { describe, expect, it } from '@jest/globals'
import { buildTcp } from '../../../sidecar/packet/build.ts'
import { verifyTransportChecksum } from '../../../sidecar/packet/checksum.ts'
import { findOption, neutralizeFastOpen, readMss } from '../../../sidecar/packet/options.ts'
import { decoded, hex, ipv4, readCapture, readPacket, UDP_DATAGRAM } from './fixtures.ts'

/** A SYN with right checksum and these options. */
function synWith(options: string): Buffer {
  const out = Buffer.alloc(128)
  const fields = {
    family: 4,
    source: hex('0a000001'),
    destination: hex('0a000002'),
    sourcePort: 4660,
    destinationPort: 80,
    sequence: 1,
    acknowledgement: 0,
    flags: 0x02,
    window: 65_535,
    options: hex(options),
  } as const
  return out.subarray(0, buildTcp(fields, Buffer.from('data'), out))
}

/** The TCP options of a SYN made by synWith(). */
function optionsOf(bytes: Buffer): Buffer {
  return bytes.subarray(40, decoded(bytes).payloadOffset)
}

describe('finding TCP options', () => {
  it.each([
    ['the first', '020405b4', 2, 40],
    ['one behind NOPs', '0101020405b40101', 2, 42],
    ['one behind another', '0808000000000000 03030701', 3, 48],
    ['one that ends with the header', '01010101 01030307', 3, 45],
    ['none that is not there', '020405b4', 8, -1],
    ['none behind the end', '00040000 020405b4', 2, -1],
    ['none behind an option of length 0', '03000000020405b4', 2, -1],
    ['none behind an option of length 1', '03010000020405b4', 2, -1],
    ['none that runs past the header', '01010101010102 08', 2, -1],
    ['none without room for its length', '01010102', 2, -1],
    ['none inside another', '22060204 05b40101', 2, -1],
  ])('finds %s', (_, options, kind, offset) => {
    const bytes = synWith(options)
    expect(findOption(bytes, decoded(bytes), kind)).toBe(offset)
  })

  it('finds nothing in UDP and in later fragments', () => {
    const datagram = ipv4(17, Buffer.concat([UDP_DATAGRAM, hex('020405b4020405b4020405b4')]))
    const fragment = synWith('020405b4')
    fragment.writeUInt16BE(0x0004, 6)
    expect(findOption(datagram, decoded(datagram), 2)).toBe(-1)
    expect(findOption(fragment, decoded(fragment), 2)).toBe(-1)
  })

  it('reads the segment size of recorded SYNs and SYN-ACKs', () => {
    const sizes = ['tcp4', 'tcp6', 'tcp4-record-route', 'tcp6-options'].map((name) =>
      [1, 2].map((number) => readMss(readPacket(name, number), decoded(readPacket(name, number)))),
    )
    expect(sizes).toEqual([
      [1240, 1240],
      [1220, 1220],
      [1240, 1240],
      [1220, 1220],
    ])
  })

  it.each([
    ['no option', ''],
    ['an option of a wrong length', '020305 01'],
    ['an option that is too long', '020605b4 0000 0101'],
  ])('reads no segment size from %s', (_, options) => {
    const bytes = synWith(options)
    expect(readMss(bytes, decoded(bytes))).toBe(0)
  })
})

describe('neutralising Fast Open', () => {
  it.each([
    ['a cookie request', '220201 01', '010101 01'],
    ['a cookie', '220a 1122334455667788', '01010101010101010101'],
    ['an odd place', '01 2203 ff', '01 0101 01'],
    ['an odd place, behind which more follows', '01 2206 11223344 020405b4 01', '01 0101 01010101 020405b4 01'],
    ['the experimental option', 'fe08f989 11223344', '0101010101010101'],
    ['both, the experimental one first', 'fe04f989 2202 0101', '01010101 0101 0101'],
    ['one behind another experiment', 'fe040001 fe04f989', 'fe040001 01010101'],
  ])('puts NOPs over %s and keeps the checksum right', (_, before, after) => {
    const pad = (text: string) => {
      const bytes = hex(text)
      return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4, 1)])
    }
    const bytes = synWith(pad(before).toString('hex'))
    expect(neutralizeFastOpen(bytes, decoded(bytes))).toBe(true)
    expect(optionsOf(bytes)).toEqual(pad(after))
    expect(verifyTransportChecksum(bytes, decoded(bytes))).toBe(true)
    expect(bytes.subarray(-4).toString()).toBe('data')
  })

  it.each([
    ['no option', ''],
    ['usual options', '020405b4 0402 080a 00000001 00000000 01 030307'],
    ['another experiment', 'fe041234'],
    ['an experiment without identifier', 'fe03f901'],
    ['an option that runs past the header', '22080000'],
  ])('touches nothing where there is %s', (_, options) => {
    const bytes = synWith(options)
    const before = Buffer.from(bytes)
    expect(neutralizeFastOpen(bytes, decoded(bytes))).toBe(false)
    expect(bytes).toEqual(before)
  })

  it.each(['tcp4-fast-open', 'tcp6-fast-open'])('leaves none in %s, and right checksums', (name) => {
    const found = readCapture(name).map((bytes) => {
      const hadOption = neutralizeFastOpen(bytes, decoded(bytes))
      expect(findOption(bytes, decoded(bytes), 34)).toBe(-1)
      expect(verifyTransportChecksum(bytes, decoded(bytes))).toBe(true)
      return hadOption
    })
    // The request, its answer, and the SYN with data.
    expect(found.filter(Boolean)).toHaveLength(3)
  })
})
