/**
 * The bits of packet and connection marks (fwmark, connmark) that belong to Synguard.
 * The iptables rules (sidecar/rules) and the verdicts (sidecar/datapath) agree on them through this file.
 */

/** The connection's handshake was authorised: the kernel passes it without the queue. */
export const MARK_RELEASED = 0x80000000
/** The connection, or this packet, is refused: the filter table answers with a reset (TCP) or an ICMP error. */
export const MARK_REVOKED = 0x40000000
/** Packet: made by the sidecar through its raw socket. Connection: one of the sidecar's own, never judged by policy. */
export const MARK_OWN = 0x20000000
/** Index of the peer in the sidecar's identity table; 0 means that the peer showed no WIT. */
export const MARK_INDEX = 0x000fffff

/** All bits that are ours: cleared in a packet's mark before a rule trusts them, saved to its connection's. */
export const MARK_ALL = 0xe00fffff
