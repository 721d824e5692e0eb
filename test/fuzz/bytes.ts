/** Mutations of bytes that know nothing of what they mean. */
import type { Random } from './random.ts'

const BYTES = [0, 1, 4, 6, 7, 8, 0x10, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff]
const WORDS = [0, 1, 2, 4, 8, 16, 19, 20, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xfff0, 0xfffe, 0xffff]
/** Longer than any packet that a queue copies would only be slow. */
const MAXIMUM_BYTES = 70_000

function insert(bytes: Uint8Array, at: number, more: Uint8Array): Uint8Array {
  const out = new Uint8Array(Math.min(bytes.length + more.length, MAXIMUM_BYTES))
  out.set(bytes.subarray(0, at))
  out.set(more.subarray(0, out.length - at), at)
  if (at + more.length < out.length) out.set(bytes.subarray(at, out.length - more.length), at + more.length)
  return out
}

function remove(bytes: Uint8Array, at: number, count: number): Uint8Array {
  return Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + count)])
}

function writeWord(bytes: Uint8Array, at: number, value: number, random: Random): void {
  const little = random.oneIn(2)
  bytes[at] = little ? value : value >>> 8
  if (at + 1 < bytes.length) bytes[at + 1] = little ? value >>> 8 : value
}

type Mutation = (bytes: Uint8Array, at: number, random: Random, other: Uint8Array) => Uint8Array

function inPlace(change: (bytes: Uint8Array, at: number, random: Random, other: Uint8Array) => void): Mutation {
  return (bytes, at, random, other) => {
    const out = bytes.slice()
    if (out.length > 0) change(out, at, random, other)
    return out
  }
}

const MUTATIONS: readonly Mutation[] = [
  inPlace((out, at, random) => {
    out[at] = (out[at] ?? 0) ^ (1 << random.below(8))
  }),
  inPlace((out, at, random) => {
    out[at] = random.pick(BYTES)
  }),
  inPlace((out, at, random) => {
    out[at] = random.below(256)
  }),
  inPlace((out, at, random) => {
    out[at] = (out[at] ?? 0) + random.below(17) - 8
  }),
  inPlace((out, at, random) => writeWord(out, at, random.pick(WORDS), random)),
  // A length that fits what follows, or nearly: what most headers state.
  inPlace((out, at, random) => writeWord(out, at, out.length - random.below(at + 2) + random.below(3), random)),
  inPlace((out, at, random, other) => {
    const from = random.below(other.length + 1)
    out.set(other.subarray(from, from + Math.min(1 + random.below(40), out.length - at)), at)
  }),
  inPlace((out, at, random) => {
    out.copyWithin(at, random.below(out.length), random.below(out.length + 1))
  }),
  (bytes, at, random) => insert(bytes, at, new Uint8Array(1 + random.below(40)).fill(random.pick(BYTES))),
  (bytes, at, random, other) => insert(bytes, at, other.subarray(random.below(other.length + 1)).subarray(0, 64)),
  (bytes, at, random) => insert(bytes, at, bytes.slice(at, at + 1 + random.below(32))),
  (bytes, at, random) => remove(bytes, at, 1 + random.below(16)),
  (bytes, at) => bytes.slice(0, at),
  (bytes, at, random, other) => insert(bytes.slice(0, at), at, other.subarray(random.below(other.length + 1))),
]

/** One random change of `bytes`; `other` is another input to take parts of. */
export function mutateBytes(bytes: Uint8Array, random: Random, other: Uint8Array): Uint8Array {
  // Headers come first and decide most: half of the changes are among the first 64 bytes.
  const reach = random.oneIn(2) ? Math.min(bytes.length, 64) : bytes.length
  return random.pick(MUTATIONS)(bytes, random.below(Math.max(reach, 1)), random, other)
}

/** Smaller or plainer variants of `bytes`, the smallest first. */
export function* shrinkBytes(bytes: Uint8Array): Generator<Uint8Array> {
  for (let chunk = bytes.length >> 1; chunk > 0; chunk >>= 1) {
    for (let at = 0; at < bytes.length; at += chunk) yield remove(bytes, at, chunk)
  }
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] === 0) continue
    const out = bytes.slice()
    out[at] = 0
    yield out
  }
}
