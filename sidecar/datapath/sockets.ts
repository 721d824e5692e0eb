/** What the gate asks of this network namespace: sock_diag, this process's descriptors, and conntrack answer it. */
import { readdirSync, readlinkSync } from 'node:fs'
import { openConntrack } from '../netlink/conntrack.ts'
import { type SocketTuple, TCP_SYN_RECV, TCP_SYN_SENT, TCP_TIME_WAIT } from '../netlink/inet-diag.ts'
import { openSockDiag } from '../netlink/sock-diag.ts'
import { type Packet, PROTOCOL_TCP } from '../packet/decode.ts'
import type { Sockets } from './gate.ts'

/**
 * Opens sockets to sock_diag and conntrack. Ownership is a socket's inode among this process's descriptors: no user, group or mark
 * that a workload could take. A kernel that cannot answer means "no".
 */
export function openSockets(): Sockets {
  const diag = openSockDiag()
  const conntrack = openConntrack()
  let ownListenerPort: number | undefined

  function find(tuple: SocketTuple): ReturnType<typeof diag.findSocket> {
    try {
      return diag.findSocket(tuple)
    } catch {
      return undefined
    }
  }

  function listener(port: number): ReturnType<typeof diag.findListener> {
    try {
      return diag.findListener(port)
    } catch {
      return undefined
    }
  }

  return {
    isOwnConnection(bytes, packet) {
      const socket = find(tupleOf(bytes, packet, false))
      return socket !== undefined && isOwnInode(socket.inode)
    },
    isOwnListener(_family, port) {
      // Our listener lives as long as this process, and anybody may ask for it often.
      if (port === ownListenerPort) return true
      const socket = listener(port)
      const own = socket !== undefined && isOwnInode(socket.inode)
      if (own) ownListenerPort = port
      return own
    },
    isListening: (_family, port) => listener(port) !== undefined,
    reopenTracking(bytes, packet) {
      const { family, protocol, local, localPort, remote, remotePort } = tupleOf(bytes, packet, true)
      try {
        conntrack.reopen({
          family,
          protocol,
          source: remote,
          sourcePort: remotePort,
          destination: local,
          destinationPort: localPort,
        })
      } catch {
        // The connection then stalls until conntrack forgets the old one: as without this.
      }
    },
    isEstablished(bytes, packet, inbound) {
      const socket = find(tupleOf(bytes, packet, inbound))
      return (
        socket !== undefined &&
        socket.state !== TCP_SYN_SENT &&
        socket.state !== TCP_SYN_RECV &&
        socket.state !== TCP_TIME_WAIT
      )
    },
  }
}

function tupleOf(bytes: Buffer, packet: Packet, inbound: boolean): SocketTuple {
  const source = bytes.subarray(packet.sourceOffset, packet.sourceOffset + packet.addressBytes)
  const destination = bytes.subarray(packet.destinationOffset, packet.destinationOffset + packet.addressBytes)
  return {
    family: packet.family,
    protocol: PROTOCOL_TCP,
    local: inbound ? destination : source,
    localPort: inbound ? packet.destinationPort : packet.sourcePort,
    remote: inbound ? source : destination,
    remotePort: inbound ? packet.sourcePort : packet.destinationPort,
  }
}

function isOwnInode(inode: number): boolean {
  if (inode === 0) return false
  const name = `socket:[${inode}]`
  for (const descriptor of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${descriptor}`) === name) return true
    } catch {
      // Closed since the folder was read: not the one that is sending.
    }
  }
  return false
}
