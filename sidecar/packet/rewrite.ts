import { sumBytes, updateChecksum } from './checksum.ts'
import {
  FLAG_ACK,
  FLAG_RST,
  FLAG_SYN,
  IPV6_HEADER_BYTES,
  type Packet,
  PROTOCOL_TCP,
  TCP_HEADER_BYTES,
} from './decode.ts'
import { neutralizeFastOpen } from './options.ts'
import { readUint8, readUint16, writeUint16, writeUint32 } from './words.ts'

/*
 * Each function writes a whole new packet to the start of `out` and returns its length in bytes, or 0, with nothing
 * written, where the packet is no whole TCP segment or the result does not fit `out` or the IP length field. `packet`
 * was decoded from these very `bytes`; `out` may be `bytes` itself.
 *
 * Checksums are updated by the difference (RFC 1624) and never computed anew: a packet that arrived corrupt leaves
 * corrupt, and the kernel behind the queue still drops it.
 */

const NOTHING = new Uint8Array(0)
const MAX_LENGTH_FIELD = 0xffff

/**
 * The packet with the payload replaced; IP and TCP headers with their options stay. On a SYN a Fast Open option goes
 * (neutralizeFastOpen), as the data that it stood for is gone. `payloadSum` is sumBytes() over the whole `payload`.
 */
export function replacePayload(
  bytes: Uint8Array,
  packet: Packet,
  payload: Uint8Array,
  payloadSum: number,
  out: Uint8Array,
): number {
  const totalBytes = packet.payloadOffset + payload.length
  if (!isRewritable(packet, totalBytes, out)) return 0
  const oldSum = sumBytes(bytes, packet.payloadOffset, packet.totalBytes, segmentBytes(packet))
  const checksumOffset = packet.headerBytes + 16
  const checksum = readUint16(bytes, checksumOffset)

  copyHeaders(bytes, packet.payloadOffset, out)
  out.set(payload, packet.payloadOffset)
  updateTotalBytes(out, packet, totalBytes)
  const newSum = payloadSum + packet.dataOffsetBytes + payload.length
  writeUint16(out, checksumOffset, updateChecksum(checksum, oldSum, newSum))
  if ((packet.flags & FLAG_SYN) !== 0) neutralizeFastOpen(out, packet)
  return totalBytes
}

/** The packet without payload; otherwise as replacePayload. */
export function stripPayload(bytes: Uint8Array, packet: Packet, out: Uint8Array): number {
  return replacePayload(bytes, packet, NOTHING, 0, out)
}

/**
 * The packet as if its payload had arrived: without it, the sequence number is the one behind it; otherwise as
 * replacePayload.
 */
export function consumePayload(bytes: Uint8Array, packet: Packet, out: Uint8Array): number {
  const totalBytes = stripPayload(bytes, packet, out)
  if (totalBytes === 0) return 0
  const [sequenceAt, checksumAt] = [packet.headerBytes + 4, packet.headerBytes + 16]
  const oldSum = sumBytes(out, sequenceAt, sequenceAt + 4)
  writeUint32(out, sequenceAt, (packet.sequence + packet.payloadBytes) >>> 0)
  const newSum = sumBytes(out, sequenceAt, sequenceAt + 4)
  writeUint16(out, checksumAt, updateChecksum(readUint16(out, checksumAt), oldSum, newSum))
  return totalBytes
}

/**
 * The packet as a reset (RST and ACK) in the same direction, so that the own kernel's socket hears from its peer that
 * it is refused. Sequence and acknowledgement stay, options and payload go, window and urgent pointer are 0.
 * `acknowledgement` overrides the packet's own: a socket in SYN-SENT ignores a reset that acknowledges what it
 * never sent (RFC 9293 section 3.10.7.3), as a SYN-ACK for a frame does.
 */
export function toReset(
  bytes: Uint8Array,
  packet: Packet,
  out: Uint8Array,
  acknowledgement: number = packet.acknowledgement,
): number {
  const start = packet.headerBytes
  const totalBytes = start + TCP_HEADER_BYTES
  if (!isRewritable(packet, totalBytes, out)) return 0
  // What changes: acknowledgement to window, and from the urgent pointer on; between them is the checksum itself.
  const changedSum = sumBytes(bytes, start + 8, start + 16, segmentBytes(packet))
  const oldSum = sumBytes(bytes, start + 18, packet.totalBytes, changedSum)
  const checksum = readUint16(bytes, start + 16)

  copyHeaders(bytes, start + 8, out)
  updateTotalBytes(out, packet, totalBytes)
  writeUint32(out, start + 8, acknowledgement)
  out[start + 12] = (TCP_HEADER_BYTES / 4) << 4
  out[start + 13] = FLAG_RST | FLAG_ACK
  writeUint32(out, start + 14, 0)
  writeUint16(out, start + 18, 0)
  const newSum = sumBytes(out, start + 8, start + 16, TCP_HEADER_BYTES)
  writeUint16(out, start + 16, updateChecksum(checksum, oldSum, newSum))
  return totalBytes
}

/** Length of the TCP segment, header and payload, as the pseudo-header has it. */
function segmentBytes(packet: Packet): number {
  return packet.totalBytes - packet.headerBytes
}

function isRewritable(packet: Packet, totalBytes: number, out: Uint8Array): boolean {
  const lengthField = packet.family === 4 ? totalBytes : totalBytes - IPV6_HEADER_BYTES
  return (
    packet.protocol === PROTOCOL_TCP &&
    packet.fragment === 'none' &&
    totalBytes <= out.length &&
    lengthField <= MAX_LENGTH_FIELD
  )
}

/** Headers are short, and `subarray` would allocate: a plain loop. */
function copyHeaders(bytes: Uint8Array, end: number, out: Uint8Array): void {
  if (out === bytes) return
  for (let offset = 0; offset < end; offset += 1) out[offset] = readUint8(bytes, offset)
}

/** Sets the length field of the IP header in `out`, and IPv4's header checksum by the difference. */
function updateTotalBytes(out: Uint8Array, packet: Packet, totalBytes: number): void {
  if (packet.family === 6) {
    writeUint16(out, 4, totalBytes - IPV6_HEADER_BYTES)
    return
  }
  writeUint16(out, 2, totalBytes)
  writeUint16(out, 10, updateChecksum(readUint16(out, 10), packet.totalBytes, totalBytes))
}
