/** The sockets of this network namespace: finding, listing, destroying them. NETLINK_SOCK_DIAG, sock_diag(7). */

import { NetlinkError } from './errors.ts'
import {
  type DiagnosedSocket,
  decodeSocket,
  encodeSocketDestroy,
  encodeSocketDump,
  encodeSocketLookUp,
  type SocketTuple,
  TCP_LISTEN,
  TCP_SYN_RECV,
  TCP_TIME_WAIT,
} from './inet-diag.ts'
import { ENOENT, EOPNOTSUPP, ESTALE } from './libc.ts'
import { dumpAll, openRequester } from './request.ts'
import { NETLINK_SOCK_DIAG, type Transport } from './transport.ts'

const IPPROTO_TCP = 6
/** Connections: every state but listening, SYN_RECV (no socket yet) and TIME_WAIT (none any more). */
const CONNECTED_STATES = 0xffff & ~((1 << TCP_LISTEN) | (1 << TCP_SYN_RECV) | (1 << TCP_TIME_WAIT))

export interface SockDiag {
  /** The socket of exactly this connection, in whatever state, or undefined. Never a listener. Throws NetlinkError. */
  findSocket(tuple: SocketTuple): DiagnosedSocket | undefined
  /** The TCP socket that listens on a port, of either family, or undefined. Throws NetlinkError. */
  findListener(port: number): DiagnosedSocket | undefined
  /**
   * Destroys the socket of exactly this connection (both ends learn of it at once): true where it was there, false
   * where not, `unsupported` where the kernel has no CONFIG_INET_DIAG_DESTROY. Throws NetlinkError: CAP_NET_ADMIN.
   */
  destroySocket(tuple: SocketTuple): boolean | 'unsupported'
  /** The TCP connections of this namespace; `info` adds the byte counts. Throws NetlinkError. */
  listConnections(info: boolean): DiagnosedSocket[]
  close(): void
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}

/** Opens a socket to sock_diag. A test gives its own `transport`. Throws NetlinkError `netlink-socket`. */
export function openSockDiag(transport?: Transport): SockDiag {
  const requester = openRequester(NETLINK_SOCK_DIAG, transport)

  const findSocket = (tuple: SocketTuple): DiagnosedSocket | undefined => {
    let found: DiagnosedSocket | undefined
    const errno = requester.lookUp(encodeSocketLookUp(tuple), (buffer, at, end) => {
      found = decodeSocket(buffer, at, end, tuple.protocol)
    })
    if (errno === -ENOENT) return undefined
    if (errno !== 0) throw new NetlinkError('netlink-request', 'cannot look up a socket', errno)
    // The kernel looks the socket up as for a packet: where the connection has none, a listener answers.
    const exact =
      found !== undefined &&
      found.localPort === tuple.localPort &&
      found.remotePort === tuple.remotePort &&
      sameBytes(found.local, tuple.local) &&
      sameBytes(found.remote, tuple.remote)
    return exact && found?.state !== TCP_LISTEN ? found : undefined
  }

  const list = (states: number, localPort: number, info: boolean): DiagnosedSocket[] => {
    const sockets: DiagnosedSocket[] = []
    for (const family of [4, 6] as const) {
      const kept = sockets.length
      const onMessage = (buffer: Uint8Array, at: number, end: number): void => {
        const socket = decodeSocket(buffer, at, end, IPPROTO_TCP)
        if (socket !== undefined) sockets.push(socket)
      }
      dumpAll(
        requester,
        'the TCP sockets',
        encodeSocketDump(family, IPPROTO_TCP, states, localPort, info),
        onMessage,
        () => {
          sockets.length = kept
        },
      )
    }
    return sockets
  }

  return {
    findSocket,
    findListener: (port) => list(1 << TCP_LISTEN, port, false).find((socket) => socket.localPort === port),
    destroySocket(tuple) {
      // By its cookie: a request by addresses alone would destroy the listener where the connection is gone.
      const socket = findSocket(tuple)
      if (socket === undefined) return false
      const errno = requester.requestAll([encodeSocketDestroy(tuple, socket.cookie)])[0] ?? 0
      if (errno === 0) return true
      if (errno === -ENOENT || errno === -ESTALE) return false
      if (errno === -EOPNOTSUPP) return 'unsupported'
      throw new NetlinkError('netlink-request', 'cannot destroy a socket: it needs CAP_NET_ADMIN', errno)
    },
    listConnections: (info) => list(CONNECTED_STATES, 0, info),
    close: () => requester.close(),
  }
}
