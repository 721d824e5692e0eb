import { type Packet, PROTOCOL_TCP, PROTOCOL_UDP } from './decode.ts'
import { readUint16 } from './words.ts'

/**
 * The ones-complement sum (RFC 1071), 0 to 0xffff, of the big-endian 16-bit words from `start` up to `end`, added to
 * `initial` (below 2^31). An odd last byte is padded with zero, so only the last piece of a sum may be odd.
 * For at most 65,535 bytes, an IP packet; never reads past the end of `bytes`.
 */
export function sumBytes(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  const limit = Math.min(end, bytes.length)
  const evenLimit = limit - ((limit - start) & 1)
  let sum = foldSum(initial)
  let offset = start
  for (; offset < evenLimit; offset += 2) sum += ((bytes[offset] ?? 0) << 8) | (bytes[offset + 1] ?? 0)
  if (offset < limit) sum += (bytes[offset] ?? 0) << 8
  return foldSum(sum)
}

/** The checksum field's value for a sum below 2^32: folded to 16 bits and complemented (the kernel's csum_fold). */
export function foldChecksum(sum: number): number {
  return ~foldSum(sum) & 0xffff
}

/**
 * The checksum after words that summed up to `oldSum` are replaced by words of `newSum` (sums below 2^30).
 * RFC 1624 equation 3, HC' = ~(~HC + ~m + m'): unlike equation 4 and RFC 1141's it gives the same 0x0000 that
 * computing anew gives where the sum is 0xffff. Any error that the packet arrived with stays in its checksum.
 */
export function updateChecksum(checksum: number, oldSum: number, newSum: number): number {
  return foldChecksum((~checksum & 0xffff) + (~foldSum(oldSum) & 0xffff) + foldSum(newSum))
}

/** The ones-complement sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) of a decoded packet. */
export function sumPseudoHeader(bytes: Uint8Array, packet: Packet, segmentBytes: number): number {
  // Source and destination lie side by side in both families.
  return sumBytes(
    bytes,
    packet.sourceOffset,
    packet.destinationOffset + packet.addressBytes,
    packet.protocol + segmentBytes,
  )
}

/**
 * Whether the TCP or UDP checksum of a packet decoded from `bytes` is right. False for other protocols and for
 * fragments, whose checksum covers bytes that are not here. UDP over IPv4 without checksum (0) is right, over IPv6
 * it is not (RFC 8200 section 8.1).
 */
export function verifyTransportChecksum(bytes: Uint8Array, packet: Packet): boolean {
  if (packet.fragment !== 'none') return false
  const start = packet.headerBytes
  if (packet.protocol === PROTOCOL_TCP) {
    const sum = sumPseudoHeader(bytes, packet, packet.totalBytes - start)
    return foldChecksum(sumBytes(bytes, start, packet.totalBytes, sum)) === 0
  }
  if (packet.protocol === PROTOCOL_UDP) {
    if (readUint16(bytes, start + 6) === 0) return packet.family === 4
    const datagramBytes = packet.dataOffsetBytes + packet.payloadBytes
    const sum = sumPseudoHeader(bytes, packet, datagramBytes)
    return foldChecksum(sumBytes(bytes, start, start + datagramBytes, sum)) === 0
  }
  return false
}

/** Whether the IPv4 header's checksum is right; IPv6 has none, so true. */
export function verifyHeaderChecksum(bytes: Uint8Array, packet: Packet): boolean {
  return packet.family === 6 || foldChecksum(sumBytes(bytes, 0, packet.headerBytes)) === 0
}

function foldSum(sum: number): number {
  let folded = sum
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16)
  return folded
}
