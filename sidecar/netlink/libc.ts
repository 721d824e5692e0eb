/**
 * The few calls of libc that Node has no name for. Each returns what the call returns, or -errno where it failed:
 * nothing here throws and nothing repeats a call, EINTR included.
 *
 * The library is the process itself (node links libc), so that the name of the C library does not matter.
 */

import { constants } from 'node:os'
import koffi from 'koffi'

const { errno: ERRNO } = constants
export const EPERM = ERRNO.EPERM
export const ENOENT = ERRNO.ENOENT
export const EINTR = ERRNO.EINTR
export const EAGAIN = ERRNO.EAGAIN
export const ENOBUFS = ERRNO.ENOBUFS
export const EOPNOTSUPP = ERRNO.EOPNOTSUPP
/** Node's table lacks it; the same number on every Linux that Node runs on. */
export const ESTALE = 116

// <bits/socket.h>, <asm-generic/socket.h>; the same numbers on x86-64 and arm64.
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const SOCK_RAW = 3
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_RCVTIMEO = 20
export const SO_RCVBUFFORCE = 33
export const SO_MARK = 36
export const SO_MEMINFO = 55
export const MSG_WAITFORONE = 0x10000
/** <bits/mman-linux.h> */
const MADV_DONTNEED = 4

const libc = koffi.load(null)
const cSocket = libc.func('int socket(int, int, int)') as unknown as (d: number, t: number, p: number) => number
const cBind = libc.func('int bind(int, const uint8_t*, uint32_t)') as unknown as (
  fd: number,
  address: Uint8Array,
  bytes: number,
) => number
const cSetsockopt = libc.func('int setsockopt(int, int, int, const uint8_t*, uint32_t)') as unknown as (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  bytes: number,
) => number
const cGetsockopt = libc.func('int getsockopt(int, int, int, uint8_t*, uint8_t*)') as unknown as (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  bytes: Uint8Array,
) => number
const cGetsockname = libc.func('int getsockname(int, uint8_t*, uint8_t*)') as unknown as (
  fd: number,
  address: Uint8Array,
  bytes: Uint8Array,
) => number
const cSend = libc.func('intptr_t send(int, const uint8_t*, uintptr_t, int)') as unknown as (
  fd: number,
  buffer: Uint8Array,
  bytes: number,
  flags: number,
) => number
const cRecv = libc.func('intptr_t recv(int, uint8_t*, uintptr_t, int)') as unknown as typeof cSend
const cSendto = libc.func(
  'intptr_t sendto(int, const uint8_t*, uintptr_t, int, const uint8_t*, uint32_t)',
) as unknown as (
  fd: number,
  buffer: Uint8Array,
  bytes: number,
  flags: number,
  address: Uint8Array,
  addressBytes: number,
) => number
const cRecvmmsg = libc.func('int recvmmsg(int, uint8_t*, uint32_t, int, void*)') as unknown as (
  fd: number,
  headers: Uint8Array,
  count: number,
  flags: number,
  timeout: null,
) => number
const cMadvise = libc.func('int madvise(uintptr_t, uintptr_t, int)') as unknown as (
  address: number,
  bytes: number,
  advice: number,
) => number
const cClose = libc.func('int close(int)') as unknown as (fd: number) => number

function orErrno(result: number): number {
  return result < 0 ? -koffi.errno() : result
}

/** socket(2): a file descriptor or -errno. */
export function socket(domain: number, type: number, protocol: number): number {
  return orErrno(cSocket(domain, type, protocol))
}

/** bind(2): 0 or -errno. `address` is a whole sockaddr. */
export function bind(fd: number, address: Uint8Array): number {
  return orErrno(cBind(fd, address, address.length))
}

/** setsockopt(2): 0 or -errno. */
export function setSocketOption(fd: number, level: number, name: number, value: Uint8Array): number {
  return orErrno(cSetsockopt(fd, level, name, value, value.length))
}

/** setsockopt(2) with an int: 0 or -errno. */
export function setSocketOptionInt(fd: number, level: number, name: number, value: number): number {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value | 0, true)
  return setSocketOption(fd, level, name, bytes)
}

const length = new Uint8Array(4)
const lengthView = new DataView(length.buffer)

/** getsockopt(2): the bytes written to `value`, or -errno. */
export function getSocketOption(fd: number, level: number, name: number, value: Uint8Array): number {
  lengthView.setUint32(0, value.length, true)
  const result = orErrno(cGetsockopt(fd, level, name, value, length))
  return result < 0 ? result : Math.min(lengthView.getUint32(0, true), value.length)
}

/** getsockname(2): the bytes written to `address`, or -errno. */
export function getSocketName(fd: number, address: Uint8Array): number {
  lengthView.setUint32(0, address.length, true)
  const result = orErrno(cGetsockname(fd, address, length))
  return result < 0 ? result : Math.min(lengthView.getUint32(0, true), address.length)
}

/** send(2) of `buffer[0, bytes)`: the bytes sent or -errno. `bytes` beyond the buffer are cut. */
export function send(fd: number, buffer: Uint8Array, bytes: number, flags: number): number {
  const result = cSend(fd, buffer, Math.min(bytes, buffer.length), flags)
  return result < 0 ? -koffi.errno() : result
}

/** recv(2) into the whole of `buffer`: the bytes received or -errno. */
export function receive(fd: number, buffer: Uint8Array, flags: number): number {
  const result = cRecv(fd, buffer, buffer.length, flags)
  return result < 0 ? -koffi.errno() : result
}

/** recvmmsg(2) into `count` struct mmsghdr: how many datagrams came, or -errno. */
export function receiveMany(fd: number, headers: Uint8Array, count: number, flags: number): number {
  const result = cRecvmmsg(fd, headers, count, flags, null)
  return result < 0 ? -koffi.errno() : result
}

/** sendto(2) of `buffer[0, bytes)`: the bytes sent or -errno. */
export function sendTo(fd: number, buffer: Uint8Array, bytes: number, flags: number, address: Uint8Array): number {
  const result = cSendto(fd, buffer, Math.min(bytes, buffer.length), flags, address, address.length)
  return result < 0 ? -koffi.errno() : result
}

/**
 * madvise(2) with MADV_DONTNEED: 0 or -errno. The next access reads a file's page anew, and finds zeros where there is no
 * file: only for what was never written.
 */
export function adviseUnneeded(address: number, bytes: number): number {
  return orErrno(cMadvise(address, bytes, MADV_DONTNEED))
}

/** close(2): 0 or -errno. */
export function close(fd: number): number {
  return orErrno(cClose(fd))
}
