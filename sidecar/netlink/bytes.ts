/**
 * Numbers in netlink messages. Headers are in the machine's own order, which is little endian on every machine this
 * program is built for (x86-64, arm64); netfilter's attributes are in network order. Callers check the bounds.
 */

export function readU16(b: Uint8Array, at: number): number {
  return (b[at] as number) | ((b[at + 1] as number) << 8)
}

export function readU32(b: Uint8Array, at: number): number {
  return (
    ((b[at] as number) |
      ((b[at + 1] as number) << 8) |
      ((b[at + 2] as number) << 16) |
      ((b[at + 3] as number) << 24)) >>>
    0
  )
}

export function readU16BE(b: Uint8Array, at: number): number {
  return ((b[at] as number) << 8) | (b[at + 1] as number)
}

export function readU32BE(b: Uint8Array, at: number): number {
  return (
    (((b[at] as number) << 24) |
      ((b[at + 1] as number) << 16) |
      ((b[at + 2] as number) << 8) |
      (b[at + 3] as number)) >>>
    0
  )
}

export function writeU16(b: Uint8Array, at: number, value: number): void {
  b[at] = value
  b[at + 1] = value >>> 8
}

export function writeU32(b: Uint8Array, at: number, value: number): void {
  b[at] = value
  b[at + 1] = value >>> 8
  b[at + 2] = value >>> 16
  b[at + 3] = value >>> 24
}

export function writeU16BE(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 8
  b[at + 1] = value
}

export function writeU32BE(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 24
  b[at + 1] = value >>> 16
  b[at + 2] = value >>> 8
  b[at + 3] = value
}

/** A new array with one 16-bit number in network order. */
export function u16BE(value: number): Uint8Array {
  const b = new Uint8Array(2)
  writeU16BE(b, 0, value)
  return b
}

/** A new array with one 32-bit number in network order. */
export function u32BE(value: number): Uint8Array {
  const b = new Uint8Array(4)
  writeU32BE(b, 0, value)
  return b
}
