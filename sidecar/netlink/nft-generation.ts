/**
 * The generation of the nf_tables rule set of this network namespace: it changes with every change of any rule, those
 * made by iptables-nft too. <linux/netfilter/nf_tables.h>. (iptables-legacy has no such number.)
 */

import { readU32BE } from './bytes.ts'
import { NetlinkError } from './errors.ts'
import { EOPNOTSUPP } from './libc.ts'
import {
  attributeBytes,
  findAttribute,
  messageBytes,
  messageType,
  NFGEN_HEADER_BYTES,
  NLA_HEADER_BYTES,
  NLM_F_REQUEST,
  NLMSG_HEADER_BYTES,
} from './message.ts'
import { openRequester } from './request.ts'
import { NETLINK_NETFILTER, type Transport } from './transport.ts'

const NFNL_SUBSYS_NFTABLES = 10
const NFT_MSG_NEWGEN = 15
const NFT_MSG_GETGEN = 16
const NFTA_GEN_ID = 1
/** nfnetlink answers so where no module has the subsystem. */
const EINVAL = 22

/** The generation in an NFT_MSG_NEWGEN message at `at`, or undefined where it is none. */
export function decodeGeneration(b: Uint8Array, at: number, end: number): number | undefined {
  const bytes = messageBytes(b, at, end)
  if (bytes < NLMSG_HEADER_BYTES + NFGEN_HEADER_BYTES) return undefined
  if (messageType(b, at) !== ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN)) return undefined
  const messageEnd = at + bytes
  const id = findAttribute(b, at + NLMSG_HEADER_BYTES + NFGEN_HEADER_BYTES, messageEnd, NFTA_GEN_ID)
  const fits = id >= 0 && attributeBytes(b, id, messageEnd) >= NLA_HEADER_BYTES + 4
  return fits ? readU32BE(b, id + NLA_HEADER_BYTES) : undefined
}

/** A socket that reads the generation again and again. */
export interface NftGeneration {
  /** The generation, or undefined where this kernel has no nf_tables. Throws NetlinkError: it needs CAP_NET_ADMIN. */
  read(): number | undefined
  close(): void
}

/** Opens such a socket. A test gives its own `transport`. Throws NetlinkError `netlink-socket`. */
export function openNftGeneration(transport?: Transport): NftGeneration {
  const requester = openRequester(NETLINK_NETFILTER, transport)
  const request = {
    type: (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN,
    flags: NLM_F_REQUEST,
    body: new Uint8Array(NFGEN_HEADER_BYTES),
    attributes: [],
  }
  return {
    read() {
      let generation: number | undefined
      const errno = requester.lookUp(request, (buffer, at, end) => {
        generation = decodeGeneration(buffer, at, end)
      })
      if (errno === -EINVAL || errno === -EOPNOTSUPP) return undefined
      if (errno !== 0) throw new NetlinkError('netlink-request', 'cannot read the generation of the rules', errno)
      return generation
    },
    close: () => requester.close(),
  }
}
