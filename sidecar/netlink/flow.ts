/** Connections as ctnetlink tells them, <linux/netfilter/nfnetlink_conntrack.h>. Pure. */

import { readU16BE, readU32BE, u16BE, u32BE } from './bytes.ts'
import {
  type Attribute,
  attributeBytes,
  attributeType,
  findAttribute,
  messageBytes,
  messageType,
  NFGEN_HEADER_BYTES,
  NLA_HEADER_BYTES,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSG_HEADER_BYTES,
  nextAttribute,
} from './message.ts'
import type { Request } from './request.ts'

export const NFNL_SUBSYS_CTNETLINK = 1
export const IPCTNL_MSG_CT_NEW = 0
export const IPCTNL_MSG_CT_GET = 1
export const IPCTNL_MSG_CT_DELETE = 2
export const CTA_TUPLE_ORIG = 1
export const CTA_TUPLE_REPLY = 2
export const CTA_STATUS = 3
export const CTA_PROTOINFO = 4
export const CTA_TIMEOUT = 7
export const CTA_MARK = 8
export const CTA_COUNTERS_ORIG = 9
export const CTA_COUNTERS_REPLY = 10
export const CTA_TIMESTAMP = 20
export const CTA_MARK_MASK = 21
export const CTA_COUNTERS_BYTES = 2
export const CTA_TIMESTAMP_START = 1
export const CTA_TUPLE_IP = 1
export const CTA_TUPLE_PROTO = 2
export const CTA_IP_V4_SRC = 1
export const CTA_IP_V4_DST = 2
export const CTA_IP_V6_SRC = 3
export const CTA_IP_V6_DST = 4
export const CTA_PROTO_NUM = 1
export const CTA_PROTO_SRC_PORT = 2
export const CTA_PROTO_DST_PORT = 3
export const CTA_PROTOINFO_TCP = 1
export const CTA_PROTOINFO_TCP_STATE = 1
export const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL = 4
export const CTA_PROTOINFO_TCP_FLAGS_REPLY = 5

// <linux/netfilter/nf_conntrack_common.h>: enum ip_conntrack_status.
export const IPS_SEEN_REPLY = 1 << 1
export const IPS_ASSURED = 1 << 2
export const IPS_CONFIRMED = 1 << 3

// <linux/netfilter/nf_conntrack_tcp.h>: enum tcp_conntrack.
export const TCP_CONNTRACK_SYN_SENT = 1
/** struct nf_ct_tcp_flags: windows of this direction are not checked. */
export const IP_CT_TCP_FLAG_BE_LIBERAL = 0x08
export const TCP_CONNTRACK_SYN_RECV = 2
export const TCP_CONNTRACK_ESTABLISHED = 3
export const TCP_CONNTRACK_LAST_ACK = 6
export const TCP_CONNTRACK_CLOSE = 8

/** One direction of a connection. Addresses are 4 or 16 bytes; ports are 0 where the protocol has none. */
export interface ConntrackTuple {
  readonly family: 4 | 6
  /** IP protocol number: 6 TCP, 17 UDP. */
  readonly protocol: number
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourcePort: number
  readonly destinationPort: number
}

/** An entry of the connection tracking table. */
export interface Flow {
  /** As the first packet had it. */
  readonly original: ConntrackTuple
  /** As an answer has it: not the mirror of `original` where addresses were translated. */
  readonly reply: ConntrackTuple
  readonly mark: number
  /** IPS_* bits. */
  readonly status: number
  /** TCP_CONNTRACK_*; undefined for other protocols. */
  readonly tcpState: number | undefined
  /** Bytes of packets with their headers, where nf_conntrack_acct was on when the entry was made. */
  readonly bytes?: { readonly original: number; readonly reply: number }
  /** Nanoseconds since 1970, where nf_conntrack_timestamp was on. */
  readonly startedAtNanoseconds?: number
}

/** Dump filter: entries with (mark & mask) == mark. The kernel applies it. */
export interface MarkFilter {
  readonly mark: number
  readonly mask: number
}

/** <bits/socket.h>: nfgen_family of a tuple. */
const NFPROTO: Readonly<Record<4 | 6, number>> = { 4: 2, 6: 10 }

/** Data of the first attribute `type` in `[at, end)`, at least `bytes` long, as its offset; else -1. */
function dataOf(b: Uint8Array, at: number, end: number, type: number, bytes: number): number {
  const i = findAttribute(b, at, end, type)
  return i >= 0 && attributeBytes(b, i, end) >= NLA_HEADER_BYTES + bytes ? i + NLA_HEADER_BYTES : -1
}

function decodeTuple(b: Uint8Array, at: number, end: number): ConntrackTuple | undefined {
  const ip = findAttribute(b, at, end, CTA_TUPLE_IP)
  const proto = findAttribute(b, at, end, CTA_TUPLE_PROTO)
  if (ip < 0 || proto < 0) return undefined
  const ipEnd = ip + attributeBytes(b, ip, end)
  const protoEnd = proto + attributeBytes(b, proto, end)
  const number = dataOf(b, proto + NLA_HEADER_BYTES, protoEnd, CTA_PROTO_NUM, 1)
  const sourcePort = dataOf(b, proto + NLA_HEADER_BYTES, protoEnd, CTA_PROTO_SRC_PORT, 2)
  const destinationPort = dataOf(b, proto + NLA_HEADER_BYTES, protoEnd, CTA_PROTO_DST_PORT, 2)
  if (number < 0) return undefined
  const rest = {
    protocol: b[number] as number,
    sourcePort: sourcePort < 0 ? 0 : readU16BE(b, sourcePort),
    destinationPort: destinationPort < 0 ? 0 : readU16BE(b, destinationPort),
  }
  const ipAt = ip + NLA_HEADER_BYTES
  const source4 = dataOf(b, ipAt, ipEnd, CTA_IP_V4_SRC, 4)
  const destination4 = dataOf(b, ipAt, ipEnd, CTA_IP_V4_DST, 4)
  if (source4 >= 0 && destination4 >= 0) {
    const destination = b.slice(destination4, destination4 + 4)
    return { family: 4, source: b.slice(source4, source4 + 4), destination, ...rest }
  }
  const source6 = dataOf(b, ipAt, ipEnd, CTA_IP_V6_SRC, 16)
  const destination6 = dataOf(b, ipAt, ipEnd, CTA_IP_V6_DST, 16)
  if (source6 < 0 || destination6 < 0) return undefined
  const destination = b.slice(destination6, destination6 + 16)
  return { family: 6, source: b.slice(source6, source6 + 16), destination, ...rest }
}

function decodeTcpState(b: Uint8Array, at: number, end: number): number | undefined {
  const tcp = findAttribute(b, at, end, CTA_PROTOINFO_TCP)
  if (tcp < 0) return undefined
  const state = dataOf(b, tcp + NLA_HEADER_BYTES, tcp + attributeBytes(b, tcp, end), CTA_PROTOINFO_TCP_STATE, 1)
  return state < 0 ? undefined : (b[state] as number)
}

/** The 64-bit number of attribute `type` within the attribute at `at`, or undefined. */
function decodeU64(b: Uint8Array, at: number, end: number, type: number): number | undefined {
  const data = dataOf(b, at, end, type, 8)
  return data < 0 ? undefined : readU32BE(b, data) * 2 ** 32 + readU32BE(b, data + 4)
}

/** The connection in the message at `at`, or undefined where it is none or lacks a tuple. */
export function decodeFlow(b: Uint8Array, at: number, end: number): Flow | undefined {
  const bytes = messageBytes(b, at, end)
  if (bytes < NLMSG_HEADER_BYTES + NFGEN_HEADER_BYTES) return undefined
  if (messageType(b, at) !== ((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW)) return undefined
  const messageEnd = at + bytes
  let original: ConntrackTuple | undefined
  let reply: ConntrackTuple | undefined
  let mark = 0
  let status = 0
  let tcpState: number | undefined
  let originalBytes: number | undefined
  let replyBytes: number | undefined
  let startedAtNanoseconds: number | undefined
  let i = at + NLMSG_HEADER_BYTES + NFGEN_HEADER_BYTES
  for (; attributeBytes(b, i, messageEnd) !== 0; i = nextAttribute(b, i, messageEnd)) {
    const data = i + NLA_HEADER_BYTES
    const dataEnd = i + attributeBytes(b, i, messageEnd)
    const type = attributeType(b, i)
    if (type === CTA_TUPLE_ORIG) original = decodeTuple(b, data, dataEnd)
    else if (type === CTA_TUPLE_REPLY) reply = decodeTuple(b, data, dataEnd)
    else if (type === CTA_PROTOINFO) tcpState = decodeTcpState(b, data, dataEnd)
    else if (type === CTA_MARK && dataEnd - data >= 4) mark = readU32BE(b, data)
    else if (type === CTA_STATUS && dataEnd - data >= 4) status = readU32BE(b, data)
    else if (type === CTA_COUNTERS_ORIG) originalBytes = decodeU64(b, data, dataEnd, CTA_COUNTERS_BYTES)
    else if (type === CTA_COUNTERS_REPLY) replyBytes = decodeU64(b, data, dataEnd, CTA_COUNTERS_BYTES)
    else if (type === CTA_TIMESTAMP) startedAtNanoseconds = decodeU64(b, data, dataEnd, CTA_TIMESTAMP_START)
  }
  if (original === undefined || reply === undefined) return undefined
  return {
    original,
    reply,
    mark,
    status,
    tcpState,
    ...(originalBytes !== undefined &&
      replyBytes !== undefined && { bytes: { original: originalBytes, reply: replyBytes } }),
    ...(startedAtNanoseconds !== undefined && { startedAtNanoseconds }),
  }
}

/** The nested attribute (CTA_TUPLE_ORIG or CTA_TUPLE_REPLY) for a tuple. */
export function encodeTuple(type: number, tuple: ConntrackTuple): Attribute {
  const v4 = tuple.family === 4
  return {
    type,
    data: [
      {
        type: CTA_TUPLE_IP,
        data: [
          { type: v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, data: tuple.source },
          { type: v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, data: tuple.destination },
        ],
      },
      {
        type: CTA_TUPLE_PROTO,
        data: [
          { type: CTA_PROTO_NUM, data: new Uint8Array([tuple.protocol]) },
          { type: CTA_PROTO_SRC_PORT, data: u16BE(tuple.sourcePort) },
          { type: CTA_PROTO_DST_PORT, data: u16BE(tuple.destinationPort) },
        ],
      },
    ],
  }
}

/** struct nfgenmsg { __u8 nfgen_family; __u8 version; __be16 res_id; }: family 0 means every family. */
function nfgen(family: number): Uint8Array {
  return new Uint8Array([family, 0, 0, 0])
}

/** The request that lists the entries, all or those of a mark. */
export function encodeFlowDump(filter: MarkFilter | undefined): Request {
  return {
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET,
    flags: NLM_F_REQUEST | NLM_F_DUMP,
    body: nfgen(0),
    attributes:
      filter === undefined
        ? []
        : [
            { type: CTA_MARK, data: u32BE(filter.mark) },
            { type: CTA_MARK_MASK, data: u32BE(filter.mask) },
          ],
  }
}

/** The request that sets the bits of `mask` in an entry's mark to those of `mark`; without NLM_F_CREATE it makes none. */
export function encodeMarkUpdate(tuple: ConntrackTuple, mark: number, mask: number): Request {
  return {
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW,
    flags: NLM_F_REQUEST | NLM_F_ACK,
    body: nfgen(NFPROTO[tuple.family]),
    attributes: [
      encodeTuple(CTA_TUPLE_ORIG, tuple),
      { type: CTA_MARK, data: u32BE((mark & mask) >>> 0) },
      { type: CTA_MARK_MASK, data: u32BE(mask) },
    ],
  }
}

/**
 * The request that makes a TCP entry one whose SYN was just seen, its windows unchecked: those that it remembers are an
 * earlier connection's.
 */
export function encodeReopen(tuple: ConntrackTuple): Request {
  const liberal = new Uint8Array([IP_CT_TCP_FLAG_BE_LIBERAL, IP_CT_TCP_FLAG_BE_LIBERAL])
  const tcp = [
    { type: CTA_PROTOINFO_TCP_STATE, data: new Uint8Array([TCP_CONNTRACK_SYN_SENT]) },
    { type: CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, data: liberal },
    { type: CTA_PROTOINFO_TCP_FLAGS_REPLY, data: liberal },
  ]
  return {
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW,
    flags: NLM_F_REQUEST | NLM_F_ACK,
    body: nfgen(NFPROTO[tuple.family]),
    attributes: [
      encodeTuple(CTA_TUPLE_ORIG, tuple),
      { type: CTA_PROTOINFO, data: [{ type: CTA_PROTOINFO_TCP, data: tcp }] },
    ],
  }
}

/** The request that removes an entry. */
export function encodeFlowDelete(tuple: ConntrackTuple): Request {
  return {
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE,
    flags: NLM_F_REQUEST | NLM_F_ACK,
    body: nfgen(NFPROTO[tuple.family]),
    attributes: [encodeTuple(CTA_TUPLE_ORIG, tuple)],
  }
}
