/** A netlink socket: the border between the codecs of this folder and the kernel. Tests put a fake kernel behind it. */

import { readU32, writeU16 } from './bytes.ts'
import type { DatagramBatch } from './datagram-batch.ts'
import { NetlinkError } from './errors.ts'
import * as libc from './libc.ts'

export const NETLINK_ROUTE = 0
export const NETLINK_SOCK_DIAG = 4
export const NETLINK_NETFILTER = 12
const SOL_NETLINK = 270
const NETLINK_NO_ENOBUFS = 5
const NETLINK_CAP_ACK = 10
/** <linux/sock_diag.h>: SK_MEMINFO_DROPS is the ninth number of SO_MEMINFO. */
const SK_MEMINFO_DROPS = 8

/** What the sockets of this folder need of a kernel. `send` and `receive` return -errno on failure and never throw. */
export interface Transport {
  /** The file descriptor, good in every thread of the process; -1 where there is none. */
  readonly fd: number
  /** The address that the kernel gave the socket: nlmsg_pid of what it sends us. */
  readonly portId: number
  send(buffer: Uint8Array, bytes: number): number
  /** One datagram; blocks up to the receive timeout (then -EAGAIN). */
  receive(buffer: Uint8Array): number
  /** All datagrams that wait, as many as `batch` holds, and how many; blocks as `receive` for the first. */
  receiveBatch(batch: DatagramBatch): number
  /** Datagrams that the kernel dropped since the socket was opened because its receive buffer was full. */
  drops(): number
  close(): void
}

export interface TransportOptions {
  /** Size of the socket's receive buffer. */
  readonly receiveBufferBytes: number
  /** How long `receive` blocks. */
  readonly receiveTimeoutMilliseconds: number
}

/** struct timeval { time_t tv_sec; suseconds_t tv_usec; } as on 64-bit machines. */
function encodeTimeval(milliseconds: number): Uint8Array {
  const value = new DataView(new ArrayBuffer(16))
  value.setBigInt64(0, BigInt(Math.floor(milliseconds / 1000)), true)
  value.setBigInt64(8, BigInt(Math.round(milliseconds % 1000) * 1000), true)
  return new Uint8Array(value.buffer)
}

/**
 * Opens a netlink socket of a protocol (NETLINK_NETFILTER, ...).
 *
 * NETLINK_NO_ENOBUFS is on: without it one overflow makes the kernel refuse everything until the buffer is empty, and
 * so drops more. What is lost is still counted, in the socket's drop counter, which needs no privilege to read.
 * NETLINK_CAP_ACK is on: an error answer carries the request's header, not the whole packet of a failed verdict.
 *
 * Throws NetlinkError `netlink-socket`.
 */
export function openNetlinkTransport(protocol: number, options: TransportOptions): Transport {
  const fd = libc.socket(libc.AF_NETLINK, libc.SOCK_RAW | libc.SOCK_CLOEXEC, protocol)
  if (fd < 0) throw new NetlinkError('netlink-socket', `socket(AF_NETLINK, ${protocol}) failed`, fd)
  const fail = (call: string, errno: number): never => {
    libc.close(fd)
    throw new NetlinkError('netlink-socket', `${call} on a netlink socket of protocol ${protocol} failed`, errno)
  }
  // struct sockaddr_nl { nl_family; nl_pad; nl_pid; nl_groups }: nl_pid 0 lets the kernel choose.
  const address = new Uint8Array(12)
  writeU16(address, 0, libc.AF_NETLINK)
  const bound = libc.bind(fd, address)
  if (bound < 0) fail('bind', bound)
  const named = libc.getSocketName(fd, address)
  if (named < 0) fail('getsockname', named)
  // The forced size passes net.core.rmem_max and needs CAP_NET_ADMIN; without it the ordinary one has to do.
  if (libc.setSocketOptionInt(fd, libc.SOL_SOCKET, libc.SO_RCVBUFFORCE, options.receiveBufferBytes) < 0) {
    libc.setSocketOptionInt(fd, libc.SOL_SOCKET, libc.SO_RCVBUF, options.receiveBufferBytes)
  }
  const timeout = encodeTimeval(options.receiveTimeoutMilliseconds)
  const timed = libc.setSocketOption(fd, libc.SOL_SOCKET, libc.SO_RCVTIMEO, timeout)
  if (timed < 0) fail('setsockopt(SO_RCVTIMEO)', timed)
  const quiet = libc.setSocketOptionInt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
  if (quiet < 0) fail('setsockopt(NETLINK_NO_ENOBUFS)', quiet)
  const capped = libc.setSocketOptionInt(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1)
  if (capped < 0) fail('setsockopt(NETLINK_CAP_ACK)', capped)

  let open = true
  const memoryInfo = new Uint8Array(4 * 16)
  return {
    fd,
    portId: readU32(address, 4),
    send: (buffer, bytes) => libc.send(fd, buffer, bytes, 0),
    receive: (buffer) => libc.receive(fd, buffer, 0),
    receiveBatch: (batch) => libc.receiveMany(fd, batch.headers, batch.capacity, libc.MSG_WAITFORONE),
    drops() {
      const bytes = libc.getSocketOption(fd, libc.SOL_SOCKET, libc.SO_MEMINFO, memoryInfo)
      return bytes >= (SK_MEMINFO_DROPS + 1) * 4 ? readU32(memoryInfo, SK_MEMINFO_DROPS * 4) : 0
    },
    close() {
      if (open) libc.close(fd)
      open = false
    },
  }
}
