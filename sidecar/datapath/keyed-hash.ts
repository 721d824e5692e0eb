/**
 * A hash for tables whose keys come from the network. Keyed, so that nobody can choose keys which fall together:
 * HalfSipHash-1-3 (Aumasson, Bernstein: SipHash), which the kernel takes for its tables, as hsiphash() where a word has
 * 32 bits.
 */

/** 64 random bits. */
export interface HashSeed {
  readonly low: number
  readonly high: number
}

/** The hash, a signed 32-bit number, of `words[0, count)`: of their bytes, each word's lowest first. */
export function hashWords(seed: HashSeed, words: Int32Array, count: number): number {
  let a = seed.low | 0
  let b = seed.high | 0
  let c = seed.low ^ 0x6c796765
  let d = seed.high ^ 0x74656462
  // One round for each word and one for the length in bytes, which stands in the last word's highest byte; then three.
  for (let i = 0; i < count + 4; i++) {
    const word = i < count ? (words[i] as number) : i === count ? count << 26 : 0
    if (i === count + 1) c ^= 0xff
    d ^= word
    a = (a + b) | 0
    b = ((b << 5) | (b >>> 27)) ^ a
    a = (a << 16) | (a >>> 16)
    c = (c + d) | 0
    d = ((d << 8) | (d >>> 24)) ^ c
    a = (a + d) | 0
    d = ((d << 7) | (d >>> 25)) ^ a
    c = (c + b) | 0
    b = ((b << 13) | (b >>> 19)) ^ c
    c = (c << 16) | (c >>> 16)
    a ^= word
  }
  return b ^ d
}
