/**
 * HMAC-SHA-256 (RFC 2104, FIPS 180-4) for the packet path.
 *
 * Our own code for one reason: the key's two blocks, and any message prefix that stays the same for a peer, are
 * compressed once and kept (RFC 2104 section 4), so that a MAC costs two compressions and no allocation. On the
 * packet path node:crypto's createHmac takes twenty times as long (docs/dependencies.md). It is checked against
 * RFC 4231 and against node:crypto.
 */

const BLOCK_BYTES = 64
export const MAC_BYTES = 32

const K = new Int32Array([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
  0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
  0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
  0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
  0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
  0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
  0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
  0xc67178f2,
])
const INITIAL = new Int32Array([
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
])

/** The message schedule; its first 16 words are the block that compress() takes. */
const schedule = new Int32Array(64)

function loadBlock(block: Uint8Array, offset: number): void {
  for (let t = 0; t < 16; t++) {
    const at = offset + t * 4
    schedule[t] =
      ((block[at] as number) << 24) |
      ((block[at + 1] as number) << 16) |
      ((block[at + 2] as number) << 8) |
      (block[at + 3] as number)
  }
}

/** One compression (FIPS 180-4, 6.2.2): `into` = `from` advanced by the block in `schedule`. */
function compress(from: Int32Array, into: Int32Array): void {
  const w = schedule
  for (let t = 16; t < 64; t++) {
    const x = w[t - 15] as number
    const y = w[t - 2] as number
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10)
    w[t] = ((w[t - 16] as number) + s0 + (w[t - 7] as number) + s1) | 0
  }
  let a = from[0] as number
  let b = from[1] as number
  let c = from[2] as number
  let d = from[3] as number
  let e = from[4] as number
  let f = from[5] as number
  let g = from[6] as number
  let h = from[7] as number
  for (let t = 0; t < 64; t++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + (K[t] as number) + (w[t] as number)) | 0
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
    h = g
    g = f
    f = e
    e = (d + t1) | 0
    d = c
    c = b
    b = a
    a = (t1 + t2) | 0
  }
  into[0] = ((from[0] as number) + a) | 0
  into[1] = ((from[1] as number) + b) | 0
  into[2] = ((from[2] as number) + c) | 0
  into[3] = ((from[3] as number) + d) | 0
  into[4] = ((from[4] as number) + e) | 0
  into[5] = ((from[5] as number) + f) | 0
  into[6] = ((from[6] as number) + g) | 0
  into[7] = ((from[7] as number) + h) | 0
}

/** A key, and a fixed message prefix of whole blocks, already compressed. */
export interface MacState {
  readonly inner: Int32Array
  readonly outer: Int32Array
  /** Bytes compressed into `inner`: the key's block and the prefix. */
  readonly innerBytes: number
}

/**
 * Compresses a key of at most 64 bytes and a prefix that every message under this state begins with.
 * Throws a RangeError where the prefix is not whole blocks of 64 bytes or the key is longer than a block.
 */
export function createMacState(key: Uint8Array, prefix: Uint8Array = new Uint8Array(0)): MacState {
  if (key.length > BLOCK_BYTES) throw new RangeError('an HMAC key here is at most 64 bytes')
  if (prefix.length % BLOCK_BYTES !== 0) throw new RangeError('an HMAC prefix here is whole blocks of 64 bytes')
  const pad = new Uint8Array(BLOCK_BYTES)
  const inner = new Int32Array(8)
  const outer = new Int32Array(8)
  for (let i = 0; i < BLOCK_BYTES; i++) pad[i] = (key[i] ?? 0) ^ 0x36
  loadBlock(pad, 0)
  compress(INITIAL, inner)
  for (let i = 0; i < BLOCK_BYTES; i++) pad[i] = (key[i] ?? 0) ^ 0x5c
  loadBlock(pad, 0)
  compress(INITIAL, outer)
  for (let at = 0; at < prefix.length; at += BLOCK_BYTES) {
    loadBlock(prefix, at)
    compress(inner, inner)
  }
  return { inner, outer, innerBytes: BLOCK_BYTES + prefix.length }
}

const last = new Uint8Array(BLOCK_BYTES * 2)
const state = new Int32Array(8)

/** Pads the message's tail (FIPS 180-4, 5.1.1), compresses it on top of `from` and leaves the digest in `state`. */
function finish(from: Int32Array, message: Uint8Array, bytes: number, alreadyBytes: number): void {
  let current = from
  let at = 0
  for (; bytes - at >= BLOCK_BYTES; at += BLOCK_BYTES) {
    loadBlock(message, at)
    compress(current, state)
    current = state
  }
  const rest = bytes - at
  const end = rest < BLOCK_BYTES - 8 ? BLOCK_BYTES : BLOCK_BYTES * 2
  for (let i = 0; i < rest; i++) last[i] = message[at + i] as number
  last[rest] = 0x80
  for (let i = rest + 1; i < end; i++) last[i] = 0
  for (let block = 0; block < end; block += BLOCK_BYTES) {
    loadBlock(last, block)
    if (block + BLOCK_BYTES === end) schedule[15] = (alreadyBytes + bytes) * 8
    compress(current, state)
    current = state
  }
}

/** The outer hash: one block, the digest in `state` and its padding, on top of the key's. */
function finishOuter(outer: Int32Array): void {
  for (let t = 0; t < 8; t++) schedule[t] = state[t] as number
  schedule[8] = 0x80000000
  for (let t = 9; t < 15; t++) schedule[t] = 0
  schedule[15] = (BLOCK_BYTES + MAC_BYTES) * 8
  compress(outer, state)
}

function writeState(out: Uint8Array, offset: number, bytes: number): void {
  for (let i = 0; i < bytes; i++) out[offset + i] = (state[i >> 2] as number) >>> (24 - (i & 3) * 8)
}

/**
 * Writes the first `macBytes` (at most 32) of HMAC-SHA-256 over prefix and `message[0, messageBytes)` to
 * `out[offset, offset + macBytes)`.
 */
export function computeMac(
  mac: MacState,
  message: Uint8Array,
  messageBytes: number,
  out: Uint8Array,
  offset: number,
  macBytes: number = MAC_BYTES,
): void {
  finish(mac.inner, message, messageBytes, mac.innerBytes)
  finishOuter(mac.outer)
  writeState(out, offset, macBytes)
}

/** Compares two ranges without a branch that depends on their contents. */
export function equalInConstantTime(
  a: Uint8Array,
  aOffset: number,
  b: Uint8Array,
  bOffset: number,
  bytes: number,
): boolean {
  let difference = 0
  for (let i = 0; i < bytes; i++) difference |= (a[aOffset + i] ?? 0x100) ^ (b[bOffset + i] ?? 0x200)
  return difference === 0
}
