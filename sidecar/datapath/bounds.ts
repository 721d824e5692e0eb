/** Every bound of the data path, with its reason. What is over a bound is dropped or forgotten, never let through. */

/**
 * Packets waiting for the control plane (a verification, a lookup, readiness): 256 of at most 64 KiB, one per tuple.
 * Where they are full, a kind that holds less than another takes its place: a flood of one kind keeps no other away.
 */
export const MAXIMUM_HELD_PACKETS = 256
/** Of one flow, where nobody repeats what is dropped: resolvers ask for A and AAAA at once, from one socket. */
export const MAXIMUM_HELD_DATAGRAMS = 8
/** A client repeats its SYN after 1, 3 and 7 seconds; its application has usually given up later. */
export const HOLD_MILLISECONDS = 10_000

/** Half-open connections of peers with a verified WIT. Above it the oldest lose only their repeated SYN-ACK. */
export const MAXIMUM_HALF_OPEN = 16_384
/** SYNs of our own that were sent lately: for the third, plain one and for acknowledgements of frame bytes. */
export const MAXIMUM_RECENT_SYNS = 16_384
/**
 * The third, fifth, ... SYN of a connection goes without a frame: something on the path may not like data on SYN. A
 * guarded server drops it, and gets a framed one next.
 */
export const PLAIN_SYN_FROM = 3
/** Addresses that acknowledged frame bytes (a Fast Open server without cookies): they get no frame again. */
export const MAXIMUM_FRAMELESS_ADDRESSES = 1_024

/** Peers with verified WITs: about 4 KiB each with their keys, 40 MB at most in a cluster of 10,000 peers. */
export const MAXIMUM_PEERS = 10_000
/** WITs that did not verify, so that a repeated one costs no signature check. */
export const MAXIMUM_REFUSED_WITS = 1_024
export const REFUSED_WIT_MILLISECONDS = 10_000
/** Verifications take 0.2 ms each off the packet path: these three rates keep them at a tenth of one core. */
export const VERIFICATIONS_PER_SECOND = 400
export const VERIFICATIONS_BURST = 1_000
/** From addresses of peers that are known: the WIT after a renewal, which no flood from elsewhere keeps waiting. */
export const RENEWALS_PER_SECOND = 90
export const RENEWALS_BURST = 500
/** WITs of keys that the trust bundle lacks: anybody can make them up, and the bundle is fetched once in 10 s anyway. */
export const UNKNOWN_KEYS_PER_SECOND = 10
export const UNKNOWN_KEYS_BURST = 20
export const VERIFICATIONS_PER_SOURCE_PER_SECOND = 10
export const VERIFICATIONS_PER_SOURCE_BURST = 20
export const MAXIMUM_SOURCES = 4_096

/** Dialled addresses whose place (cluster, node, own endpoint) is kept: working it out costs a few microseconds. */
export const MAXIMUM_ADDRESSES = 4_096

/** Directory answers kept by address. */
export const MAXIMUM_DIRECTORY_ENTRIES = 10_000

/** A client sends no more than this before it hears more of the server than its SYN-ACK (RFC 7323: 1 GiB at most). */
export const MAXIMUM_EARLY_BYTES = 1 << 30

/** A SYN-ACK is repeated for data of an unproved connection at most this often. */
export const SYN_ACK_REPEAT_MILLISECONDS = 200

/** Refusals that are told to the control plane for its log; the counters count all. */
export const REFUSAL_REPORTS_PER_SECOND = 50

/**
 * Rows of the table of denials: of Pods, each some 300 bytes, as many as a Pod has peers and ports in a large namespace; and
 * of addresses that are no Pod's, which a stranger may make up.
 */
export const MAXIMUM_DENIALS_OF_PODS = 1_024
export const MAXIMUM_DENIALS_OF_ADDRESSES = 256
/** A row that nothing came to for so long gives way where the table is full. */
export const DENIAL_STALE_MILLISECONDS = 3_600_000
/** Rows are put in the order of their last denial at most this often: a flood costs a count. */
export const DENIAL_REORDER_MILLISECONDS = 1_000

/** The previous identity still answers for handshakes that began before a renewal. */
export const PREVIOUS_IDENTITY_SECONDS = 120

/**
 * Kernel queue lengths: what is over them the kernel drops, and their copies share the receive buffer below. The kernel
 * tells us of what the buffer had no room for, and not of what a queue had none for: TCP's queue is longer than the
 * buffer can hold, 3,500 SYNs with a frame or 6,500 without.
 */
export const QUEUE_TCP_PACKETS = 16_384
export const QUEUE_OTHER_PACKETS = 2_048
/** Packets are read whole: an MTU may be 64 KiB. */
export const QUEUE_COPY_BYTES = 0xffff
export const RECEIVE_BUFFER_BYTES = 4 << 20
export const RECEIVE_TIMEOUT_MILLISECONDS = 250
/** Packets received in one call; their verdicts go out in one send. */
export const PACKET_BATCH = 32
