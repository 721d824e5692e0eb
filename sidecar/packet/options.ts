import { sumBytes, updateChecksum } from './checksum.ts'
import { type Packet, TCP_HEADER_BYTES } from './decode.ts'
import { readUint8, readUint16, writeUint16 } from './words.ts'

/** TCP option kinds (IANA). */
export const OPTION_END = 0
export const OPTION_NOP = 1
export const OPTION_MSS = 2
export const OPTION_WINDOW_SCALE = 3
export const OPTION_TIMESTAMPS = 8
export const OPTION_FAST_OPEN = 34
/** RFC 6994's experimental kind; Fast Open's experiment had the identifier 0xf989 (RFC 7413 section 7). */
export const OPTION_EXPERIMENT = 254
const EXPERIMENT_FAST_OPEN = 0xf989

/**
 * The offset of the first TCP option of this kind in a decoded packet, or -1. The option's length octet is there and
 * the whole option lies in the header. A malformed option ends the search, as it ends the kernel's own parsing
 * (tcp_parse_options), so that both see the same options. For any kind but END and NOP.
 */
export function findOption(bytes: Uint8Array, packet: Packet, kind: number): number {
  return findOptionFrom(bytes, packet, kind, packet.headerBytes + TCP_HEADER_BYTES)
}

/** The maximum segment size that a SYN announces, in bytes, or 0 where it announces none. */
export function readMss(bytes: Uint8Array, packet: Packet): number {
  const offset = findOption(bytes, packet, OPTION_MSS)
  return offset !== -1 && readUint8(bytes, offset + 1) === 4 ? readUint16(bytes, offset + 2) : 0
}

/** The shift of the window scale option (RFC 7323), at most 14, or 0 where there is none. */
export function readWindowScale(bytes: Uint8Array, packet: Packet): number {
  const offset = findOption(bytes, packet, OPTION_WINDOW_SCALE)
  return offset !== -1 && readUint8(bytes, offset + 1) === 3 ? Math.min(readUint8(bytes, offset + 2), 14) : 0
}

/** Bytes of the timestamps option with the two NOPs that align it. */
export const TIMESTAMPS_BYTES = 12

/**
 * Writes the timestamps option (RFC 7323) that answers the packet's, its two numbers in the other order, to `out` and
 * returns its TIMESTAMPS_BYTES; 0 where the packet has none.
 */
export function answerTimestamps(bytes: Uint8Array, packet: Packet, out: Uint8Array): number {
  const offset = findOption(bytes, packet, OPTION_TIMESTAMPS)
  if (offset === -1 || readUint8(bytes, offset + 1) !== 10) return 0
  out[0] = OPTION_NOP
  out[1] = OPTION_NOP
  out[2] = OPTION_TIMESTAMPS
  out[3] = 10
  for (let i = 0; i < 4; i++) {
    out[4 + i] = readUint8(bytes, offset + 6 + i)
    out[8 + i] = readUint8(bytes, offset + 2 + i)
  }
  return TIMESTAMPS_BYTES
}

/**
 * Overwrites in place every Fast Open option (RFC 7413, and its experiment) with NOPs; the header keeps its length and
 * the checksum is updated by the difference. Returns whether there was one. `bytes` holds the headers that `packet`
 * was decoded from; a payload may be another one already.
 */
export function neutralizeFastOpen(bytes: Uint8Array, packet: Packet): boolean {
  const start = packet.headerBytes + TCP_HEADER_BYTES
  let offset = findFastOpen(bytes, packet)
  if (offset === -1) return false
  // An option may start at an odd offset: the sums are taken over the whole, evenly placed options.
  const oldSum = sumBytes(bytes, start, packet.payloadOffset)
  while (offset !== -1) {
    bytes.fill(OPTION_NOP, offset, offset + readUint8(bytes, offset + 1))
    offset = findFastOpen(bytes, packet)
  }
  const checksumOffset = packet.headerBytes + 16
  const newSum = sumBytes(bytes, start, packet.payloadOffset)
  writeUint16(bytes, checksumOffset, updateChecksum(readUint16(bytes, checksumOffset), oldSum, newSum))
  return true
}

function findFastOpen(bytes: Uint8Array, packet: Packet): number {
  const standard = findOption(bytes, packet, OPTION_FAST_OPEN)
  if (standard !== -1) return standard
  let offset = findOption(bytes, packet, OPTION_EXPERIMENT)
  while (offset !== -1) {
    const optionBytes = readUint8(bytes, offset + 1)
    if (optionBytes >= 4 && readUint16(bytes, offset + 2) === EXPERIMENT_FAST_OPEN) return offset
    offset = findOptionFrom(bytes, packet, OPTION_EXPERIMENT, offset + optionBytes)
  }
  return -1
}

function findOptionFrom(bytes: Uint8Array, packet: Packet, kind: number, from: number): number {
  // Where there is no TCP header the payload starts before `from`.
  const end = packet.payloadOffset
  let offset = from
  while (offset < end) {
    const here = readUint8(bytes, offset)
    if (here === OPTION_END) return -1
    if (here === OPTION_NOP) {
      offset += 1
      continue
    }
    if (offset + 2 > end) return -1
    const optionBytes = readUint8(bytes, offset + 1)
    if (optionBytes < 2 || offset + optionBytes > end) return -1
    if (here === kind) return offset
    offset += optionBytes
  }
  return -1
}
