import { isDeepStrictEqual } from 'node:util'
import {
  createFrame,
  decodeFrame,
  encodeProofFrame,
  encodeSynAckFrame,
  encodeSynFrame,
  encodeWitSection,
  FRAME_PROOF,
  FRAME_SYN,
  type Frame,
  MAXIMUM_FRAME_BYTES,
  witSectionParts,
} from '../../../sidecar/handshake/frame.ts'
import { bytesTarget, hold } from '../target.ts'

const SECTIONS = [
  { header: Buffer.from('{"alg":"ES256"}'), payload: Buffer.alloc(300, 7), signature: Buffer.alloc(64, 9) },
  { header: Buffer.alloc(0), payload: Buffer.alloc(0), signature: Buffer.alloc(0) },
].map(encodeWitSection)
const SEEDS = [
  ...SECTIONS.flatMap((section) => [
    encodeSynFrame(section),
    encodeSynAckFrame(4, section),
    encodeSynAckFrame(6, section),
  ]),
  encodeProofFrame(),
].map((frame) => Uint8Array.from(frame))

/** What a frame of this type has, its offsets counted from the frame's beginning. */
function relative(frame: Frame): readonly number[] {
  const { type, version, bytes, start } = frame
  const fields = [type, version, bytes]
  if (type === FRAME_PROOF) return fields
  fields.push(frame.witAt - start, frame.witBytes)
  if (type === FRAME_SYN) return fields
  return [
    ...fields,
    frame.addressBytes,
    frame.clientAddressAt - start,
    frame.clientPort,
    frame.serverAddressAt - start,
    frame.serverPort,
  ]
}

function holdOutside(input: Uint8Array, alone: Frame, result: string): void {
  for (const [canary, start] of [
    [0x00, 13],
    [0xff, 40],
    [0x53, 1],
  ] as const) {
    const larger = new Uint8Array(start + input.length + 90).fill(canary)
    larger.set(input, start)
    const frame = createFrame()
    hold(decodeFrame(larger, start, start + input.length, frame) === result, 'bytes around do not change the result')
    if (result === 'ok') {
      hold(isDeepStrictEqual(relative(frame), relative(alone)), 'bytes around do not change the frame')
    }
  }
}

/** Writes the frame anew from what was decoded of it. */
function encodeAgain(bytes: Uint8Array, frame: Frame): Uint8Array {
  if (frame.type === FRAME_PROOF) {
    const out = encodeProofFrame()
    out.set(bytes.subarray(8), 8)
    return out
  }
  const parts = witSectionParts(bytes.subarray(frame.witAt, frame.witAt + frame.witBytes))
  hold(parts !== undefined, 'the WIT section of a good frame has three parts')
  const section = encodeWitSection(parts)
  const out =
    frame.type === FRAME_SYN ? encodeSynFrame(section) : encodeSynAckFrame(frame.addressBytes === 4 ? 4 : 6, section)
  // Nonce, MAC and addresses: all that an encoder leaves zero.
  out.set(bytes.subarray(8, frame.type === FRAME_SYN ? frame.witAt : 56), 8)
  if (frame.type !== FRAME_SYN) out.set(bytes.subarray(58, frame.witAt), 58)
  return out
}

export const frameTarget = bytesTarget({
  name: 'frame',
  about: 'handshake frames: nothing read outside the given range, decoded and encoded again the same bytes',
  sources: ['sidecar/handshake/frame.ts'],
  batch: 256,
  seeds: SEEDS,
  repair(bytes, random) {
    const out = bytes.slice()
    out.set([0x53, 0x59, 0x4e, 0x47, 1].slice(0, out.length))
    if (out.length >= 8) {
      if (random.oneIn(4)) out[5] = 1 + random.below(4)
      out[6] = out.length >>> 8
      out[7] = out.length
    }
    return out
  },
  check(input) {
    const bytes = input.slice()
    const frame = createFrame()
    const result = decodeFrame(bytes, 0, bytes.length, frame)
    holdOutside(bytes, frame, result)
    hold(decodeFrame(bytes, 0, bytes.length + 1, createFrame()) === 'none', 'an end behind the buffer is no frame')
    witSectionParts(bytes)
    if (result !== 'ok') return result
    hold(bytes.length <= MAXIMUM_FRAME_BYTES, 'a frame fits the smallest MTU')
    hold(isDeepStrictEqual(Uint8Array.from(encodeAgain(bytes, frame)), bytes), 'encoding gives the same frame again')
    return `ok-${frame.type}-${frame.addressBytes}`
  },
})
