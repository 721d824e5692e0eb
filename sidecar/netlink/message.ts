/**
 * Netlink messages and attributes.
 *
 * <linux/netlink.h>:
 *   struct nlmsghdr { __u32 nlmsg_len; __u16 nlmsg_type; __u16 nlmsg_flags; __u32 nlmsg_seq; __u32 nlmsg_pid; };
 *   struct nlattr   { __u16 nla_len; __u16 nla_type; };
 *   #define NLMSG_ALIGN(len) ( ((len)+NLMSG_ALIGNTO-1) & ~(NLMSG_ALIGNTO-1) )      (NLMSG_ALIGNTO and NLA_ALIGNTO: 4)
 *   NLA_F_NESTED (1 << 15), NLA_F_NET_BYTEORDER (1 << 14), NLA_TYPE_MASK the rest
 *
 * The cursors (`messageBytes`, `nextMessage`, `attributeBytes`, `nextAttribute`) allocate nothing and never look past
 * the end that they are given; a length that does not fit ends the iteration.
 */

import { readU16, readU32, writeU16, writeU32 } from './bytes.ts'
import { NetlinkError } from './errors.ts'

export const NLMSG_HEADER_BYTES = 16
export const NLA_HEADER_BYTES = 4
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
export const NLM_F_REQUEST = 0x01
export const NLM_F_MULTI = 0x02
export const NLM_F_ACK = 0x04
export const NLM_F_DUMP_INTR = 0x10
export const NLM_F_DUMP = 0x300
export const NLA_F_NESTED = 0x8000
export const NLA_TYPE_MASK = 0x3fff
/** nla_len is 16 bits and counts its own header. */
export const NLA_DATA_MAXIMUM = 0xffff - NLA_HEADER_BYTES

// <linux/netfilter/nfnetlink.h>: struct nfgenmsg { __u8 nfgen_family; __u8 version; __be16 res_id; };
export const NFGEN_HEADER_BYTES = 4

/** NLMSG_ALIGN and NLA_ALIGN: the next multiple of 4. */
export function align4(bytes: number): number {
  return (bytes + 3) & ~3
}

/** nlmsg_len of the message at `at`, or 0 where no whole message lies within `[at, end)`. */
export function messageBytes(buffer: Uint8Array, at: number, end: number): number {
  if (at < 0 || end > buffer.length || end - at < NLMSG_HEADER_BYTES) return 0
  const bytes = readU32(buffer, at)
  return bytes >= NLMSG_HEADER_BYTES && bytes <= end - at ? bytes : 0
}

/** Where the message after the one at `at` begins; `end` after the last and after one that does not fit. */
export function nextMessage(buffer: Uint8Array, at: number, end: number): number {
  const bytes = messageBytes(buffer, at, end)
  if (bytes === 0) return end
  const next = at + align4(bytes)
  return Math.min(next, end)
}

/** nlmsg_type. The caller has checked `messageBytes`, as for the three below. */
export function messageType(buffer: Uint8Array, at: number): number {
  return readU16(buffer, at + 4)
}

/** nlmsg_flags. */
export function messageFlags(buffer: Uint8Array, at: number): number {
  return readU16(buffer, at + 6)
}

/** nlmsg_seq. */
export function messageSequence(buffer: Uint8Array, at: number): number {
  return readU32(buffer, at + 8)
}

/**
 * The errno in an NLMSG_ERROR or NLMSG_DONE message: 0 for an acknowledgement, else negative; undefined where the
 * message at `at` is of another type or too short.
 */
export function acknowledgedErrno(buffer: Uint8Array, at: number, end: number): number | undefined {
  const bytes = messageBytes(buffer, at, end)
  if (bytes === 0) return undefined
  const type = messageType(buffer, at)
  if (type === NLMSG_DONE && bytes < NLMSG_HEADER_BYTES + 4) return 0
  if ((type !== NLMSG_ERROR && type !== NLMSG_DONE) || bytes < NLMSG_HEADER_BYTES + 4) return undefined
  return readU32(buffer, at + NLMSG_HEADER_BYTES) | 0
}

/** nla_len of the attribute at `at`, its header included, or 0 where no whole attribute lies within `[at, end)`. */
export function attributeBytes(buffer: Uint8Array, at: number, end: number): number {
  if (at < 0 || end > buffer.length || end - at < NLA_HEADER_BYTES) return 0
  const bytes = readU16(buffer, at)
  return bytes >= NLA_HEADER_BYTES && bytes <= end - at ? bytes : 0
}

/** nla_type without its flag bits. */
export function attributeType(buffer: Uint8Array, at: number): number {
  return readU16(buffer, at + 2) & NLA_TYPE_MASK
}

/** Where the attribute after the one at `at` begins; `end` after the last and after one that does not fit. */
export function nextAttribute(buffer: Uint8Array, at: number, end: number): number {
  const bytes = attributeBytes(buffer, at, end)
  if (bytes === 0) return end
  const next = at + align4(bytes)
  return Math.min(next, end)
}

/** Where the first attribute of `type` within `[at, end)` begins, or -1. */
export function findAttribute(buffer: Uint8Array, at: number, end: number, type: number): number {
  for (let i = at; attributeBytes(buffer, i, end) !== 0; i = nextAttribute(buffer, i, end)) {
    if (attributeType(buffer, i) === type) return i
  }
  return -1
}

/** An attribute as a value: bytes, or nested attributes (then NLA_F_NESTED is set in the message). */
export interface Attribute {
  readonly type: number
  readonly data: Uint8Array | readonly Attribute[]
}

/** A message as a value: `body` is the family's fixed header (nfgenmsg, rtmsg, inet_diag_req_v2), of 4n bytes. */
export interface Message {
  readonly type: number
  readonly flags: number
  readonly sequence: number
  readonly portId: number
  readonly body: Uint8Array
  readonly attributes: readonly Attribute[]
}

function attributesBytes(attributes: readonly Attribute[]): number {
  let bytes = 0
  for (const { data } of attributes) {
    bytes += NLA_HEADER_BYTES + (data instanceof Uint8Array ? align4(data.length) : attributesBytes(data))
  }
  return bytes
}

function writeAttributes(out: Uint8Array, offset: number, attributes: readonly Attribute[]): number {
  let at = offset
  for (const { type, data } of attributes) {
    const nested = !(data instanceof Uint8Array)
    const bytes = nested ? attributesBytes(data) : data.length
    if (bytes > NLA_DATA_MAXIMUM) {
      throw new NetlinkError(
        'netlink-argument',
        `attribute ${type} has ${bytes} bytes; at most ${NLA_DATA_MAXIMUM} fit`,
      )
    }
    writeU16(out, at, NLA_HEADER_BYTES + bytes)
    writeU16(out, at + 2, nested ? type | NLA_F_NESTED : type)
    at += NLA_HEADER_BYTES
    if (nested) at = writeAttributes(out, at, data)
    else {
      out.set(data, at)
      at += align4(bytes)
    }
  }
  return at
}

/** The bytes of a message, its length aligned to 4. Throws NetlinkError `netlink-argument` for an attribute too long. */
export function encodeMessage(message: Message): Uint8Array<ArrayBuffer> {
  const bytes = NLMSG_HEADER_BYTES + align4(message.body.length) + attributesBytes(message.attributes)
  const out = new Uint8Array(bytes)
  writeU32(out, 0, bytes)
  writeU16(out, 4, message.type)
  writeU16(out, 6, message.flags)
  writeU32(out, 8, message.sequence)
  writeU32(out, 12, message.portId)
  out.set(message.body, NLMSG_HEADER_BYTES)
  writeAttributes(out, NLMSG_HEADER_BYTES + align4(message.body.length), message.attributes)
  return out
}

/** How deep `decodeMessage` follows nested attributes; conntrack needs three. */
const NESTING_MAXIMUM = 8

function readAttributes(buffer: Uint8Array, at: number, end: number, depth: number): Attribute[] {
  const attributes: Attribute[] = []
  for (let i = at; attributeBytes(buffer, i, end) !== 0; i = nextAttribute(buffer, i, end)) {
    const dataEnd = i + attributeBytes(buffer, i, end)
    const nested = (readU16(buffer, i + 2) & NLA_F_NESTED) !== 0 && depth < NESTING_MAXIMUM
    attributes.push({
      type: attributeType(buffer, i),
      data: nested
        ? readAttributes(buffer, i + NLA_HEADER_BYTES, dataEnd, depth + 1)
        : buffer.slice(i + NLA_HEADER_BYTES, dataEnd),
    })
  }
  return attributes
}

/**
 * The message at `at` as a value of copied bytes, or undefined where it does not fit. `bodyBytes` is the size of its
 * family's fixed header. Off the packet path only: it allocates.
 */
export function decodeMessage(buffer: Uint8Array, at: number, end: number, bodyBytes: number): Message | undefined {
  const bytes = messageBytes(buffer, at, end)
  if (bytes < NLMSG_HEADER_BYTES + bodyBytes || bytes === 0) return undefined
  const bodyAt = at + NLMSG_HEADER_BYTES
  return {
    type: messageType(buffer, at),
    flags: messageFlags(buffer, at),
    sequence: messageSequence(buffer, at),
    portId: readU32(buffer, at + 12),
    body: buffer.slice(bodyAt, bodyAt + bodyBytes),
    attributes: readAttributes(buffer, bodyAt + align4(bodyBytes), at + bytes, 0),
  }
}
