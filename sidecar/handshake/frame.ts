/**
 * Frames: what sidecars add as TCP payload to SYN and SYN-ACK, and their own proof packet. docs/wire.md has the
 * byte tables. Numbers are big endian. A WIT section is three times a u16 length and that many bytes: the WIT's
 * decoded header, payload and signature.
 */

/** "SYNG": no protocol known to us starts a connection with it. */
export const FRAME_MAGIC = 0x53594e47
export const FRAME_VERSION = 1
export const FRAME_SYN = 1
export const FRAME_SYN_ACK = 2
export const FRAME_PROOF = 3

export const NONCE_BYTES = 16
export const HASH_BYTES = 32

/** Offsets within a frame. */
export const NONCE_AT = 8
export const SYN_WIT_AT = 24
export const MAC_AT = 24
export const FAMILY_AT = 56
export const ADDRESSES_AT = 58
export const PROOF_HASH_AT = 56
export const PROOF_BYTES = 88

/** A frame fits the IPv6 minimum MTU of 1,280 less IPv6 and TCP headers with all their options (40 + 60). */
export const MAXIMUM_FRAME_BYTES = 1180

const MINIMUM_BYTES = SYN_WIT_AT + 6

/** Offsets of a decoded frame within the buffer it lies in; reused from packet to packet. */
export interface Frame {
  type: number
  version: number
  start: number
  bytes: number
  /** SYN-ACK: bytes of each address, 4 or 16. */
  addressBytes: number
  clientAddressAt: number
  clientPort: number
  serverAddressAt: number
  serverPort: number
  /** SYN and SYN-ACK: the whole WIT section. */
  witAt: number
  witBytes: number
}

export function createFrame(): Frame {
  return {
    type: 0,
    version: 0,
    start: 0,
    bytes: 0,
    addressBytes: 0,
    clientAddressAt: 0,
    clientPort: 0,
    serverAddressAt: 0,
    serverPort: 0,
    witAt: 0,
    witBytes: 0,
  }
}

/** `none`: no frame at all (no magic). The others have the magic and something wrong. */
export type FrameFailure = 'none' | 'truncated' | 'version' | 'type' | 'length' | 'family' | 'wit-section'

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number)
}

/** True where three lengths and their bytes fill `[at, end)` exactly. */
function isWitSection(bytes: Uint8Array, at: number, end: number): boolean {
  let cursor = at
  for (let part = 0; part < 3; part++) {
    if (cursor + 2 > end) return false
    cursor += 2 + u16(bytes, cursor)
  }
  return cursor === end
}

/**
 * Decodes the frame that fills `bytes[start, end)` into `frame`. Reads nothing outside that range, never throws.
 * A payload that does not begin with the magic is `none`: it belongs to the application.
 */
export function decodeFrame(bytes: Uint8Array, start: number, end: number, frame: Frame): 'ok' | FrameFailure {
  if (end - start < 8 || end > bytes.length) return 'none'
  if (bytes[start] !== 0x53 || bytes[start + 1] !== 0x59 || bytes[start + 2] !== 0x4e || bytes[start + 3] !== 0x47) {
    return 'none'
  }
  frame.start = start
  frame.version = bytes[start + 4] as number
  frame.type = bytes[start + 5] as number
  frame.bytes = u16(bytes, start + 6)
  if (frame.version !== FRAME_VERSION) return 'version'
  if (frame.bytes !== end - start || frame.bytes > MAXIMUM_FRAME_BYTES) return 'length'
  if (frame.type === FRAME_PROOF) return frame.bytes === PROOF_BYTES ? 'ok' : 'length'
  if (frame.bytes < MINIMUM_BYTES) return 'truncated'
  if (frame.type === FRAME_SYN) {
    frame.witAt = start + SYN_WIT_AT
  } else if (frame.type === FRAME_SYN_ACK) {
    if (end - start < ADDRESSES_AT) return 'truncated'
    const family = bytes[start + FAMILY_AT]
    if ((family !== 4 && family !== 6) || bytes[start + FAMILY_AT + 1] !== 0) return 'family'
    const addressBytes = family === 4 ? 4 : 16
    const witAt = start + ADDRESSES_AT + 2 * addressBytes + 4
    if (witAt > end) return 'truncated'
    frame.addressBytes = addressBytes
    frame.clientAddressAt = start + ADDRESSES_AT
    frame.clientPort = u16(bytes, frame.clientAddressAt + addressBytes)
    frame.serverAddressAt = frame.clientAddressAt + addressBytes + 2
    frame.serverPort = u16(bytes, frame.serverAddressAt + addressBytes)
    frame.witAt = witAt
  } else {
    return 'type'
  }
  frame.witBytes = end - frame.witAt
  return isWitSection(bytes, frame.witAt, end) ? 'ok' : 'wit-section'
}

/** The parts of a WIT section; views into `bytes`. The section must have been checked by decodeFrame. */
export function witSectionParts(
  section: Uint8Array,
): { header: Uint8Array; payload: Uint8Array; signature: Uint8Array } | undefined {
  if (!isWitSection(section, 0, section.length)) return undefined
  const headerEnd = 2 + u16(section, 0)
  const payloadEnd = headerEnd + 2 + u16(section, headerEnd)
  return {
    header: section.subarray(2, headerEnd),
    payload: section.subarray(headerEnd + 2, payloadEnd),
    signature: section.subarray(payloadEnd + 2),
  }
}

/** Encodes a WIT section. Throws a RangeError where a part is longer than 65,535 bytes. */
export function encodeWitSection(parts: {
  readonly header: Uint8Array
  readonly payload: Uint8Array
  readonly signature: Uint8Array
}): Buffer {
  const pieces: Uint8Array[] = []
  for (const part of [parts.header, parts.payload, parts.signature]) {
    const length = Buffer.alloc(2)
    length.writeUInt16BE(part.length)
    pieces.push(length, part)
  }
  return Buffer.concat(pieces)
}

function writeFrameHeader(out: Buffer, type: number, bytes: number): void {
  out.writeUInt32BE(FRAME_MAGIC, 0)
  out[4] = FRAME_VERSION
  out[5] = type
  out.writeUInt16BE(bytes, 6)
}

/** A SYN frame with the nonce still zero. */
export function encodeSynFrame(witSection: Uint8Array): Buffer {
  const out = Buffer.alloc(SYN_WIT_AT + witSection.length)
  writeFrameHeader(out, FRAME_SYN, out.length)
  out.set(witSection, SYN_WIT_AT)
  return out
}

/** Where the WIT section lies in a SYN-ACK frame of this family. */
export function synAckWitAt(family: 4 | 6): number {
  return ADDRESSES_AT + (family === 4 ? 8 : 32) + 4
}

/** A SYN-ACK frame with nonce, MAC, addresses and ports still zero. */
export function encodeSynAckFrame(family: 4 | 6, witSection: Uint8Array): Buffer {
  const witAt = synAckWitAt(family)
  const out = Buffer.alloc(witAt + witSection.length)
  writeFrameHeader(out, FRAME_SYN_ACK, out.length)
  out[FAMILY_AT] = family
  out.set(witSection, witAt)
  return out
}

/** A proof frame with nonce, MAC and hash still zero. */
export function encodeProofFrame(): Buffer {
  const out = Buffer.alloc(PROOF_BYTES)
  writeFrameHeader(out, FRAME_PROOF, PROOF_BYTES)
  return out
}
