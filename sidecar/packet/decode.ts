import { readUint8, readUint16, readUint32 } from './words.ts'

/** IP protocol numbers (IANA) that decodePacket looks into. */
export const PROTOCOL_TCP = 6
export const PROTOCOL_UDP = 17

/** TCP control bits (RFC 9293 section 3.1). */
export const FLAG_FIN = 0x01
export const FLAG_SYN = 0x02
export const FLAG_RST = 0x04
export const FLAG_PSH = 0x08
export const FLAG_ACK = 0x10

/** Fixed header lengths: RFC 791, RFC 8200, RFC 9293 without options, RFC 768. */
export const IPV4_HEADER_BYTES = 20
export const IPV6_HEADER_BYTES = 40
export const TCP_HEADER_BYTES = 20
export const UDP_HEADER_BYTES = 8

/** The data offset has 4 bits: 60 bytes of header, 20 of them fixed (RFC 9293 section 3.1). */
export const MAXIMUM_OPTIONS_BYTES = 40

/** RFC 8200 allows seven (destination options twice); one more is somebody who wants us to loop. */
export const MAX_EXTENSION_HEADERS = 7

// RFC 8200 section 4, RFC 4302. ESP, mobility and "no next header" are final, as in Linux's ipv6_ext_hdr().
const HEADER_HOP_BY_HOP = 0
const HEADER_ROUTING = 43
const HEADER_FRAGMENT = 44
const HEADER_AUTHENTICATION = 51
const HEADER_DESTINATION = 60

// RFC 791 section 3.1.
const OPTION_END = 0
const OPTION_NOP = 1
const OPTION_LOOSE_SOURCE_ROUTE = 131
const OPTION_STRICT_SOURCE_ROUTE = 137

/** Why a packet was not decoded. The words are stable: they label a metric. */
export type DecodeFailure =
  /** The bytes end before a header, or before the length that a header states. */
  | 'truncated'
  /** Neither version 4 nor 6. */
  | 'not-ip'
  /** A header states a length below its own minimum. */
  | 'bad-header-length'
  /** IPv4's total length is below its header's length. */
  | 'bad-total-length'
  /** An IPv4 option with a length below 2 or past the header. */
  | 'bad-ip-option'
  /** A source route with hops to go: the destination address is not where the packet ends. */
  | 'source-routed'
  /** Hop-by-hop options elsewhere than right after the IPv6 header (RFC 8200 section 4.1). */
  | 'misplaced-hop-by-hop'
  /** More than MAX_EXTENSION_HEADERS. */
  | 'too-many-extension-headers'

/** Where things are in the bytes given to decodePacket. All offsets count from their start. */
export interface Packet {
  family: 4 | 6
  /** IP header with IPv4 options or IPv6 extension headers: the offset of the transport header. */
  headerBytes: number
  /** The protocol behind the IP headers (IANA number). */
  protocol: number
  /** Length that the IP header states. Bytes behind it (Ethernet padding) are not part of the packet. */
  totalBytes: number
  sourceOffset: number
  destinationOffset: number
  addressBytes: 4 | 16
  /** `none` also for IPv6's atomic fragments (RFC 6946), which are whole packets. */
  fragment: 'none' | 'first' | 'later'

  // TCP and UDP only, and not in later fragments; 0 elsewhere.
  sourcePort: number
  destinationPort: number
  /** Length of the TCP or UDP header. */
  dataOffsetBytes: number

  // TCP only.
  sequence: number
  acknowledgement: number
  /** The low 8 control bits, FLAG_*. */
  flags: number
  /** As in the header, unscaled. */
  window: number

  /** Behind the transport header, or behind the IP headers where the transport is not decoded. */
  payloadOffset: number
  payloadBytes: number
}

/** A packet to decode into, again and again. */
export function createPacket(): Packet {
  return {
    family: 4,
    headerBytes: 0,
    protocol: 0,
    totalBytes: 0,
    sourceOffset: 0,
    destinationOffset: 0,
    addressBytes: 4,
    fragment: 'none',
    sourcePort: 0,
    destinationPort: 0,
    dataOffsetBytes: 0,
    sequence: 0,
    acknowledgement: 0,
    flags: 0,
    window: 0,
    payloadOffset: 0,
    payloadBytes: 0,
  }
}

/**
 * Decodes an IPv4 (RFC 791) or IPv6 (RFC 8200) packet with TCP (RFC 9293) or UDP (RFC 768) in it into `packet`.
 * Returns `ok` or the reason; then `packet` means nothing. Reads nothing behind the IP header's own length, allocates
 * nothing, never throws. Checksums are not looked at (verifyTransportChecksum).
 */
export function decodePacket(bytes: Uint8Array, packet: Packet): 'ok' | DecodeFailure {
  packet.sourcePort = 0
  packet.destinationPort = 0
  packet.dataOffsetBytes = 0
  packet.sequence = 0
  packet.acknowledgement = 0
  packet.flags = 0
  packet.window = 0

  if (bytes.length === 0) return 'truncated'
  const version = readUint8(bytes, 0) >>> 4
  if (version !== 4 && version !== 6) return 'not-ip'
  const network = version === 4 ? decodeIpv4(bytes, packet) : decodeIpv6(bytes, packet)
  if (network !== 'ok') return network

  packet.payloadOffset = packet.headerBytes
  packet.payloadBytes = packet.totalBytes - packet.headerBytes
  if (packet.fragment === 'later') return 'ok'
  if (packet.protocol === PROTOCOL_TCP) return decodeTcp(bytes, packet)
  if (packet.protocol === PROTOCOL_UDP) return decodeUdp(bytes, packet)
  return 'ok'
}

function decodeIpv4(bytes: Uint8Array, packet: Packet): 'ok' | DecodeFailure {
  if (bytes.length < IPV4_HEADER_BYTES) return 'truncated'
  const headerBytes = (readUint8(bytes, 0) & 0x0f) * 4
  if (headerBytes < IPV4_HEADER_BYTES) return 'bad-header-length'
  const totalBytes = readUint16(bytes, 2)
  if (totalBytes < headerBytes) return 'bad-total-length'
  if (totalBytes > bytes.length) return 'truncated'

  const moreFragments = (readUint8(bytes, 6) & 0x20) !== 0
  const fragmentOffset = readUint16(bytes, 6) & 0x1fff
  packet.family = 4
  packet.headerBytes = headerBytes
  packet.totalBytes = totalBytes
  packet.protocol = readUint8(bytes, 9)
  packet.sourceOffset = 12
  packet.destinationOffset = 16
  packet.addressBytes = 4
  packet.fragment = fragmentOffset !== 0 ? 'later' : moreFragments ? 'first' : 'none'
  return headerBytes === IPV4_HEADER_BYTES ? 'ok' : checkIpv4Options(bytes, headerBytes)
}

function checkIpv4Options(bytes: Uint8Array, headerBytes: number): 'ok' | DecodeFailure {
  let offset = IPV4_HEADER_BYTES
  while (offset < headerBytes) {
    const kind = readUint8(bytes, offset)
    if (kind === OPTION_END) return 'ok'
    if (kind === OPTION_NOP) {
      offset += 1
      continue
    }
    if (offset + 2 > headerBytes) return 'bad-ip-option'
    const optionBytes = readUint8(bytes, offset + 1)
    if (optionBytes < 2 || offset + optionBytes > headerBytes) return 'bad-ip-option'
    if (kind === OPTION_LOOSE_SOURCE_ROUTE || kind === OPTION_STRICT_SOURCE_ROUTE) {
      if (optionBytes < 3) return 'bad-ip-option'
      // The pointer passes the option's length when the route is used up. Until then policies would judge a mere hop.
      if (readUint8(bytes, offset + 2) <= optionBytes) return 'source-routed'
    }
    offset += optionBytes
  }
  return 'ok'
}

function decodeIpv6(bytes: Uint8Array, packet: Packet): 'ok' | DecodeFailure {
  if (bytes.length < IPV6_HEADER_BYTES) return 'truncated'
  const totalBytes = IPV6_HEADER_BYTES + readUint16(bytes, 4)
  if (totalBytes > bytes.length) return 'truncated'
  packet.family = 6
  packet.totalBytes = totalBytes
  packet.sourceOffset = 8
  packet.destinationOffset = 24
  packet.addressBytes = 16
  packet.fragment = 'none'
  return decodeExtensionHeaders(bytes, packet)
}

function decodeExtensionHeaders(bytes: Uint8Array, packet: Packet): 'ok' | DecodeFailure {
  const totalBytes = packet.totalBytes
  let offset = IPV6_HEADER_BYTES
  let next = readUint8(bytes, 6)
  for (let headers = 0; isExtensionHeader(next); headers += 1) {
    if (headers === MAX_EXTENSION_HEADERS) return 'too-many-extension-headers'
    if (next === HEADER_HOP_BY_HOP && headers > 0) return 'misplaced-hop-by-hop'
    // Every extension header has at least 8 bytes.
    if (offset + 8 > totalBytes) return 'truncated'
    const lengthField = readUint8(bytes, offset + 1)
    let headerBytes = (lengthField + 1) * 8
    if (next === HEADER_ROUTING) {
      if (readUint8(bytes, offset + 3) !== 0) return 'source-routed'
    } else if (next === HEADER_FRAGMENT) {
      headerBytes = 8
      const field = readUint16(bytes, offset + 2)
      const isLater = (field & 0xfff8) !== 0
      if (isLater) packet.fragment = 'later'
      else if ((field & 1) !== 0) packet.fragment = 'first'
    } else if (next === HEADER_AUTHENTICATION) {
      headerBytes = (lengthField + 2) * 4
      // RFC 4302 section 2.2: the fixed part alone has 12 bytes, and IPv6 wants a multiple of 8.
      if (headerBytes < 16 || headerBytes % 8 !== 0) return 'bad-header-length'
    }
    if (offset + headerBytes > totalBytes) return 'truncated'
    next = readUint8(bytes, offset)
    offset += headerBytes
    // What follows in a later fragment is data, whatever the next header says.
    if (packet.fragment === 'later') break
  }
  packet.protocol = next
  packet.headerBytes = offset
  return 'ok'
}

function isExtensionHeader(next: number): boolean {
  return (
    next === HEADER_HOP_BY_HOP ||
    next === HEADER_ROUTING ||
    next === HEADER_FRAGMENT ||
    next === HEADER_AUTHENTICATION ||
    next === HEADER_DESTINATION
  )
}

function decodeTcp(bytes: Uint8Array, packet: Packet): 'ok' | DecodeFailure {
  const offset = packet.headerBytes
  if (offset + TCP_HEADER_BYTES > packet.totalBytes) return 'truncated'
  const dataOffsetBytes = (readUint8(bytes, offset + 12) >>> 4) * 4
  if (dataOffsetBytes < TCP_HEADER_BYTES) return 'bad-header-length'
  if (offset + dataOffsetBytes > packet.totalBytes) return 'truncated'
  packet.sourcePort = readUint16(bytes, offset)
  packet.destinationPort = readUint16(bytes, offset + 2)
  packet.sequence = readUint32(bytes, offset + 4)
  packet.acknowledgement = readUint32(bytes, offset + 8)
  packet.flags = readUint8(bytes, offset + 13)
  packet.window = readUint16(bytes, offset + 14)
  packet.dataOffsetBytes = dataOffsetBytes
  packet.payloadOffset = offset + dataOffsetBytes
  packet.payloadBytes = packet.totalBytes - packet.payloadOffset
  return 'ok'
}

function decodeUdp(bytes: Uint8Array, packet: Packet): 'ok' | DecodeFailure {
  const offset = packet.headerBytes
  if (offset + UDP_HEADER_BYTES > packet.totalBytes) return 'truncated'
  const datagramBytes = readUint16(bytes, offset + 4)
  if (datagramBytes < UDP_HEADER_BYTES) return 'bad-header-length'
  const presentBytes = packet.totalBytes - offset
  // A first fragment states the length of the whole datagram.
  if (datagramBytes > presentBytes && packet.fragment === 'none') return 'truncated'
  packet.sourcePort = readUint16(bytes, offset)
  packet.destinationPort = readUint16(bytes, offset + 2)
  packet.dataOffsetBytes = UDP_HEADER_BYTES
  packet.payloadOffset = offset + UDP_HEADER_BYTES
  packet.payloadBytes = Math.min(datagramBytes, presentBytes) - UDP_HEADER_BYTES
  return 'ok'
}
