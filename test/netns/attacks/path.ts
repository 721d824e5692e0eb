/**
 * An attacker's hands in one network namespace, told over its IPC channel what to do.
 *
 *   send    sends whole IPv4 packets, as hex, as they are, from a raw socket
 *   sweep   sends a packet under every n-th sequence number there is
 *   treat   what becomes of the packets of a port, or of all others, that iptables queues to QUEUE, from now on
 *   let pass   nothing becomes of them any more
 *   seen    those packets, as they came, as hex
 *   go on   lets through what `delay` held, and treats what follows so
 */
import { answerChannel } from '../../../lab/channel.ts'
import { createDatagramBatch, datagramBytes } from '../../../sidecar/netlink/datagram-batch.ts'
import { messageBytes, nextMessage } from '../../../sidecar/netlink/message.ts'
import {
  createQueuedPacket,
  decodeQueued,
  encodeVerdict,
  NF_ACCEPT,
  NF_DROP,
  verdictBytes,
} from '../../../sidecar/netlink/queue.ts'
import { openQueueSocket, QUEUE_BUFFER_BYTES } from '../../../sidecar/netlink/queue-socket.ts'
import { openRawSocket } from '../../../sidecar/netlink/raw-socket.ts'
import { sumBytes, updateChecksum } from '../../../sidecar/packet/checksum.ts'
import { createPacket, decodePacket } from '../../../sidecar/packet/decode.ts'
import { replacePayload } from '../../../sidecar/packet/rewrite.ts'
import type { Kind, PathRequest, Treatment } from './attacker.ts'

const queueNumber = Number(process.argv[2] ?? 0)
const raw = openRawSocket(4, 0)
const seen: string[] = []
const held: { id: number }[] = []
/** By the client's port; that of all others under 0. */
const treatments = new Map<number, Treatment>()
const NONE: Treatment = {}

/** What a packet is to the handshake. */
function kindOf(bytes: Buffer, flags: number, payloadAt: number, payloadBytes: number): Kind {
  if ((flags & 0x04) !== 0) return 'rst'
  if ((flags & 0x02) !== 0) return (flags & 0x10) !== 0 ? 'syn-ack' : 'syn'
  if (payloadBytes === 88 && bytes.toString('latin1', payloadAt, payloadAt + 4) === 'SYNG') return 'proof'
  return payloadBytes > 0 ? 'data' : (flags & 0x01) !== 0 ? 'fin' : 'ack'
}

const packet = createPacket()
const out = Buffer.alloc(70_000)
const verdict = Buffer.alloc(verdictBytes(70_000))

function answer(id: number, code: number, bytes = 0): void {
  const length = encodeVerdict(verdict, 0, queueNumber, id, code, undefined, bytes > 0 ? out : undefined, bytes)
  queue?.send(verdict, length)
}

function judge(bytes: Buffer, id: number): void {
  if (decodePacket(bytes, packet) !== 'ok') return answer(id, NF_DROP)
  const kind = kindOf(bytes, packet.flags, packet.payloadOffset, packet.payloadBytes)
  seen.push(bytes.toString('hex'))
  const sender = bytes.subarray(12, 16).join('.')
  const treatment =
    treatments.get(packet.sourcePort) ?? treatments.get(packet.destinationPort) ?? treatments.get(0) ?? NONE
  if (treatment.from !== undefined && treatment.from !== sender) return answer(id, NF_ACCEPT)
  if (treatment.drop?.includes(kind)) return answer(id, NF_DROP)
  if (treatment.delay?.includes(kind)) return void held.push({ id })
  const payload = Buffer.from(bytes.subarray(packet.payloadOffset, packet.totalBytes))
  const alter = treatment.alter
  if (treatment.strip?.includes(kind) && payload.length > 0) {
    return answer(id, NF_ACCEPT, replacePayload(bytes, packet, new Uint8Array(0), 0, out))
  }
  if (alter?.kind === kind && payload.length > alter.at) {
    payload.writeUInt8(payload.readUInt8(alter.at) ^ alter.mask, alter.at)
    return answer(id, NF_ACCEPT, replacePayload(bytes, packet, payload, sumBytes(payload, 0, payload.length), out))
  }
  answer(id, NF_ACCEPT)
}

function send(bytes: Buffer): void {
  const sent = raw.send(bytes, bytes.length, bytes.subarray(16, 20))
  // What a full queue on the way took is lost, as on any network.
  if (sent < 0 && sent !== -105 && sent !== -11) throw new Error(`a raw packet was not sent: errno ${-sent}`)
}

function sweep(bytes: Buffer, step: number): void {
  for (let sequence = 0; sequence < 2 ** 32; sequence += step) {
    const before = sumBytes(bytes, 24, 28)
    bytes.writeUInt32BE(sequence, 24)
    bytes.writeUInt16BE(updateChecksum(bytes.readUInt16BE(36), before, sumBytes(bytes, 24, 28)), 36)
    send(bytes)
  }
}

function obey(request: PathRequest): unknown {
  switch (request.do) {
    case 'send':
      for (const hex of request.packets) send(Buffer.from(hex, 'hex'))
      return request.packets.length
    case 'sweep':
      sweep(Buffer.from(request.packet, 'hex'), request.step)
      return null
    case 'treat':
      treatments.set(request.how.port ?? 0, request.how)
      return null
    case 'let pass':
      treatments.clear()
      return null
    case 'seen':
      return seen.splice(0)
    case 'go on':
      treatments.set(request.how.port ?? 0, request.how)
      for (const { id } of held.splice(0)) answer(id, NF_ACCEPT)
      return null
  }
}

const queue =
  queueNumber > 0 ? openQueueSocket({ receiveBufferBytes: 1 << 22, receiveTimeoutMilliseconds: 5 }) : undefined
queue?.bind(queueNumber, { copyRange: 0xffff, maximumLength: 4_096, flags: 0 })
const batch = createDatagramBatch(1, QUEUE_BUFFER_BYTES)
const queued = createQueuedPacket()

function read(): void {
  if (!queue) return
  if (queue.receive(batch) > 0) {
    const end = datagramBytes(batch, 0)
    for (let at = 0; at < end && messageBytes(batch.buffer, at, end) !== 0; at = nextMessage(batch.buffer, at, end)) {
      if (decodeQueued(batch.buffer, at, end, queued) !== 'ok') continue
      const start = queued.payloadOffset
      judge(Buffer.from(batch.buffer.subarray(start, start + queued.payloadBytes)), queued.id)
    }
  }
  setImmediate(read)
}

read()
answerChannel(async (request: PathRequest) => obey(request))
