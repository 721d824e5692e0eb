import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import {
  canonicalAddress,
  cidrContains,
  cidrContainsCidr,
  formatAddress,
  formatCidr,
  parseAddress,
  parseCidr,
  unmapAddress,
} from '../../../policy/address.ts'

function cidr(text: string) {
  const parsed = parseCidr(text)
  if (parsed === undefined) throw new Error(`not a CIDR: ${text}`)
  return parsed
}

function contains(block: string, address: string): boolean {
  const bytes = parseAddress(address)
  if (bytes === undefined) throw new Error(`not an address: ${address}`)
  return cidrContains(cidr(block), bytes)
}

describe('addresses', () => {
  it.each([
    // RFC 5952 section 1 and 2: many texts of one address
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8::1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8::0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0db8::1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:0:1::1', '2001:db8::1:0:0:1'],
    ['2001:db8:0000:0:1::1', '2001:db8::1:0:0:1'],
    ['2001:DB8:0:0:1::1', '2001:db8::1:0:0:1'],
    ['2001:db8:aaaa:bbbb:cccc:dddd:eeee:0001', '2001:db8:aaaa:bbbb:cccc:dddd:eeee:1'],
    ['2001:db8:aaaa:bbbb:cccc:dddd::1', '2001:db8:aaaa:bbbb:cccc:dddd:0:1'],
    ['2001:db8:0:0:0::1', '2001:db8::1'],
    ['2001:db8::aaaa:0:0:1', '2001:db8::aaaa:0:0:1'],
    // section 4.1 and 4.3
    ['2001:0DB8::0001', '2001:db8::1'],
    // section 4.2.2: one group of zeros is not shortened
    ['2001:db8::1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    // section 4.2.3: the longest run, and the first of equals
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    // section 5: mixed notation
    ['::ffff:c000:201', '::ffff:192.0.2.1'],
    ['0:0:0:0:0:FFFF:192.0.2.1', '::ffff:192.0.2.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:102:304'],
    ['10.244.0.1', '10.244.0.1'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
  ])('reads %s and writes %s', (text, canonical) => {
    expect(canonicalAddress(text)).toBe(canonical)
  })

  it.each([
    '',
    ' ',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.00',
    '1.2.3.',
    '.1.2.3',
    '1..2.3',
    '0x1.2.3.4',
    '1.2.3.4 ',
    ' 1.2.3.4',
    '1.2.3.4\n',
    '+1.2.3.4',
    '1.2.3.-4',
    '١.2.3.4',
    '1.2.3.4/32',
    ':',
    ':::',
    '::1::',
    '1::2::3',
    ':1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '::1:2:3:4:5:6:7:8',
    '1:2:3:4::5:6:7:8',
    '12345::',
    '::g',
    '[::1]',
    'fe80::1%eth0',
    '::1.2.3',
    '::1.2.3.4.5',
    '::01.2.3.4',
    '1.2.3.4::',
    '::1.2.3.4:5',
    '1:2:3:4:5:6:7:1.2.3.4',
    '::ffff:1.2.3.256',
    '1:',
    '1:2',
    '::1 ',
    `${'0'.repeat(50)}::`,
    '::\u0000',
  ])('refuses %j', (text) => {
    expect(parseAddress(text)).toBeUndefined()
  })

  it('reads back what it writes, for any 4 or 16 bytes', () => {
    const byte = fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.nat(255))
    const address = fc.oneof(
      fc.array(byte, { minLength: 4, maxLength: 4 }),
      fc.array(byte, { minLength: 16, maxLength: 16 }),
    )
    fc.assert(
      fc.property(address, (numbers) => {
        const bytes = Uint8Array.from(numbers)
        expect(parseAddress(formatAddress(bytes))).toEqual(bytes)
      }),
      { numRuns: 1000 },
    )
  })

  it('reads no text that Node.js takes for none, and none otherwise', async () => {
    const { isIP } = await import('node:net')
    const piece = fc.constantFrom('0', '1', 'ff', 'FFFF', '255', '256', '01', ':', '::', '.', '1.2.3.4', 'g', '%', '/')
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 16 }), (pieces) => {
        const text = pieces.join('')
        expect([text, parseAddress(text)?.length ?? 0]).toEqual([
          text,
          text.includes('%') ? 0 : { 0: 0, 4: 4, 6: 16 }[isIP(text)],
        ])
      }),
      { numRuns: 5000 },
    )
  })

  it('throws for a number of bytes that no address has', () => {
    expect(() => formatAddress(new Uint8Array(5))).toThrow(RangeError)
  })

  it('keeps an IPv4-mapped address apart from IPv4 until it is unmapped', () => {
    const mapped = parseAddress('::ffff:10.0.0.1') ?? new Uint8Array()
    expect(mapped.length).toBe(16)
    expect(cidrContains(cidr('10.0.0.0/8'), mapped)).toBe(false)
    expect(formatAddress(unmapAddress(mapped))).toBe('10.0.0.1')
    expect(formatAddress(unmapAddress(Uint8Array.of(10, 0, 0, 2)))).toBe('10.0.0.2')
    expect(formatAddress(unmapAddress(parseAddress('::fffe:10.0.0.1') ?? new Uint8Array()))).toBe('::fffe:a00:1')
  })
})

describe('CIDR blocks', () => {
  it.each([
    ['10.0.0.0/8', '10.255.255.255', true],
    ['10.0.0.0/8', '11.0.0.0', false],
    ['10.0.0.0/8', '::ffff:10.0.0.1', false],
    ['0.0.0.0/0', '203.0.113.9', true],
    ['0.0.0.0/0', '2001:db8::1', false],
    ['::/0', '2001:db8::1', true],
    ['::/0', '203.0.113.9', false],
    ['192.168.1.128/25', '192.168.1.127', false],
    ['192.168.1.128/25', '192.168.1.128', true],
    ['192.168.1.7/32', '192.168.1.7', true],
    ['192.168.1.7/32', '192.168.1.6', false],
    ['2001:db8::/33', '2001:db8:7fff::1', true],
    ['2001:db8::/33', '2001:db8:8000::1', false],
    ['2001:db8::1/128', '2001:db8::1', true],
    ['2001:db8::1/128', '2001:db8::2', false],
  ])('%s contains %s: %s', (block, address, expected) => {
    expect(contains(block, address)).toBe(expected)
  })

  it.each([
    ['10.1.2.3/8', '10.0.0.0/8'],
    ['10.1.2.3/0', '0.0.0.0/0'],
    ['2001:db8:ffff::/36', '2001:db8:f000::/36'],
    ['::ffff:10.1.2.3/104', '10.0.0.0/8'],
    ['::ffff:0:0/96', '0.0.0.0/0'],
    ['::ffff:0:0/95', '::fffe:0:0/95'],
    ['2001:DB8::/32', '2001:db8::/32'],
  ])('reads %s as %s', (text, canonical) => {
    expect(formatCidr(cidr(text))).toBe(canonical)
  })

  it.each([
    '',
    '/',
    '10.0.0.0',
    '10.0.0.0/',
    '/8',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '10.0.0.0/ 8',
    '10.0.0/8',
    '::/129',
    '::/1e2',
    'fe80::%1/64',
    '10.0.0.0/0x8',
  ])('refuses %j', (text) => {
    expect(parseCidr(text)).toBeUndefined()
  })

  it.each([
    ['10.0.0.0/8', '10.1.0.0/16', true],
    ['10.0.0.0/8', '10.0.0.0/8', true],
    ['10.1.0.0/16', '10.0.0.0/8', false],
    ['10.0.0.0/8', '11.0.0.0/16', false],
    ['::/0', '10.0.0.0/8', false],
  ])('%s contains all of %s: %s', (outer, inner, expected) => {
    expect(cidrContainsCidr(cidr(outer), cidr(inner))).toBe(expected)
  })
})
