/**
 * IP addresses and CIDR blocks as bytes. Text is read strictly (RFC 4291, RFC 6943 section 3.1.1: no octal, no short
 * forms, no zones), so that a text has one meaning here and everywhere else in the cluster.
 *
 * An IPv4-mapped address (`::ffff:a.b.c.d`) stays an IPv6 address of 16 bytes: on the wire it is one, and it is in no
 * IPv4 block. Who reads addresses of dual-stack sockets calls unmapAddress.
 */

/** A block of addresses; `bytes` has 4 or 16 of them, the bits after `prefixBits` are zero. */
export interface Cidr {
  readonly bytes: Uint8Array
  readonly prefixBits: number
}

const COLON = 0x3a

/**
 * The 4 or 16 bytes of an IPv4 or IPv6 address in text, undefined for any other text (zones, brackets, spaces,
 * leading zeros in an IPv4 part, a group of more than four digits).
 */
export function parseAddress(text: string): Uint8Array | undefined {
  // 45 is INET6_ADDRSTRLEN less its NUL: nothing longer is an address, and hostile text costs nothing.
  if (text.length > 45) return undefined
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text)
}

function parseIpv4(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4)
  return readIpv4(text, 0, bytes, 0) ? bytes : undefined
}

/** Reads dotted decimal from `text` at `start` to its end into four bytes of `bytes`. */
function readIpv4(text: string, start: number, bytes: Uint8Array, offset: number): boolean {
  let part = 0
  let value = 0
  let digits = 0
  for (let index = start; index <= text.length; index++) {
    const digit = index < text.length ? text.charCodeAt(index) - 0x30 : -1
    if (digit >= 0 && digit <= 9) {
      if (digits > 0 && value === 0) return false
      value = value * 10 + digit
      digits++
      if (value > 255) return false
    } else {
      if (index < text.length && text[index] !== '.') return false
      if (digits === 0 || part === 4) return false
      bytes[offset + part] = value
      part++
      value = 0
      digits = 0
    }
  }
  return part === 4
}

function parseIpv6(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(16)
  let offset = 0
  let gap = -1
  let index = 0
  if (text.startsWith('::')) {
    gap = 0
    index = 2
  }
  while (index < text.length) {
    if (offset === 16) return undefined
    const start = index
    let value = 0
    let digit = hexDigit(text, index)
    while (digit >= 0) {
      if (index - start === 4) return undefined
      value = value * 16 + digit
      index++
      digit = hexDigit(text, index)
    }
    if (text[index] === '.') {
      // The last 32 bits may be in dotted decimal (RFC 4291 section 2.2.3).
      if (offset > 12 || !readIpv4(text, start, bytes, offset)) return undefined
      offset += 4
      break
    }
    if (index === start) return undefined
    bytes[offset] = value >> 8
    bytes[offset + 1] = value & 0xff
    offset += 2
    if (index === text.length) break
    if (text.charCodeAt(index) !== COLON) return undefined
    index++
    if (text.charCodeAt(index) === COLON) {
      if (gap >= 0) return undefined
      gap = offset
      index++
    } else if (index === text.length) return undefined
  }
  if (gap < 0) return offset === 16 ? bytes : undefined
  // `::` stands for one group of zeros or more; eight groups beside it leave it none.
  if (offset === 16) return undefined
  bytes.copyWithin(16 - (offset - gap), gap, offset)
  bytes.fill(0, gap, 16 - (offset - gap))
  return bytes
}

function hexDigit(text: string, index: number): number {
  const code = text.charCodeAt(index)
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const lower = code | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}

/**
 * The canonical text of an address of 4 or 16 bytes: dotted decimal, or RFC 5952 (lower case, the first longest run
 * of two or more zero groups as `::`, an IPv4-mapped address with its last 32 bits in dotted decimal).
 * Throws RangeError for another number of bytes: that is a mistake of the caller, never of a packet.
 */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`
  if (bytes.length !== 16) throw new RangeError(`an address has 4 or 16 bytes, not ${bytes.length}`)
  if (isMapped(bytes)) return `::ffff:${formatAddress(bytes.subarray(12))}`
  const groups: number[] = []
  for (let index = 0; index < 16; index += 2) groups.push(((bytes[index] ?? 0) << 8) | (bytes[index + 1] ?? 0))
  const { start, length } = longestZeroRun(groups)
  if (length < 2) return formatGroups(groups)
  return `${formatGroups(groups.slice(0, start))}::${formatGroups(groups.slice(start + length))}`
}

function formatGroups(groups: readonly number[]): string {
  return groups.map((group) => group.toString(16)).join(':')
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 }
  let start = 0
  for (let index = 0; index <= groups.length; index++) {
    if (groups[index] === 0) continue
    if (index - start > best.length) best = { start, length: index - start }
    start = index + 1
  }
  return best
}

function isMapped(bytes: Uint8Array): boolean {
  if (bytes.length !== 16 || bytes[10] !== 0xff || bytes[11] !== 0xff) return false
  for (let index = 0; index < 10; index++) if (bytes[index] !== 0) return false
  return true
}

/** The IPv4 address in an IPv4-mapped one, for the addresses that a dual-stack socket tells; others as they are. */
export function unmapAddress(bytes: Uint8Array): Uint8Array {
  return isMapped(bytes) ? bytes.subarray(12) : bytes
}

/** The canonical text of an address in text, undefined where it is none. */
export function canonicalAddress(text: string): string | undefined {
  const bytes = parseAddress(text)
  return bytes === undefined ? undefined : formatAddress(bytes)
}

/**
 * The block that a text as `10.0.0.0/8` names, undefined where it names none. Bits after the prefix are cleared, as
 * Go's net.ParseCIDR does (formatCidr gives the canonical text), and a block inside ::ffff:0:0/96 is an IPv4 block, as Go has it.
 */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/')
  if (slash < 0) return undefined
  const address = parseAddress(text.slice(0, slash))
  const prefix = text.slice(slash + 1)
  if (address === undefined || !/^(0|[1-9]\d{0,2})$/.test(prefix)) return undefined
  const prefixBits = Number(prefix)
  if (prefixBits > address.length * 8) return undefined
  if (isMapped(address) && prefixBits >= 96) return maskedCidr(address.subarray(12), prefixBits - 96)
  return maskedCidr(address, prefixBits)
}

function maskedCidr(address: Uint8Array, prefixBits: number): Cidr {
  const bytes = Uint8Array.from(address, (byte, index) => {
    const bits = Math.min(8, Math.max(0, prefixBits - index * 8))
    return byte & (0xff << (8 - bits))
  })
  return { bytes, prefixBits }
}

/** `10.0.0.0/8` for the block. */
export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.bytes)}/${cidr.prefixBits}`
}

/** Whether an address of 4 or 16 bytes is in the block; an address of the other family never is. */
export function cidrContains(cidr: Cidr, address: Uint8Array): boolean {
  const { bytes, prefixBits } = cidr
  if (address.length !== bytes.length) return false
  const whole = prefixBits >> 3
  for (let index = 0; index < whole; index++) if (address[index] !== bytes[index]) return false
  const rest = prefixBits & 7
  if (rest === 0) return true
  return (((address[whole] ?? 0) ^ (bytes[whole] ?? 0)) & (0xff << (8 - rest)) & 0xff) === 0
}

/** Whether every address of `inner` is in `outer`. */
export function cidrContainsCidr(outer: Cidr, inner: Cidr): boolean {
  return inner.prefixBits >= outer.prefixBits && cidrContains(outer, inner.bytes)
}
