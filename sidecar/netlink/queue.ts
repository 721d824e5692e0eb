/**
 * NFQUEUE messages, <linux/netfilter/nfnetlink_queue.h>: packets from the kernel, verdicts and configuration to it.
 * Pure; decoding a packet and encoding a verdict allocate nothing.
 */

import { readU16BE, readU32BE, u32BE, writeU16, writeU16BE, writeU32, writeU32BE } from './bytes.ts'
import {
  type Attribute,
  align4,
  attributeBytes,
  attributeType,
  encodeMessage,
  messageBytes,
  messageSequence,
  messageType,
  NFGEN_HEADER_BYTES,
  NLA_DATA_MAXIMUM,
  NLA_HEADER_BYTES,
  NLM_F_ACK,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  NLMSG_HEADER_BYTES,
  nextAttribute,
} from './message.ts'

/** <linux/netfilter/nfnetlink.h>: nlmsg_type is the subsystem << 8 and the message's own number. */
export const NFNL_SUBSYS_QUEUE = 3
export const NFQNL_MSG_PACKET = 0
export const NFQNL_MSG_VERDICT = 1
export const NFQNL_MSG_CONFIG = 2

export const NFQA_PACKET_HDR = 1
export const NFQA_VERDICT_HDR = 2
export const NFQA_MARK = 3
export const NFQA_IFINDEX_INDEV = 5
export const NFQA_IFINDEX_OUTDEV = 6
export const NFQA_PAYLOAD = 10
export const NFQA_CAP_LEN = 13

export const NFQA_CFG_CMD = 1
export const NFQA_CFG_PARAMS = 2
export const NFQA_CFG_QUEUE_MAXLEN = 3
export const NFQA_CFG_MASK = 4
export const NFQA_CFG_FLAGS = 5
export const NFQNL_CFG_CMD_BIND = 1
export const NFQNL_CFG_CMD_UNBIND = 2
export const NFQNL_CFG_CMD_PF_BIND = 3
const NFQNL_COPY_PACKET = 2
export const NFQA_CFG_F_FAIL_OPEN = 1 << 0
export const NFQA_CFG_F_CONNTRACK = 1 << 1
export const NFQA_CFG_F_GSO = 1 << 2
export const NFQA_CFG_F_UID_GID = 1 << 3

// <linux/netfilter.h>: verdicts, and the hooks (enum nf_inet_hooks) at which our rules queue.
export const NF_DROP = 0
export const NF_ACCEPT = 1
export const NF_REPEAT = 4
export const NF_INET_LOCAL_IN = 1
export const NF_INET_LOCAL_OUT = 3

/** Set in a verdict's nlmsg_seq, beside the packet's id: no configuration request or wake-up has it. */
export const VERDICT_SEQUENCE = 0x80000000

/** A verdict's size without mark and packet: nlmsghdr, nfgenmsg, and the attribute with nfqnl_msg_verdict_hdr. */
const VERDICT_BASE_BYTES = NLMSG_HEADER_BYTES + NFGEN_HEADER_BYTES + NLA_HEADER_BYTES + 8
/** Copies without allocating, as `set` of a part would, and for 1,000 bytes many times as fast as a loop. */
const copy = Buffer.prototype.copy as unknown as (
  this: Uint8Array,
  target: Uint8Array,
  targetStart: number,
  sourceStart: number,
  sourceEnd: number,
) => number

/** The most that `encodeVerdict` writes for a packet of `packetBytes`. */
export function verdictBytes(packetBytes: number): number {
  return VERDICT_BASE_BYTES + 8 + NLA_HEADER_BYTES + align4(packetBytes)
}

/** A packet in the queue: numbers and where its bytes lie in the datagram's buffer. One object serves every packet. */
export interface QueuedPacket {
  /** The queue's number. */
  queue: number
  /** The kernel's name for the packet within its queue; a verdict gives it back. */
  id: number
  /** NF_INET_LOCAL_IN or NF_INET_LOCAL_OUT. */
  hook: number
  /** The packet's fwmark; 0 where it has none. */
  mark: number
  /** The Ethernet type, 0x0800 or 0x86dd. */
  hardwareProtocol: number
  /** Where the IP packet begins in the buffer. */
  payloadOffset: number
  /** How many of its bytes follow there. */
  payloadBytes: number
  /** False where the kernel copied less than the whole packet (NFQA_CAP_LEN). */
  capturedFully: boolean
  /** The packet's whole length, of which `payloadBytes` were copied. */
  originalBytes: number
  /** Interface indexes; 0 where the hook has none. */
  inInterface: number
  outInterface: number
}

/** An empty packet for `decodeQueued` to fill. */
export function createQueuedPacket(): QueuedPacket {
  return {
    queue: 0,
    id: 0,
    hook: 0,
    mark: 0,
    hardwareProtocol: 0,
    payloadOffset: 0,
    payloadBytes: 0,
    capturedFully: true,
    originalBytes: 0,
    inInterface: 0,
    outInterface: 0,
  }
}

/**
 * - `ok`: the packet is filled.
 * - `not-packet`: a whole message of another kind (an acknowledgement, an error).
 * - `truncated`: no whole message, or one that breaks off within its headers or attributes; nothing can be answered.
 * - `malformed`: a packet message without NFQA_PACKET_HDR or NFQA_PAYLOAD. `id` is filled where it was there.
 */
export type QueuedResult = 'ok' | 'not-packet' | 'truncated' | 'malformed'

/** Decodes the message at `start` of a datagram that ends at `end` into `packet`. */
export function decodeQueued(buffer: Uint8Array, start: number, end: number, packet: QueuedPacket): QueuedResult {
  const bytes = messageBytes(buffer, start, end)
  if (bytes === 0) return 'truncated'
  if (messageType(buffer, start) !== ((NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET)) return 'not-packet'
  if (bytes < NLMSG_HEADER_BYTES + NFGEN_HEADER_BYTES) return 'truncated'
  const messageEnd = start + bytes
  packet.queue = readU16BE(buffer, start + NLMSG_HEADER_BYTES + 2)
  packet.id = 0
  packet.mark = 0
  packet.inInterface = 0
  packet.outInterface = 0
  packet.payloadOffset = 0
  packet.payloadBytes = 0
  let hasHeader = false
  let hasPayload = false
  let originalBytes = -1
  let at = start + NLMSG_HEADER_BYTES + NFGEN_HEADER_BYTES
  while (at < messageEnd) {
    const length = attributeBytes(buffer, at, messageEnd)
    if (length === 0) return 'truncated'
    const data = at + NLA_HEADER_BYTES
    const dataBytes = length - NLA_HEADER_BYTES
    switch (attributeType(buffer, at)) {
      case NFQA_PACKET_HDR: {
        // struct nfqnl_msg_packet_hdr { __be32 packet_id; __be16 hw_protocol; __u8 hook; } packed
        if (dataBytes < 7) return 'malformed'
        packet.id = readU32BE(buffer, data)
        packet.hardwareProtocol = readU16BE(buffer, data + 4)
        packet.hook = buffer[data + 6] as number
        hasHeader = true
        break
      }
      case NFQA_PAYLOAD:
        packet.payloadOffset = data
        packet.payloadBytes = dataBytes
        hasPayload = true
        break
      case NFQA_MARK:
        if (dataBytes >= 4) packet.mark = readU32BE(buffer, data)
        break
      case NFQA_IFINDEX_INDEV:
        if (dataBytes >= 4) packet.inInterface = readU32BE(buffer, data)
        break
      case NFQA_IFINDEX_OUTDEV:
        if (dataBytes >= 4) packet.outInterface = readU32BE(buffer, data)
        break
      case NFQA_CAP_LEN:
        if (dataBytes >= 4) originalBytes = readU32BE(buffer, data)
        break
      default:
        break
    }
    at = nextAttribute(buffer, at, messageEnd)
  }
  if (!hasHeader || !hasPayload) return 'malformed'
  packet.capturedFully = originalBytes <= packet.payloadBytes
  packet.originalBytes = packet.capturedFully ? packet.payloadBytes : originalBytes
  return 'ok'
}

/**
 * Writes the verdict for one packet at `out[offset]` and returns its bytes, a multiple of 4, so that the next can
 * follow and one send carries several; 0 where it does not fit, and then nothing is written. `mark` undefined leaves
 * the packet's mark; 0 sets it to 0. `packet[0, packetBytes)` replaces the packet's bytes.
 * No acknowledgement is asked for: the kernel answers only a verdict that failed (-ENOENT: no such id), with
 * nlmsg_seq = the id with VERDICT_SEQUENCE set.
 */
export function encodeVerdict(
  out: Uint8Array,
  offset: number,
  queue: number,
  id: number,
  verdict: number,
  mark: number | undefined,
  packet?: Uint8Array,
  packetBytes: number = packet === undefined ? 0 : packet.length,
): number {
  const bytes =
    VERDICT_BASE_BYTES +
    (mark === undefined ? 0 : 8) +
    (packet === undefined ? 0 : NLA_HEADER_BYTES + align4(packetBytes))
  if (offset + bytes > out.length || packetBytes > NLA_DATA_MAXIMUM) return 0
  if (packet !== undefined && packetBytes > packet.length) return 0
  writeU32(out, offset, bytes)
  writeU16(out, offset + 4, (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT)
  writeU16(out, offset + 6, NLM_F_REQUEST)
  writeU32(out, offset + 8, id | VERDICT_SEQUENCE)
  writeU32(out, offset + 12, 0)
  writeU16(out, offset + 16, 0)
  writeU16BE(out, offset + 18, queue)
  writeU16(out, offset + 20, NLA_HEADER_BYTES + 8)
  writeU16(out, offset + 22, NFQA_VERDICT_HDR)
  writeU32BE(out, offset + 24, verdict)
  writeU32BE(out, offset + 28, id)
  let at = offset + VERDICT_BASE_BYTES
  if (mark !== undefined) {
    writeU16(out, at, NLA_HEADER_BYTES + 4)
    writeU16(out, at + 2, NFQA_MARK)
    writeU32BE(out, at + 4, mark)
    at += 8
  }
  if (packet !== undefined) {
    writeU16(out, at, NLA_HEADER_BYTES + packetBytes)
    writeU16(out, at + 2, NFQA_PAYLOAD)
    at += NLA_HEADER_BYTES
    copy.call(packet, out, at, 0, packetBytes)
    for (let i = packetBytes; i < align4(packetBytes); i++) out[at + i] = 0
  }
  return bytes
}

/** How a queue is bound. */
export interface QueueOptions {
  /** How many bytes of a packet the kernel copies: 0xffff for all. */
  readonly copyRange: number
  /** How many packets may wait for a verdict; more are dropped. */
  readonly maximumLength: number
  /** NFQA_CFG_F_*; 0 means no fail-open, no GSO packets (the kernel segments them and completes checksums), no uid. */
  readonly flags: number
}

/** Every flag that we know: the mask with which `flags` are set, so that an old setting does not survive. */
const CONFIG_MASK = NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_CONNTRACK | NFQA_CFG_F_GSO | NFQA_CFG_F_UID_GID

function encodeConfig(queue: number, sequence: number, attributes: readonly Attribute[]): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(NFGEN_HEADER_BYTES)
  writeU16BE(body, 2, queue)
  return encodeMessage({
    type: (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_CONFIG,
    flags: NLM_F_REQUEST | NLM_F_ACK,
    sequence,
    portId: 0,
    body,
    attributes,
  })
}

/** The request that binds a queue, and the one that sets it up with nlmsg_seq one higher; both ask for an acknowledgement. */
export function encodeBind(queue: number, sequence: number, options: QueueOptions): [Uint8Array, Uint8Array] {
  // struct nfqnl_msg_config_params { __be32 copy_range; __u8 copy_mode; } packed
  const parameters = new Uint8Array(5)
  writeU32BE(parameters, 0, options.copyRange)
  parameters[4] = NFQNL_COPY_PACKET
  return [
    encodeConfig(queue, sequence, [{ type: NFQA_CFG_CMD, data: new Uint8Array([NFQNL_CFG_CMD_BIND, 0, 0, 0]) }]),
    encodeConfig(queue, sequence + 1, [
      { type: NFQA_CFG_PARAMS, data: parameters },
      { type: NFQA_CFG_QUEUE_MAXLEN, data: u32BE(options.maximumLength) },
      { type: NFQA_CFG_MASK, data: u32BE(CONFIG_MASK) },
      { type: NFQA_CFG_FLAGS, data: u32BE(options.flags) },
    ]),
  ]
}

/** The request that gives a queue up; the kernel drops what waits in it. */
export function encodeUnbind(queue: number, sequence: number): Uint8Array<ArrayBuffer> {
  return encodeConfig(queue, sequence, [{ type: NFQA_CFG_CMD, data: new Uint8Array([NFQNL_CFG_CMD_UNBIND, 0, 0, 0]) }])
}

/** nlmsg_seq of a wake-up; configuration requests count from 1 and never reach it. */
export const WAKEUP_SEQUENCE = 0x77616b65

/**
 * A request that changes nothing and is acknowledged: NFQNL_CFG_CMD_PF_BIND, which the kernel accepts for
 * compatibility ("Obsolete commands without queue context", nfqnl_recv_config) and ignores.
 */
export function encodeWakeup(): Uint8Array<ArrayBuffer> {
  return encodeConfig(0, WAKEUP_SEQUENCE, [
    { type: NFQA_CFG_CMD, data: new Uint8Array([NFQNL_CFG_CMD_PF_BIND, 0, 0, 2]) },
  ])
}

/** Whether the datagram `buffer[0, bytes)` is the answer to a wake-up. */
export function isWakeup(buffer: Uint8Array, bytes: number): boolean {
  return (
    messageBytes(buffer, 0, bytes) !== 0 &&
    messageType(buffer, 0) === NLMSG_ERROR &&
    messageSequence(buffer, 0) === WAKEUP_SEQUENCE
  )
}
