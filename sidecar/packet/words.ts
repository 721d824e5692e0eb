/**
 * Big-endian words at an offset. `Buffer` has the same, but throws out of range, and a plain `Uint8Array` has none.
 * Callers prove the range; past the end these read 0 and write nothing.
 */

/** The octet at `offset`. */
export function readUint8(bytes: Uint8Array, offset: number): number {
  return bytes[offset] ?? 0
}

/** The unsigned 16-bit word at `offset`, in network order. */
export function readUint16(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] ?? 0) << 8) | (bytes[offset + 1] ?? 0)
}

/** The unsigned 32-bit word at `offset`, in network order. */
export function readUint32(bytes: Uint8Array, offset: number): number {
  return readUint16(bytes, offset) * 0x10000 + readUint16(bytes, offset + 2)
}

/** Writes the low 16 bits of `value` at `offset`, in network order. */
export function writeUint16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8
  bytes[offset + 1] = value
}

/** Writes the low 32 bits of `value` at `offset`, in network order. */
export function writeUint32(bytes: Uint8Array, offset: number, value: number): void {
  writeUint16(bytes, offset, value >>> 16)
  writeUint16(bytes, offset + 2, value)
}
