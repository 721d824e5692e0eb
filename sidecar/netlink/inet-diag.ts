/** Sockets as sock_diag tells them, <linux/inet_diag.h> and <linux/sock_diag.h>. Pure. */

import { readU16BE, readU32, writeU16BE, writeU32 } from './bytes.ts'
import { AF_INET, AF_INET6 } from './libc.ts'
import {
  attributeBytes,
  findAttribute,
  messageBytes,
  messageType,
  NLA_HEADER_BYTES,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSG_HEADER_BYTES,
} from './message.ts'
import type { Request } from './request.ts'

const SOCK_DIAG_BY_FAMILY = 20
const SOCK_DESTROY = 21
const INET_DIAG_INFO = 2

// <net/tcp_states.h>
export const TCP_ESTABLISHED = 1
export const TCP_SYN_SENT = 2
export const TCP_SYN_RECV = 3
export const TCP_TIME_WAIT = 6
export const TCP_CLOSE = 7
export const TCP_LISTEN = 10
export const ALL_STATES = 0xffffffff

/** struct inet_diag_req_v2: family, protocol, ext, pad, states, and inet_diag_sockid of 48 bytes. */
const REQUEST_BYTES = 56
/** struct inet_diag_msg: four bytes, inet_diag_sockid, expires, rqueue, wqueue, uid, inode. */
const ANSWER_BYTES = 72
/** struct tcp_info, <linux/tcp.h>: __u64 tcpi_bytes_acked and tcpi_bytes_received. */
const TCPI_BYTES_ACKED = 120
const TCPI_BYTES_RECEIVED = 128
/** INET_DIAG_NOCOOKIE: any socket. */
const NO_COOKIE = new Uint8Array(8).fill(0xff)

/** Which socket: its own end and the other. Addresses are 4 or 16 bytes, all zero for "not connected". */
export interface SocketTuple {
  readonly family: 4 | 6
  /** IP protocol number. */
  readonly protocol: number
  readonly local: Uint8Array
  readonly localPort: number
  readonly remote: Uint8Array
  readonly remotePort: number
}

/** A socket of this network namespace. An IPv4 connection of a dual-stack socket appears with family 4. */
export interface DiagnosedSocket extends SocketTuple {
  /** TCP_*; for UDP TCP_ESTABLISHED or TCP_CLOSE. */
  readonly state: number
  readonly uid: number
  /** 0 for a socket without a file: in TIME_WAIT, in SYN_RECV, or closed by its process. */
  readonly inode: number
  /** The kernel's 64-bit name of this very socket, 8 bytes. */
  readonly cookie: Uint8Array
  /** From tcp_info where it was asked for: payload bytes that the peer acknowledged, and received ones. */
  readonly bytesAcknowledged: number | undefined
  readonly bytesReceived: number | undefined
}

/** AF_INET or AF_INET6 of an IP version. */
export function addressFamily(family: 4 | 6): number {
  return family === 4 ? AF_INET : AF_INET6
}

/** struct inet_diag_sockid { sport, dport, src[4], dst[4], if, cookie[2] } in a request's body. */
function encodeBody(tuple: SocketTuple, states: number, info: boolean, cookie: Uint8Array): Uint8Array {
  const body = new Uint8Array(REQUEST_BYTES)
  body[0] = addressFamily(tuple.family)
  body[1] = tuple.protocol
  body[2] = info ? 1 << (INET_DIAG_INFO - 1) : 0
  writeU32(body, 4, states)
  writeU16BE(body, 8, tuple.localPort)
  writeU16BE(body, 10, tuple.remotePort)
  body.set(tuple.local.subarray(0, 16), 12)
  body.set(tuple.remote.subarray(0, 16), 28)
  body.set(cookie.subarray(0, 8), 48)
  return body
}

/** The request for the one socket that would receive a packet of this connection; a listener may answer it. */
export function encodeSocketLookUp(tuple: SocketTuple): Request {
  const body = encodeBody(tuple, ALL_STATES, false, NO_COOKIE)
  return { type: SOCK_DIAG_BY_FAMILY, flags: NLM_F_REQUEST, body, attributes: [] }
}

/** The request that destroys a socket; the cookie names that socket and none that took its place. */
export function encodeSocketDestroy(tuple: SocketTuple, cookie: Uint8Array): Request {
  const body = encodeBody(tuple, ALL_STATES, false, cookie)
  return { type: SOCK_DESTROY, flags: NLM_F_REQUEST | NLM_F_ACK, body, attributes: [] }
}

/** The request that lists sockets in the given states (bits 1 << TCP_*), of a local port where it is not 0. */
export function encodeSocketDump(
  family: 4 | 6,
  protocol: number,
  states: number,
  localPort: number,
  info: boolean,
): Request {
  const none = new Uint8Array(16)
  const tuple = { family, protocol, local: none, localPort, remote: none, remotePort: 0 }
  const body = encodeBody(tuple, states, info, NO_COOKIE)
  return { type: SOCK_DIAG_BY_FAMILY, flags: NLM_F_REQUEST | NLM_F_DUMP, body, attributes: [] }
}

/** Whether 16 bytes are ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). */
function isMapped(b: Uint8Array, at: number): boolean {
  for (let i = 0; i < 10; i++) if (b[at + i] !== 0) return false
  return b[at + 10] === 0xff && b[at + 11] === 0xff
}

function readU64(b: Uint8Array, at: number): number {
  return readU32(b, at) + readU32(b, at + 4) * 2 ** 32
}

/** The socket in the message at `at`, or undefined where it is none. `protocol` is the one that was asked for. */
export function decodeSocket(b: Uint8Array, at: number, end: number, protocol: number): DiagnosedSocket | undefined {
  const bytes = messageBytes(b, at, end)
  if (bytes < NLMSG_HEADER_BYTES + ANSWER_BYTES || messageType(b, at) !== SOCK_DIAG_BY_FAMILY) return undefined
  const body = at + NLMSG_HEADER_BYTES
  const messageEnd = at + bytes
  const af = b[body]
  if (af !== AF_INET && af !== AF_INET6) return undefined
  const mapped = af === AF_INET6 && isMapped(b, body + 8) && isMapped(b, body + 24)
  const localAt = body + 8 + (mapped ? 12 : 0)
  const remoteAt = body + 24 + (mapped ? 12 : 0)
  const addressBytes = af === AF_INET || mapped ? 4 : 16
  const info = findAttribute(b, body + ANSWER_BYTES, messageEnd, INET_DIAG_INFO)
  const infoBytes = info < 0 ? 0 : attributeBytes(b, info, messageEnd) - NLA_HEADER_BYTES
  const hasBytes = infoBytes >= TCPI_BYTES_RECEIVED + 8
  return {
    family: addressBytes === 4 ? 4 : 6,
    protocol,
    state: b[body + 1] as number,
    localPort: readU16BE(b, body + 4),
    remotePort: readU16BE(b, body + 6),
    local: b.slice(localAt, localAt + addressBytes),
    remote: b.slice(remoteAt, remoteAt + addressBytes),
    cookie: b.slice(body + 44, body + 52),
    uid: readU32(b, body + 64),
    inode: readU32(b, body + 68),
    bytesAcknowledged: hasBytes ? readU64(b, info + NLA_HEADER_BYTES + TCPI_BYTES_ACKED) : undefined,
    bytesReceived: hasBytes ? readU64(b, info + NLA_HEADER_BYTES + TCPI_BYTES_RECEIVED) : undefined,
  }
}
