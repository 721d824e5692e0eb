import { isDeepStrictEqual } from 'node:util'
import { NetlinkError } from '../../../sidecar/netlink/errors.ts'
import {
  decodeFlow,
  encodeFlowDelete,
  encodeMarkUpdate,
  encodeReopen,
  encodeTuple,
} from '../../../sidecar/netlink/flow.ts'
import { decodeSocket } from '../../../sidecar/netlink/inet-diag.ts'
import {
  type Attribute,
  acknowledgedErrno,
  decodeMessage,
  encodeMessage,
  type Message,
  messageBytes,
  nextMessage,
} from '../../../sidecar/netlink/message.ts'
import { decodeGeneration } from '../../../sidecar/netlink/nft-generation.ts'
import {
  createQueuedPacket,
  decodeQueued,
  encodeVerdict,
  isWakeup,
  verdictBytes,
} from '../../../sidecar/netlink/queue.ts'
import { decodeDefaultRoute, decodeInterfaceAddress, decodeLink } from '../../../sidecar/netlink/route.ts'
import { RECORDED_NAMES, recorded } from '../../unit/netlink/recorded.ts'
import type { Random } from '../random.ts'
import { bytesTarget, hold } from '../target.ts'

const TUPLE = { family: 4, protocol: 6, sourcePort: 40_000, destinationPort: 80 } as const
const V4 = { ...TUPLE, source: Uint8Array.from([10, 0, 0, 1]), destination: Uint8Array.from([10, 0, 0, 2]) }
const V6 = { ...TUPLE, family: 6, source: new Uint8Array(16).fill(1), destination: new Uint8Array(16).fill(2) } as const
const REQUESTS = [encodeMarkUpdate(V4, 5, 7), encodeReopen(V6), encodeFlowDelete(V4)].map((request) =>
  encodeMessage({ ...request, sequence: 1, portId: 0 }),
)
const GENERATION = encodeMessage({
  type: (10 << 8) | 15,
  flags: 0,
  sequence: 1,
  portId: 0,
  body: new Uint8Array(4),
  attributes: [{ type: 1, data: Uint8Array.from([0, 0, 0, 9]) }],
})

/** Everything that one message may be, at `at` of a buffer whose datagram ends at `end`. */
function decodeAll(buffer: Uint8Array, at: number, end: number) {
  return {
    bytes: messageBytes(buffer, at, end),
    next: nextMessage(buffer, at, end) - at,
    errno: acknowledgedErrno(buffer, at, end),
    flow: decodeFlow(buffer, at, end),
    socket: decodeSocket(buffer, at, end, 6),
    generation: decodeGeneration(buffer, at, end),
    link: decodeLink(buffer, at, end),
    address: decodeInterfaceAddress(buffer, at, end),
    route: decodeDefaultRoute(buffer, at, end),
    message: decodeMessage(buffer, at, end, 4),
    queued: queuedOf(buffer, at, end),
  }
}

function queuedOf(buffer: Uint8Array, at: number, end: number) {
  const packet = createQueuedPacket()
  const result = decodeQueued(buffer, at, end, packet)
  if (result !== 'ok') return { result }
  hold(packet.payloadOffset >= at && packet.payloadOffset + packet.payloadBytes <= end, 'a payload lies inside')
  hold(packet.originalBytes >= packet.payloadBytes, 'a packet is at least as long as its copy')
  return { result, packet: { ...packet, payloadOffset: packet.payloadOffset - at } }
}

interface PlainAttribute {
  readonly type: number
  readonly data: Uint8Array
}

/** struct nlattr after struct nlattr, read with nothing of the product. */
function plainAttributes(bytes: Uint8Array): PlainAttribute[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const found: PlainAttribute[] = []
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = view.getUint16(at, true)
    if (length < 4 || at + length > bytes.length) break
    found.push({ type: view.getUint16(at + 2, true) & 0x3fff, data: bytes.subarray(at + 4, at + length) })
    at += Math.ceil(length / 4) * 4
  }
  return found
}

function plainFind(attributes: readonly PlainAttribute[], type: number): PlainAttribute[] {
  const found = attributes.find((attribute) => attribute.type === type)
  return found === undefined ? [] : plainAttributes(found.data)
}

/** Nothing that was decoded came from behind the attribute that it was in. */
function holdAttributes(message: Uint8Array): void {
  const attributes = plainAttributes(message.subarray(20))
  const queued = createQueuedPacket()
  if (decodeQueued(message, 0, message.length, queued) === 'ok') {
    const headers = attributes.filter(({ type }) => type === 1)
    hold(
      headers.every(({ data }) => data.length >= 7),
      'a packet header is whole',
    )
  }
  const flow = decodeFlow(message, 0, message.length)
  if (flow === undefined) return
  // The last tuple of a kind counts, the first address in it.
  const tuple = plainAttributes(attributes.findLast(({ type }) => type === 1)?.data ?? new Uint8Array(0))
  const addresses = plainFind(tuple, 1)
  const source = addresses.find(({ type }) => type === (flow.original.family === 4 ? 1 : 3))
  hold((source?.data.length ?? 0) >= flow.original.source.length, 'an address is whole')
  hold(
    isDeepStrictEqual(source?.data.slice(0, flow.original.source.length), flow.original.source),
    'an address is its own',
  )
}

function holdOutside(input: Uint8Array): void {
  const alone = decodeAll(input, 0, input.length)
  for (const [canary, start] of [
    [0x00, 4],
    [0xff, 20],
  ] as const) {
    const larger = new Uint8Array(start + input.length + 64).fill(canary)
    larger.set(input, start)
    const inside = decodeAll(larger, start, start + input.length)
    hold(isDeepStrictEqual(inside, alone), 'bytes around a message change nothing')
  }
}

/** A message decoded, encoded and decoded again is the same: but for what follows the last whole attribute. */
function holdRoundTrip(message: Message): void {
  let encoded: Uint8Array
  try {
    encoded = encodeMessage(message)
  } catch (error) {
    // A nested attribute whose last part was padded may outgrow 16 bits.
    hold(error instanceof NetlinkError && error.code === 'netlink-argument', 'encoding throws netlink-argument alone')
    return
  }
  const again = decodeMessage(encoded, 0, encoded.length, 4)
  hold(isDeepStrictEqual(plain(again), plain(message)), 'decode, encode and decode give the same message')
}

/** Nested attributes without any inside are bytes of length 0 and lists of none: the same on the wire. */
function plain(message: Message | undefined): unknown {
  const attributes = (list: readonly Attribute[]): unknown[] =>
    list.map(({ type, data }) => [type, data instanceof Uint8Array ? [...data] : attributes(data)])
  return message === undefined ? undefined : { ...message, attributes: attributes(message.attributes) }
}

function holdVerdict(buffer: Uint8Array): void {
  const packet = createQueuedPacket()
  if (decodeQueued(buffer, 0, buffer.length, packet) !== 'ok') return
  const payload = buffer.slice(packet.payloadOffset, packet.payloadOffset + packet.payloadBytes)
  const out = new Uint8Array(verdictBytes(payload.length) + 8).fill(0xa5)
  const written = encodeVerdict(out, 4, packet.queue, packet.id, 1, packet.mark, payload)
  hold(written > 0 && written <= verdictBytes(payload.length), 'a verdict is no longer than it says')
  hold(
    out.subarray(4 + written).every((byte) => byte === 0xa5),
    'a verdict writes nothing behind itself',
  )
  const message = decodeMessage(out, 4, 4 + written, 4)
  const [header, mark, data] = message?.attributes ?? []
  hold(header?.type === 2 && mark?.type === 3, 'a verdict has its header and mark')
  hold(data !== undefined && isDeepStrictEqual(data.data, payload), 'a verdict carries the packet')
}

function holdFlow(buffer: Uint8Array): boolean {
  const flow = decodeFlow(buffer, 0, buffer.length)
  if (flow === undefined) return false
  const encoded = encodeMessage({
    type: 0x100,
    flags: 0,
    sequence: 0,
    portId: 0,
    body: new Uint8Array(4),
    attributes: [encodeTuple(1, flow.original), encodeTuple(2, flow.reply)],
  })
  const again = decodeFlow(encoded, 0, encoded.length)
  hold(isDeepStrictEqual([again?.original, again?.reply], [flow.original, flow.reply]), 'tuples survive encoding')
  return true
}

/** The messages of a datagram, each cut out; bounded as the receiving loop is. */
function* messagesOf(datagram: Uint8Array): Generator<Uint8Array> {
  let at = 0
  while (messageBytes(datagram, at, datagram.length) !== 0) {
    const next = nextMessage(datagram, at, datagram.length)
    hold(next > at, 'each message moves on')
    yield datagram.slice(at, next)
    at = next
  }
}

/** The attributes with one changed, at any depth: its data shorter or longer, its type another, twice, or gone. */
function changeAttribute(attributes: readonly Attribute[], random: Random): readonly Attribute[] {
  const at = random.below(attributes.length)
  const attribute = attributes[at]
  if (attribute === undefined) return attributes
  const { type, data } = attribute
  if (!(data instanceof Uint8Array) && !random.oneIn(4)) {
    return attributes.with(at, { type, data: changeAttribute(data, random) })
  }
  switch (random.below(5)) {
    case 0:
      return attributes.toSpliced(at, 1)
    case 1:
      return attributes.toSpliced(at, 0, attribute)
    case 2:
      return attributes.with(at, { type: random.below(24), data })
    case 3:
      return attributes.with(at, { type, data: new Uint8Array(random.below(20)).fill(random.below(256)) })
    default:
      return data instanceof Uint8Array
        ? attributes.with(at, { type, data: data.slice(0, random.below(data.length + 1)) })
        : attributes.with(at, { type, data: data.toReversed() })
  }
}

export const netlinkTarget = bytesTarget({
  name: 'netlink',
  about: 'netlink datagrams: queued packets and verdicts, conntrack, sock_diag, routes, rule generation, round trips',
  sources: ['sidecar/netlink/'],
  batch: 64,
  seeds: [...RECORDED_NAMES.map(recorded), ...REQUESTS, GENERATION],
  repair(bytes, random) {
    const message = random.oneIn(2) ? decodeMessage(bytes, 0, bytes.length, 4) : undefined
    // Beside longer attributes that are nested the message may not fit 16 bits: then only its bytes are changed.
    if (message !== undefined && message.attributes.length > 0 && bytes.length < 8_192) {
      return encodeMessage({ ...message, attributes: changeAttribute(message.attributes, random) })
    }
    const out = bytes.slice()
    if (out.length < 16) return out
    // nlmsg_len of the first message: all, or as it was where more follow.
    if (random.oneIn(2)) new DataView(out.buffer).setUint32(0, out.length, true)
    if (random.oneIn(8))
      out.set(
        random.pick([
          [0, 3],
          [0, 1],
          [20, 0],
          [16, 0],
          [20, 0],
          [24, 0],
          [15, 10],
          [2, 0],
          [3, 0],
        ]),
        4,
      )
    return out
  },
  check(input) {
    const datagram = input.slice()
    isWakeup(datagram, datagram.length)
    holdOutside(datagram)
    const kinds = new Set<string>()
    for (const message of messagesOf(datagram)) {
      holdOutside(message)
      holdVerdict(message)
      holdAttributes(message)
      if (holdFlow(message)) kinds.add('flow')
      const { message: whole, bytes: _, next: __, queued, ...others } = decodeAll(message, 0, message.length)
      if (whole !== undefined) holdRoundTrip(whole)
      kinds.add(queued.result)
      for (const [kind, value] of Object.entries(others)) if (value !== undefined) kinds.add(kind)
    }
    return [...kinds].sort().join('+') || 'nothing'
  },
})
