/** Interfaces, addresses and default gateways of this network namespace. rtnetlink(7). */

import { readU32 } from './bytes.ts'
import { AF_INET, AF_INET6 } from './libc.ts'
import {
  attributeBytes,
  findAttribute,
  messageBytes,
  messageType,
  NLA_HEADER_BYTES,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSG_HEADER_BYTES,
} from './message.ts'
import { dumpAll, openRequester } from './request.ts'
import { NETLINK_ROUTE, type Transport } from './transport.ts'

const RTM_NEWLINK = 16
const RTM_GETLINK = 18
const RTM_NEWADDR = 20
const RTM_GETADDR = 22
const RTM_NEWROUTE = 24
const RTM_GETROUTE = 26
const IFINFOMSG_BYTES = 16
const IFADDRMSG_BYTES = 8
const RTMSG_BYTES = 12
const IFLA_IFNAME = 3
const IFLA_MTU = 4
const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const RTA_OIF = 4
const RTA_GATEWAY = 5
const RT_TABLE_MAIN = 254
const RTN_UNICAST = 1
const IFF_UP = 1 << 0
const IFF_LOOPBACK = 1 << 3

/** A network interface. */
export interface Link {
  readonly index: number
  readonly name: string
  readonly mtuBytes: number
  readonly up: boolean
  readonly loopback: boolean
}

/** An address of an interface, 4 or 16 bytes. */
export interface InterfaceAddress {
  readonly family: 4 | 6
  readonly interfaceIndex: number
  readonly address: Uint8Array
  readonly prefixLength: number
}

/** A default route of the main table. `gateway` is undefined where the destination is on the link. */
export interface DefaultRoute {
  readonly family: 4 | 6
  readonly interfaceIndex: number
  readonly gateway: Uint8Array | undefined
}

function familyOf(af: number | undefined): 4 | 6 | undefined {
  return af === AF_INET ? 4 : af === AF_INET6 ? 6 : undefined
}

/** A copy of the data of the first attribute `type`, or undefined. */
function dataOf(b: Uint8Array, at: number, end: number, type: number): Uint8Array | undefined {
  const i = findAttribute(b, at, end, type)
  return i < 0 ? undefined : b.slice(i + NLA_HEADER_BYTES, i + attributeBytes(b, i, end))
}

/** Where the message's body begins, or -1 where the message is of another type or too short. */
function bodyOf(b: Uint8Array, at: number, end: number, type: number, bodyBytes: number): number {
  const bytes = messageBytes(b, at, end)
  return bytes >= NLMSG_HEADER_BYTES + bodyBytes && messageType(b, at) === type ? at + NLMSG_HEADER_BYTES : -1
}

/** struct ifinfomsg { family, pad; __u16 type; int index; unsigned flags, change; } */
export function decodeLink(b: Uint8Array, at: number, end: number): Link | undefined {
  const body = bodyOf(b, at, end, RTM_NEWLINK, IFINFOMSG_BYTES)
  if (body < 0) return undefined
  const messageEnd = at + messageBytes(b, at, end)
  const name = dataOf(b, body + IFINFOMSG_BYTES, messageEnd, IFLA_IFNAME)
  const mtu = dataOf(b, body + IFINFOMSG_BYTES, messageEnd, IFLA_MTU)
  const flags = readU32(b, body + 8)
  return {
    index: readU32(b, body + 4),
    name: name === undefined ? '' : Buffer.from(name).toString('utf8').replace(/\0.*$/s, ''),
    mtuBytes: mtu === undefined || mtu.length < 4 ? 0 : readU32(mtu, 0),
    up: (flags & IFF_UP) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
  }
}

/** struct ifaddrmsg { family, prefixlen, flags, scope; __u32 index; } */
export function decodeInterfaceAddress(b: Uint8Array, at: number, end: number): InterfaceAddress | undefined {
  const body = bodyOf(b, at, end, RTM_NEWADDR, IFADDRMSG_BYTES)
  if (body < 0) return undefined
  const family = familyOf(b[body])
  const messageEnd = at + messageBytes(b, at, end)
  // IFA_ADDRESS is the peer's on a point-to-point link; IFA_LOCAL, where it is there, is our own.
  const address =
    dataOf(b, body + IFADDRMSG_BYTES, messageEnd, IFA_LOCAL) ??
    dataOf(b, body + IFADDRMSG_BYTES, messageEnd, IFA_ADDRESS)
  if (family === undefined || address?.length !== (family === 4 ? 4 : 16)) return undefined
  return { family, interfaceIndex: readU32(b, body + 4), address, prefixLength: b[body + 1] as number }
}

/** struct rtmsg { family, dst_len, src_len, tos, table, protocol, scope, type; __u32 flags; } */
export function decodeDefaultRoute(b: Uint8Array, at: number, end: number): DefaultRoute | undefined {
  const body = bodyOf(b, at, end, RTM_NEWROUTE, RTMSG_BYTES)
  if (body < 0) return undefined
  const family = familyOf(b[body])
  if (family === undefined || b[body + 1] !== 0 || b[body + 4] !== RT_TABLE_MAIN || b[body + 7] !== RTN_UNICAST) {
    return undefined
  }
  const messageEnd = at + messageBytes(b, at, end)
  const gateway = dataOf(b, body + RTMSG_BYTES, messageEnd, RTA_GATEWAY)
  const out = dataOf(b, body + RTMSG_BYTES, messageEnd, RTA_OIF)
  return {
    family,
    interfaceIndex: out === undefined || out.length < 4 ? 0 : readU32(out, 0),
    gateway: gateway?.length === (family === 4 ? 4 : 16) ? gateway : undefined,
  }
}

/** What this network namespace looks like. */
export interface NetworkView {
  readonly links: readonly Link[]
  readonly addresses: readonly InterfaceAddress[]
  readonly defaultRoutes: readonly DefaultRoute[]
}

/** Reads interfaces, addresses and default routes once. A test gives its own `transport`. Throws NetlinkError. */
export function readNetwork(transport?: Transport): NetworkView {
  const requester = openRequester(NETLINK_ROUTE, transport)
  const list = <T>(
    what: string,
    type: number,
    bodyBytes: number,
    decode: (b: Uint8Array, at: number, end: number) => T | undefined,
  ): T[] => {
    const found: T[] = []
    const request = { type, flags: NLM_F_REQUEST | NLM_F_DUMP, body: new Uint8Array(bodyBytes), attributes: [] }
    const onMessage = (b: Uint8Array, at: number, end: number): void => {
      const one = decode(b, at, end)
      if (one !== undefined) found.push(one)
    }
    dumpAll(requester, what, request, onMessage, () => {
      found.length = 0
    })
    return found
  }
  try {
    return {
      links: list('the interfaces', RTM_GETLINK, IFINFOMSG_BYTES, decodeLink),
      addresses: list('the addresses', RTM_GETADDR, IFADDRMSG_BYTES, decodeInterfaceAddress),
      defaultRoutes: list('the routes', RTM_GETROUTE, RTMSG_BYTES, decodeDefaultRoute),
    }
  } finally {
    requester.close()
  }
}
