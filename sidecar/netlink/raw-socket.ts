/** Sends whole IP packets that the sidecar made itself. raw(7); IPv6: ipv6(7), IPV6_HDRINCL (Linux 4.5). */

import { writeU16 } from './bytes.ts'
import { NetlinkError } from './errors.ts'
import * as libc from './libc.ts'

const IPPROTO_IP = 0
const IPPROTO_IPV6 = 41
const IPPROTO_RAW = 255
const IP_HDRINCL = 3
const IPV6_HDRINCL = 36

export interface RawSocket {
  readonly fd: number
  /**
   * Sends `packet[0, bytes)`, an IP packet with its header and checksums. `destination` (4 or 16 bytes) only chooses
   * the route; `interfaceIndex` is needed for a link-local IPv6 address. Returns the bytes sent or -errno; never blocks
   * (-EAGAIN, -ENOBUFS: the packet is lost, as on any network) and never throws.
   */
  send(packet: Uint8Array, bytes: number, destination: Uint8Array, interfaceIndex?: number): number
  close(): void
}

/**
 * Opens a raw socket for IP version `family` whose packets carry the fwmark `mark`. It needs CAP_NET_RAW.
 * IPPROTO_RAW receives nothing that other protocols send. Throws NetlinkError `netlink-socket`.
 */
export function openRawSocket(family: 4 | 6, mark: number): RawSocket {
  const v4 = family === 4
  const domain = v4 ? libc.AF_INET : libc.AF_INET6
  const fd = libc.socket(domain, libc.SOCK_RAW | libc.SOCK_CLOEXEC | libc.SOCK_NONBLOCK, IPPROTO_RAW)
  if (fd < 0)
    throw new NetlinkError('netlink-socket', `cannot open a raw IPv${family} socket: it needs CAP_NET_RAW`, fd)
  const set = (level: number, name: number, value: number, what: string): void => {
    const result = libc.setSocketOptionInt(fd, level, name, value)
    if (result >= 0) return
    libc.close(fd)
    throw new NetlinkError('netlink-socket', `setsockopt(${what}) on a raw socket failed`, result)
  }
  if (v4) set(IPPROTO_IP, IP_HDRINCL, 1, 'IP_HDRINCL')
  else set(IPPROTO_IPV6, IPV6_HDRINCL, 1, 'IPV6_HDRINCL')
  set(libc.SOL_SOCKET, libc.SO_MARK, mark, 'SO_MARK')

  // struct sockaddr_in { family, port, addr, zero[8] }; struct sockaddr_in6 { family, port, flowinfo, addr, scope_id }
  const address = new Uint8Array(v4 ? 16 : 28)
  const view = new DataView(address.buffer)
  writeU16(address, 0, domain)
  const addressAt = v4 ? 4 : 8
  const addressBytes = v4 ? 4 : 16
  let open = true
  return {
    fd,
    send(packet, bytes, destination, interfaceIndex = 0) {
      for (let i = 0; i < addressBytes; i++) address[addressAt + i] = destination[i] ?? 0
      if (!v4) view.setUint32(24, interfaceIndex, true)
      return libc.sendTo(fd, packet, bytes, 0, address)
    },
    close() {
      if (open) libc.close(fd)
      open = false
    },
  }
}
