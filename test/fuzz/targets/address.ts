import { isIP } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import { cidrContains, formatAddress, formatCidr, parseAddress, parseCidr } from '../../../policy/address.ts'
import { hold, valueTarget } from '../target.ts'
import { textOf, unfold } from '../values.ts'

const SEEDS = [
  '10.0.0.1',
  '255.255.255.255',
  '::',
  '::1',
  'fd00:10:244:3::11',
  '1:2:3:4:5:6:7:8',
  '1::8',
  '::ffff:10.0.0.1',
  '64:ff9b::192.0.2.33',
  '1:2:3:4:5:6:77.77.88.88',
  'fe80::1%eth0',
  '10.0.0.0/8',
  '2001:db8::/32',
  '::ffff:10.0.0.0/104',
]

/** The URL standard's own serialisation; it writes IPv4-mapped addresses in hexadecimal. */
function urlForm(text: string): string {
  return text.includes(':') ? new URL(`http://[${text}]/`).hostname.slice(1, -1) : text
}

export const addressTarget = valueTarget({
  name: 'address',
  about: 'IP addresses and CIDRs in text: the same as node:net takes, RFC 5952 as the URL standard writes it',
  sources: ['policy/address.ts'],
  batch: 256,
  seeds: SEEDS,
  words: ['::', ':', '.', '/', '0', '00', 'ffff', 'ffff:', '127', '256', '%', '[', '/0', '/32', '/128', '/129', '/96'],
  check(input) {
    const text = textOf(unfold(input))
    const bytes = parseAddress(text)
    const known = isIP(text) !== 0 && !text.includes('%')
    hold((bytes !== undefined) === known, 'an address is one for node:net too, but for zones')
    if (bytes !== undefined) {
      const canonical = formatAddress(bytes)
      hold(isDeepStrictEqual(parseAddress(canonical), bytes), 'canonical text reads as the same address')
      hold(
        canonical.startsWith('::ffff:') || canonical === urlForm(text),
        'canonical text is what the URL standard has',
      )
    }
    const cidr = parseCidr(text)
    if (cidr === undefined) return bytes === undefined ? 'neither' : `address-${bytes.length}`
    hold(isDeepStrictEqual(parseCidr(formatCidr(cidr)), cidr), 'a canonical block reads as the same block')
    hold(cidrContains(cidr, cidr.bytes), 'a block contains its first address')
    return `cidr-${cidr.bytes.length}`
  },
})
