/**
 * The server half of the handshake: SYN in with the client's WIT, SYN-ACK out with ours and a MAC, proof in.
 * Nothing is kept between SYN-ACK and proof: the proof carries nonce_c and SHA-256(WIT_c), and nonce_s is
 * recomputed from the proof's sequence numbers. Pure: packets in, packets and reasons out.
 */
import { sumBytes } from '../packet/checksum.ts'
import type { Packet } from '../packet/decode.ts'
import { replacePayload } from '../packet/rewrite.ts'
import { holdsAddress } from './client.ts'
import { ADDRESSES_AT, type Frame, MAC_AT, NONCE_AT, NONCE_BYTES, PROOF_BYTES, synAckWitAt } from './frame.ts'
import type { MacState } from './hmac.ts'
import { type OwnIdentity, type PeerIdentity, pairKeys } from './keys.ts'
import {
  computeProof,
  NONCE_EPOCH_SECONDS,
  ROLE_CLIENT,
  ROLE_SERVER,
  serverNonce,
  type Transcript,
  verifyProof,
  writeEndpoints,
} from './proof.ts'
import type { Refusal } from './reasons.ts'

/** What the server half knows beside the packet. */
export interface ServerView {
  readonly secret: MacState
  readonly own: OwnIdentity
  readonly previous: OwnIdentity | undefined
  readonly nowSeconds: number
  readonly skewSeconds: number
  isNodeAddress(bytes: Buffer, at: number, addressBytes: number): boolean
}

/**
 * Checks a SYN whose WIT is known to verify: void, expiry, and that the packet comes from an address of the WIT.
 * Our own WIT may also come from our node's address: a hairpin that kube-proxy masquerades.
 */
export function verifySyn(view: ServerView, bytes: Buffer, packet: Packet, peer: PeerIdentity): 'ok' | Refusal {
  if (peer.refused !== '') return peer.refused
  if (view.nowSeconds > peer.expiresAt + view.skewSeconds) return 'wit-expired'
  if (holdsAddress(peer, bytes, packet.sourceOffset, packet.addressBytes)) return 'ok'
  if (peer.identity.uid === view.own.uid && view.isNodeAddress(bytes, packet.sourceOffset, packet.addressBytes)) {
    return 'ok'
  }
  return 'wit-address'
}

const transcript: Transcript = {
  version: 0,
  clientNonce: Buffer.alloc(0),
  clientNonceAt: 0,
  serverNonce: Buffer.alloc(0),
  serverNonceAt: 0,
  endpoints: Buffer.alloc(0),
  endpointsAt: 0,
  addressBytes: 4,
}

/**
 * Writes the server kernel's SYN-ACK with our frame to `out` and returns its length. `version` is the client's
 * SYN's; its nonce_c is 16 bytes of `nonces` at `nonceAt`; `nowSeconds` since the epoch.
 */
export function attachSynAckFrame(
  secret: MacState,
  own: OwnIdentity,
  peer: PeerIdentity,
  version: number,
  nonces: Uint8Array,
  nonceAt: number,
  nowSeconds: number,
  bytes: Buffer,
  packet: Packet,
  out: Buffer,
): number {
  const frame = own.synAckFrames[packet.family]
  const clientIsn = (packet.acknowledgement - 1) >>> 0
  writeServerNonce(secret, bytes, packet, false, clientIsn, packet.sequence, epochOf(nowSeconds), frame, NONCE_AT)
  writeEndpoints(bytes, packet, false, frame, ADDRESSES_AT)
  transcript.version = version
  transcript.clientNonce = nonces
  transcript.clientNonceAt = nonceAt
  transcript.serverNonce = frame
  transcript.serverNonceAt = NONCE_AT
  transcript.endpoints = frame
  transcript.endpointsAt = ADDRESSES_AT
  transcript.addressBytes = packet.addressBytes
  computeProof(pairKeys(own, peer).asServer, ROLE_SERVER, transcript, frame, MAC_AT)
  const sum = own.witSum + sumBytes(frame, 0, synAckWitAt(packet.family))
  return replacePayload(bytes, packet, frame, sum, out)
}

function writeServerNonce(
  secret: MacState,
  bytes: Buffer,
  packet: Packet,
  inbound: boolean,
  clientIsn: number,
  serverIsn: number,
  epoch: number,
  out: Buffer,
  offset: number,
): void {
  serverNonce(
    secret,
    bytes,
    inbound ? packet.destinationOffset : packet.sourceOffset,
    inbound ? packet.sourceOffset : packet.destinationOffset,
    packet.addressBytes,
    inbound ? packet.destinationPort : packet.sourcePort,
    inbound ? packet.sourcePort : packet.destinationPort,
    clientIsn,
    serverIsn,
    epoch,
    out,
    offset,
  )
}

function epochOf(nowSeconds: number): number {
  return Math.floor(nowSeconds / NONCE_EPOCH_SECONDS)
}

const nonce = Buffer.alloc(NONCE_BYTES)
const endpoints = Buffer.alloc(36)

/**
 * Checks a proof packet. The caller found `peer` by the proof's hash. 'ok' means: this peer, holding its cnf key,
 * answered the SYN-ACK that this process sent for exactly this connection within the last two epochs.
 */
export function verifyProofPacket(
  view: ServerView,
  bytes: Buffer,
  packet: Packet,
  frame: Frame,
  peer: PeerIdentity,
): 'ok' | Refusal {
  const failure = verifySyn(view, bytes, packet, peer)
  if (failure !== 'ok') return failure
  const clientIsn = proofClientIsn(packet)
  writeEndpoints(bytes, packet, true, endpoints, 0)
  transcript.version = frame.version
  transcript.clientNonce = bytes
  transcript.clientNonceAt = frame.start + NONCE_AT
  transcript.serverNonce = nonce
  transcript.serverNonceAt = 0
  transcript.endpoints = endpoints
  transcript.endpointsAt = 0
  transcript.addressBytes = packet.addressBytes
  const serverIsn = (packet.acknowledgement - 1) >>> 0
  const epoch = epochOf(view.nowSeconds)
  for (let age = 0; age < 2; age++) {
    writeServerNonce(view.secret, bytes, packet, true, clientIsn, serverIsn, epoch - age, nonce, 0)
    for (const own of [view.own, view.previous]) {
      if (own === undefined) continue
      if (verifyProof(pairKeys(own, peer).asServer, ROLE_CLIENT, transcript, bytes, frame.start + MAC_AT)) return 'ok'
    }
  }
  return 'mac'
}

/** The client's initial sequence number as its proof packet tells it: see buildProof. */
export function proofClientIsn(packet: Packet): number {
  return (packet.sequence + PROOF_BYTES - 1) >>> 0
}
