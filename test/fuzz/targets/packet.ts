import { isDeepStrictEqual } from 'node:util'
import { buildTcpAnswer } from '../../../sidecar/packet/build.ts'
import { sumBytes, verifyHeaderChecksum, verifyTransportChecksum } from '../../../sidecar/packet/checksum.ts'
import { createPacket, decodePacket, FLAG_SYN, type Packet } from '../../../sidecar/packet/decode.ts'
import { findOption, neutralizeFastOpen, OPTION_FAST_OPEN, readMss } from '../../../sidecar/packet/options.ts'
import { replacePayload, stripPayload, toReset } from '../../../sidecar/packet/rewrite.ts'
import { CAPTURES, readCapture } from '../../unit/packet/fixtures.ts'
import type { Random } from '../random.ts'
import { bytesTarget, hold } from '../target.ts'

const OUT_BYTES = 70_000
const CANARY = 0xa5
/** Reused: to fill them for each rewrite would be most of the work. What a rewrite may touch is filled anew. */
const out = Buffer.alloc(OUT_BYTES, CANARY)
const inPlace = Buffer.alloc(OUT_BYTES)
const FRAME = Uint8Array.from({ length: 301 }, (_, i) => i * 7)

/** RFC 1071 as its text says it, in big numbers: nothing shared with the product. */
function plainChecksum(parts: readonly Uint8Array[]): number {
  let sum = 0
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += (part[i] as number) * 256 + (part[i + 1] ?? 0)
  }
  while (sum > 0xffff) sum = Math.floor(sum / 65_536) + (sum % 65_536)
  return 0xffff - sum
}

function plainTransportChecksum(bytes: Uint8Array, packet: Packet, segmentBytes: number): number {
  const addresses = bytes.slice(packet.sourceOffset, packet.sourceOffset + 2 * packet.addressBytes)
  const tail = Uint8Array.from([0, 0, (segmentBytes >> 8) & 255, segmentBytes & 255, 0, 0, 0, packet.protocol])
  return plainChecksum([addresses, tail, bytes.slice(packet.headerBytes, packet.headerBytes + segmentBytes)])
}

/** States the lengths that are there, and right checksums. */
function repair(bytes: Uint8Array, random: Random): Uint8Array {
  const out = bytes.slice()
  const version = (out[0] ?? 0) >>> 4
  if (out.length < 40 || (version !== 4 && version !== 6)) return out
  const stated = version === 4 ? out.length : out.length - 40
  const at = version === 4 ? 2 : 4
  out[at] = stated >>> 8
  out[at + 1] = stated
  if (random.oneIn(2)) out[version === 4 ? 9 : 6] = random.pick([6, 6, 6, 17, 0, 43, 44, 51, 60])
  const packet = createPacket()
  if (decodePacket(out, packet) !== 'ok') return out
  if (version === 4) writeChecksum(out, 10, () => plainChecksum([out.slice(0, packet.headerBytes)]))
  const field = packet.headerBytes + (packet.protocol === 6 ? 16 : 6)
  const segmentBytes = packet.totalBytes - packet.headerBytes
  if (packet.dataOffsetBytes > 0) writeChecksum(out, field, () => plainTransportChecksum(out, packet, segmentBytes))
  return out
}

function writeChecksum(out: Uint8Array, at: number, compute: () => number): void {
  out[at] = 0
  out[at + 1] = 0
  const checksum = compute()
  out[at] = checksum >>> 8
  out[at + 1] = checksum
}

function holdInside(bytes: Uint8Array, packet: Packet): void {
  hold(packet.totalBytes <= bytes.length, 'totalBytes lies inside the bytes')
  hold(packet.payloadBytes >= 0, 'payloadBytes is not negative')
  hold(packet.payloadOffset === packet.headerBytes + packet.dataOffsetBytes, 'the payload follows the headers')
  hold(packet.payloadOffset + packet.payloadBytes <= packet.totalBytes, 'the payload lies inside the packet')
}

/** What follows the stated length changes nothing, and nothing of it is touched. */
function holdCanary(bytes: Uint8Array, result: string, packet: Packet): void {
  for (const canary of [0x00, 0xa5, 0xff]) {
    const larger = new Uint8Array(bytes.length + 80).fill(canary)
    larger.set(bytes)
    const end = result === 'ok' ? packet.totalBytes : bytes.length
    larger.fill(canary, end)
    const view = larger.subarray(0, result === 'ok' ? larger.length : bytes.length)
    const again = createPacket()
    hold(decodePacket(view, again) === result, 'the bytes behind do not change the result')
    if (result !== 'ok') continue
    hold(isDeepStrictEqual(again, packet), 'the bytes behind do not change the packet')
    hold(verifyTransportChecksum(view, again) === verifyTransportChecksum(bytes, packet), 'nor its checksum')
    neutralizeFastOpen(view, again)
    hold(
      larger.subarray(end).every((byte) => byte === canary),
      'no byte behind the packet is written',
    )
  }
}

/** A whole UDP datagram is all there: its own length field says no more than what is carried. */
function holdDatagram(bytes: Uint8Array, packet: Packet): void {
  if (packet.protocol !== 17 || packet.fragment !== 'none') return
  const stated = ((bytes[packet.headerBytes + 4] ?? 0) << 8) | (bytes[packet.headerBytes + 5] ?? 0)
  hold(packet.payloadBytes + 8 === stated, 'a datagram carries what its length says')
}

function holdChecksums(bytes: Uint8Array, packet: Packet): void {
  if (packet.family === 4) {
    const isRight = plainChecksum([bytes.slice(0, packet.headerBytes)]) === 0
    hold(verifyHeaderChecksum(bytes, packet) === isRight, 'the header checksum agrees with a plain one')
  }
  if (packet.fragment !== 'none' || packet.protocol !== 6) return
  const isRight = plainTransportChecksum(bytes, packet, packet.totalBytes - packet.headerBytes) === 0
  hold(verifyTransportChecksum(bytes, packet) === isRight, 'the TCP checksum agrees with a plain one')
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0
}

function isCanary(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === CANARY)
}

type Rewrite = (bytes: Uint8Array, packet: Packet, out: Uint8Array) => number

const REWRITES: Readonly<Record<string, { readonly rewrite: Rewrite; readonly payload: Uint8Array }>> = {
  replace: {
    rewrite: (bytes, packet, out) => replacePayload(bytes, packet, FRAME, sumBytes(FRAME, 0, FRAME.length), out),
    payload: FRAME,
  },
  strip: { rewrite: stripPayload, payload: new Uint8Array(0) },
  reset: { rewrite: (bytes, packet, out) => toReset(bytes, packet, out, 77), payload: new Uint8Array(0) },
}

/** A rewritten packet decodes, has the wanted payload, and its checksums are right exactly where they were. */
function holdRewrites(bytes: Uint8Array, packet: Packet): number {
  let rewritten = 0
  const wasRight = [verifyHeaderChecksum(bytes, packet), verifyTransportChecksum(bytes, packet)]
  for (const [name, { rewrite, payload }] of Object.entries(REWRITES)) {
    const reach = Math.min(OUT_BYTES, bytes.length + FRAME.length + 200)
    out.fill(CANARY, 0, reach)
    const before = bytes.slice()
    const written = rewrite(bytes, packet, out)
    hold(same(before, bytes), `${name} leaves its input alone`)
    hold(isCanary(out.subarray(written, reach)), `${name} writes nothing behind its result`)
    if (written === 0) continue
    rewritten++
    const result = out.subarray(0, written)
    const again = createPacket()
    hold(decodePacket(result, again) === 'ok', `${name} gives a packet that decodes`)
    hold(again.totalBytes === written, `${name} states the length that it returns`)
    const carried = result.slice(again.payloadOffset, again.payloadOffset + again.payloadBytes)
    hold(same(carried, payload), `${name} carries its payload`)
    const isRight = [verifyHeaderChecksum(result, again), verifyTransportChecksum(result, again)]
    hold(isDeepStrictEqual(isRight, wasRight), `${name} keeps right checksums right and wrong ones wrong`)
    const isSyn = (again.flags & FLAG_SYN) !== 0
    hold(!isSyn || findOption(result, again, OPTION_FAST_OPEN) === -1, `${name} leaves no Fast Open on a SYN`)
    inPlace.set(bytes)
    hold(rewrite(inPlace, packet, inPlace) === written, `${name} in place has the same length`)
    hold(same(inPlace.subarray(0, written), result), `${name} in place gives the same packet`)
    hold(rewrite(bytes, packet, out.subarray(0, written - 1)) === 0, `${name} writes nothing where it does not fit`)
  }
  return rewritten
}

function holdAnswer(bytes: Uint8Array, packet: Packet): void {
  if (packet.protocol !== 6 || packet.fragment !== 'none') return
  const fields = { sequence: 2 ** 32 - 1, acknowledgement: packet.sequence, flags: 0x14, window: 0 }
  const written = buildTcpAnswer(bytes, packet, fields, FRAME, out)
  const answer = createPacket()
  const result = out.subarray(0, written)
  hold(decodePacket(result, answer) === 'ok', 'an answer decodes')
  const sides = [answer.sourcePort, answer.destinationPort, answer.acknowledgement, answer.payloadBytes]
  const expected = [packet.destinationPort, packet.sourcePort, packet.sequence, FRAME.length]
  hold(isDeepStrictEqual(sides, expected), 'an answer turns the ports round')
  hold(verifyHeaderChecksum(result, answer) && verifyTransportChecksum(result, answer), 'an answer has right checksums')
}

export const packetTarget = bytesTarget({
  name: 'packet',
  about: 'IP and TCP packets: decoding, options, checksums against a plain computation, rewriting, answers',
  sources: ['sidecar/packet/'],
  batch: 128,
  seeds: CAPTURES.flatMap((name) => readCapture(name).map((bytes) => Uint8Array.from(bytes))),
  repair,
  check(input) {
    // A buffer of exactly these bytes, with nothing behind that a read could find.
    const bytes = input.slice()
    const packet = createPacket()
    const result = decodePacket(bytes, packet)
    holdCanary(bytes, result, packet)
    if (result !== 'ok') return result
    holdInside(bytes, packet)
    holdChecksums(bytes, packet)
    holdDatagram(bytes, packet)
    const mss = readMss(bytes, packet)
    hold(mss >= 0 && mss <= 65_535, 'an MSS has 16 bits')
    holdAnswer(bytes, packet)
    const rewritten = holdRewrites(bytes, packet)
    return `${packet.family}-${packet.protocol === 6 ? 'tcp' : packet.protocol === 17 ? 'udp' : 'other'}-${packet.fragment}-${rewritten}`
  },
})
