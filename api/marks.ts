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
/**
 * Connection that this Pod opened: our proof stood for its kernel's first ACK, which the rules therefore drop, once, and
 * clear the bit.
 */
export const MARK_PROVED = 0x00100000
/** Index of the peer in the sidecar's identity table; 0 means that the peer showed no WIT. */
export const MARK_INDEX = 0x000fffff

/**
 * Packet only: an arriving SYN whose tuple conntrack still knows from an earlier connection. It ignored the SYN, and
 * would call the new connection's packets invalid: see reopenTracking in sidecar/datapath/sockets.ts.
 */
export const MARK_STALE = 0x10000000

/** What a rule saves from a packet's mark to its connection's mark. */
export const MARK_SAVED = 0xe01fffff
/** All bits that are ours in a packet's mark: cleared before a rule trusts them. */
export const MARK_ALL = 0xf01fffff
