/**
 * The client half of the handshake: SYN out with our WIT, SYN-ACK in with the server's WIT and MAC, our proof.
 * Stateless: nonce_c is recomputed from the SYN-ACK. Pure: packets in, packets and reasons out.
 */

import { buildTcpAnswer } from '../packet/build.ts'
import { sumBytes } from '../packet/checksum.ts'
import { FLAG_ACK, type Packet } from '../packet/decode.ts'
import { answerTimestamps, findOption, OPTION_WINDOW_SCALE, TIMESTAMPS_BYTES } from '../packet/options.ts'
import { replacePayload } from '../packet/rewrite.ts'
import {
  encodeProofFrame,
  type Frame,
  MAC_AT,
  NONCE_AT,
  NONCE_BYTES,
  PROOF_BYTES,
  PROOF_HASH_AT,
  SYN_WIT_AT,
} from './frame.ts'
import type { MacState } from './hmac.ts'
import { type OwnIdentity, type PeerIdentity, pairKeys } from './keys.ts'
import { clientNonce, computeProof, ROLE_CLIENT, ROLE_SERVER, type Transcript, verifyProof } from './proof.ts'
import type { Refusal } from './reasons.ts'

/** Writes the SYN with our frame to `out` and returns its length. Data that the SYN carried (Fast Open) is removed. */
export function attachSynFrame(own: OwnIdentity, secret: MacState, bytes: Buffer, packet: Packet, out: Buffer): number {
  const frame = own.synFrame
  clientNonce(
    secret,
    bytes,
    packet.sourceOffset,
    packet.destinationOffset,
    packet.addressBytes,
    packet.sourcePort,
    packet.destinationPort,
    packet.sequence,
    frame,
    NONCE_AT,
  )
  return replacePayload(bytes, packet, frame, own.synFrameSum + sumBytes(frame, NONCE_AT, SYN_WIT_AT), out)
}

/** What a verified SYN-ACK says, and what the proof needs of it; reused from packet to packet. */
export interface VerifiedSynAck {
  own: OwnIdentity | undefined
  peer: PeerIdentity | undefined
  /** The server's real port, behind any Service. */
  serverPort: number
  readonly nonce: Buffer
  readonly transcript: Transcript
}

export function createVerifiedSynAck(): VerifiedSynAck {
  const nonce = Buffer.alloc(NONCE_BYTES)
  return {
    own: undefined,
    peer: undefined,
    serverPort: 0,
    nonce,
    transcript: {
      version: 0,
      clientNonce: nonce,
      clientNonceAt: 0,
      serverNonce: nonce,
      serverNonceAt: 0,
      endpoints: nonce,
      endpointsAt: 0,
      addressBytes: 4,
    },
  }
}

/** What the client half knows beside the packet. */
export interface ClientView {
  readonly secret: MacState
  /** Our identity, and the one before it while its handshakes may still be answered. */
  readonly own: OwnIdentity
  readonly previous: OwnIdentity | undefined
  /** Seconds since the epoch; the tolerated clock skew is added to a WIT's expiry. */
  readonly nowSeconds: number
  readonly skewSeconds: number
  /** True where a connection of ours to `packet`'s source may come back to us (a Service with this Pod behind it). */
  isHairpin(bytes: Buffer, packet: Packet): boolean
  isNodeAddress(bytes: Buffer, at: number, addressBytes: number): boolean
}

/**
 * Checks in order: void and expiry, the server's address, the MAC, and last the address that the server saw us at:
 * a mismatch there is the verified server's own word, so that its reason can be trusted.
 */
export function verifySynAck(
  view: ClientView,
  bytes: Buffer,
  packet: Packet,
  frame: Frame,
  peer: PeerIdentity,
  result: VerifiedSynAck,
): 'ok' | Refusal {
  if (peer.refused !== '') return peer.refused
  if (view.nowSeconds > peer.expiresAt + view.skewSeconds) return 'wit-expired'
  if (!holdsAddress(peer, bytes, frame.serverAddressAt, frame.addressBytes)) return 'wit-address'
  if (!findOwnByMac(view, bytes, packet, frame, peer, result)) return 'mac'

  const ours =
    frame.addressBytes === packet.addressBytes &&
    equalBytes(bytes, frame.clientAddressAt, bytes, packet.destinationOffset, packet.addressBytes)
  if (peer.identity.uid === view.own.uid) {
    if (!ours && !view.isNodeAddress(bytes, frame.clientAddressAt, frame.addressBytes)) return 'relayed'
    if (!view.isHairpin(bytes, packet)) return 'reflected'
  } else if (!ours) {
    return 'relayed'
  }
  result.peer = peer
  result.serverPort = frame.serverPort
  return 'ok'
}

/** Finds which of our identities the server answered; false where the MAC fits neither. */
function findOwnByMac(
  view: ClientView,
  bytes: Buffer,
  packet: Packet,
  frame: Frame,
  peer: PeerIdentity,
  result: VerifiedSynAck,
): boolean {
  clientNonce(
    view.secret,
    bytes,
    packet.destinationOffset,
    packet.sourceOffset,
    packet.addressBytes,
    packet.destinationPort,
    packet.sourcePort,
    (packet.acknowledgement - 1) >>> 0,
    result.nonce,
    0,
  )
  const transcript = result.transcript
  transcript.version = frame.version
  transcript.serverNonce = bytes
  transcript.serverNonceAt = frame.start + NONCE_AT
  transcript.endpoints = bytes
  transcript.endpointsAt = frame.clientAddressAt
  transcript.addressBytes = frame.addressBytes
  for (const own of [view.own, view.previous]) {
    if (own === undefined) continue
    if (!verifyProof(pairKeys(own, peer).asClient, ROLE_SERVER, transcript, bytes, frame.start + MAC_AT)) continue
    result.own = own
    return true
  }
  return false
}

const proofFrame = encodeProofFrame()

/** Aligned timestamps, or nothing: what the headers of a kernel's own ACK hold. */
const withTimestamps = Buffer.alloc(TIMESTAMPS_BYTES)
const withoutOptions = Buffer.alloc(0)

/**
 * Writes the proof packet for a verified SYN-ACK to `out` and returns its length. Beside its payload it is the ACK that
 * our kernel would send: the server's kernel gets it in that one's place. `syn` tells the window of our SYN.
 *
 * Its payload ends where the connection's data begins: a copy that arrives late, on a released flow, is an old
 * duplicate to the server's kernel and never data to its application.
 */
export function buildProof(
  verified: VerifiedSynAck,
  syn: { readonly window: number; readonly windowScale: number },
  bytes: Buffer,
  packet: Packet,
  out: Buffer,
): number {
  const { own, peer } = verified
  if (!own || !peer) return 0
  verified.nonce.copy(proofFrame, NONCE_AT)
  own.witHash.copy(proofFrame, PROOF_HASH_AT)
  computeProof(pairKeys(own, peer).asClient, ROLE_CLIENT, verified.transcript, proofFrame, MAC_AT)
  return buildTcpAnswer(
    bytes,
    packet,
    {
      sequence: (packet.acknowledgement - PROOF_BYTES) >>> 0,
      acknowledgement: (packet.sequence + 1) >>> 0,
      flags: FLAG_ACK,
      // A SYN's own window is not scaled; scaling holds where both ends offered it (RFC 7323 section 2.2).
      window: findOption(bytes, packet, OPTION_WINDOW_SCALE) === -1 ? syn.window : syn.window >>> syn.windowScale,
      options: answerTimestamps(bytes, packet, withTimestamps) > 0 ? withTimestamps : withoutOptions,
    },
    proofFrame,
    out,
  )
}

export function holdsAddress(peer: PeerIdentity, bytes: Uint8Array, at: number, addressBytes: number): boolean {
  for (const address of peer.addresses) {
    if (address.length === addressBytes && equalBytes(address, 0, bytes, at, addressBytes)) return true
  }
  return false
}

export function equalBytes(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[aAt + i] !== b[bAt + i]) return false
  return true
}
