/**
 * Nonces and MACs of a handshake.
 *
 * A nonce is a PRF of the connection's tuple and initial sequence numbers under a secret of this process: it need
 * not be kept, a repeated packet gets the same one, and nobody else can predict it.
 */
import type { Packet } from '../packet/decode.ts'
import { writeUint16, writeUint32 } from '../packet/words.ts'
import { NONCE_BYTES } from './frame.ts'
import { computeMac, equalInConstantTime, MAC_BYTES, type MacState } from './hmac.ts'

/** First byte of a MAC's own message: who made it. */
export const ROLE_SERVER = 1
export const ROLE_CLIENT = 2

/**
 * nonce_s changes with time, so that a recorded proof is worthless once its connection's sequence numbers can come up
 * again: Linux takes the initial sequence number from a clock that goes round in 275 s (secure_tcp_seq, 64 ns a step).
 * A proof stands in the epoch of its nonce and the one after it.
 */
export const NONCE_EPOCH_SECONDS = 60

const message = Buffer.alloc(80)

/** nonce_c for a connection that this Pod opens, from its SYN (`isn` = its sequence number). */
export function clientNonce(
  secret: MacState,
  bytes: Uint8Array,
  localAt: number,
  remoteAt: number,
  addressBytes: number,
  localPort: number,
  remotePort: number,
  isn: number,
  out: Uint8Array,
  offset: number,
): void {
  const end = writeTuple(ROLE_CLIENT, bytes, localAt, remoteAt, addressBytes, localPort, remotePort)
  writeUint32(message, end, isn)
  computeMac(secret, message, end + 4, out, offset, NONCE_BYTES)
}

/** nonce_s for a connection that a peer opened, from both initial sequence numbers and the epoch. */
export function serverNonce(
  secret: MacState,
  bytes: Uint8Array,
  localAt: number,
  remoteAt: number,
  addressBytes: number,
  localPort: number,
  remotePort: number,
  clientIsn: number,
  serverIsn: number,
  epoch: number,
  out: Uint8Array,
  offset: number,
): void {
  const end = writeTuple(ROLE_SERVER, bytes, localAt, remoteAt, addressBytes, localPort, remotePort)
  writeUint32(message, end, clientIsn)
  writeUint32(message, end + 4, serverIsn)
  writeUint32(message, end + 8, epoch)
  computeMac(secret, message, end + 12, out, offset, NONCE_BYTES)
}

function writeTuple(
  role: number,
  bytes: Uint8Array,
  localAt: number,
  remoteAt: number,
  addressBytes: number,
  localPort: number,
  remotePort: number,
): number {
  message[0] = role
  let at = 1
  for (let i = 0; i < addressBytes; i++) message[at++] = bytes[localAt + i] as number
  for (let i = 0; i < addressBytes; i++) message[at++] = bytes[remoteAt + i] as number
  writeUint16(message, at, localPort)
  writeUint16(message, at + 2, remotePort)
  return at + 4
}

/** What a MAC covers beside both WITs, which are the MAC state's prefix. All as the server sees it. */
export interface Transcript {
  version: number
  clientNonce: Uint8Array
  clientNonceAt: number
  serverNonce: Uint8Array
  serverNonceAt: number
  /** Client address, client port, server address, server port lie in one run of bytes, as in a SYN-ACK frame. */
  endpoints: Uint8Array
  endpointsAt: number
  addressBytes: number
}

/** Writes MAC(role, transcript) to `out` at `offset`: 32 bytes. */
export function computeProof(
  mac: MacState,
  role: number,
  transcript: Transcript,
  out: Uint8Array,
  offset: number,
): void {
  message[0] = role
  message[1] = transcript.version
  let at = 2
  for (let i = 0; i < NONCE_BYTES; i++) message[at++] = transcript.clientNonce[transcript.clientNonceAt + i] as number
  for (let i = 0; i < NONCE_BYTES; i++) message[at++] = transcript.serverNonce[transcript.serverNonceAt + i] as number
  message[at++] = transcript.addressBytes === 4 ? 4 : 6
  const endpointBytes = 2 * transcript.addressBytes + 4
  for (let i = 0; i < endpointBytes; i++) message[at++] = transcript.endpoints[transcript.endpointsAt + i] as number
  computeMac(mac, message, at, out, offset)
}

const expected = Buffer.alloc(MAC_BYTES)

/** True where the 32 bytes of `bytes` at `offset` are MAC(role, transcript); compared in constant time. */
export function verifyProof(
  mac: MacState,
  role: number,
  transcript: Transcript,
  bytes: Uint8Array,
  offset: number,
): boolean {
  computeProof(mac, role, transcript, expected, 0)
  return equalInConstantTime(expected, 0, bytes, offset, MAC_BYTES)
}

/** Writes client and server endpoints of a packet that the client sent (source = client) as a MAC covers them. */
export function writeEndpoints(
  bytes: Uint8Array,
  packet: Packet,
  fromClient: boolean,
  out: Buffer,
  offset: number,
): void {
  const clientAt = fromClient ? packet.sourceOffset : packet.destinationOffset
  const serverAt = fromClient ? packet.destinationOffset : packet.sourceOffset
  let at = offset
  for (let i = 0; i < packet.addressBytes; i++) out[at++] = bytes[clientAt + i] as number
  writeUint16(out, at, fromClient ? packet.sourcePort : packet.destinationPort)
  at += 2
  for (let i = 0; i < packet.addressBytes; i++) out[at++] = bytes[serverAt + i] as number
  writeUint16(out, at, fromClient ? packet.destinationPort : packet.sourcePort)
}
