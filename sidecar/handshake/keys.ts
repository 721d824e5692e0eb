/** The keys of a handshake: one pairwise key for each pair of WITs, one secret of this process for nonces. */
import { createPublicKey, diffieHellman, hash, type KeyObject } from 'node:crypto'
import type { PodIdentity } from '../../api/identity.ts'
import type { PublicJwk } from '../../certs/authority.ts'
import { sumBytes } from '../packet/checksum.ts'
import { encodeSynAckFrame, encodeSynFrame, NONCE_AT, SYN_WIT_AT } from './frame.ts'
import { computeMac, createMacState, MAC_BYTES, type MacState } from './hmac.ts'

/** What this Pod shows: its WIT, ready to be sent, and the key that the WIT confirms. */
export interface OwnIdentity {
  readonly uid: string
  /** Rises with every renewal in this process. */
  readonly generation: number
  readonly witHash: Buffer
  readonly privateKey: KeyObject
  /** RFC 7638 thumbprint of the cnf key. */
  readonly thumbprint: string
  /** Seconds since the epoch. */
  readonly expiresAt: number
  /** The SYN frame; only its nonce changes from packet to packet. */
  readonly synFrame: Buffer
  /** sumBytes of the SYN frame with a zero nonce. */
  readonly synFrameSum: number
  readonly synAckFrames: Readonly<Record<4 | 6, Buffer>>
  /** sumBytes of the WIT section alone: it starts at an even offset in both families. */
  readonly witSum: number
}

/** A peer whose WIT was verified, as the packet path keeps it. */
export interface PeerIdentity {
  /** Row of the identity table for connections that reach the peer at its own address; in the connection's mark. */
  readonly index: number
  /** Rows for connections through a translated address, by the peer's real port. */
  readonly indexByPort: Map<number, number>
  readonly identity: PodIdentity
  /** The Pod's addresses in network order. */
  readonly addresses: readonly Uint8Array[]
  readonly witHash: Buffer
  readonly cnf: PublicJwk
  readonly thumbprint: string
  readonly kid: string
  readonly issuedAt: number
  readonly expiresAt: number
  /** Why this WIT is refused although it verifies: it was declared void. Empty where it is good. */
  refused: '' | 'wit-void'
  /** Pairwise MAC states by generation of our own identity. */
  readonly pairs: Map<number, PairKeys>
}

/** MAC states of a pair; both begin with SHA-256(WIT_c) and SHA-256(WIT_s), one whole block. */
export interface PairKeys {
  /** For connections that we open. */
  readonly asClient: MacState
  /** For connections that the peer opens. */
  readonly asServer: MacState
}

/** Makes what the packet path needs of a new identity of our own. `witSection` as encodeWitSection gives it. */
export function createOwnIdentity(source: {
  readonly uid: string
  readonly generation: number
  readonly witSection: Buffer
  readonly witHash: Buffer
  readonly privateKey: KeyObject
  readonly thumbprint: string
  readonly expiresAt: number
}): OwnIdentity {
  const { witSection, ...kept } = source
  const synFrame = encodeSynFrame(witSection)
  return {
    ...kept,
    synFrame,
    synFrameSum: sumBytes(synFrame, 0, NONCE_AT) + sumBytes(synFrame, SYN_WIT_AT, synFrame.length),
    synAckFrames: { 4: encodeSynAckFrame(4, witSection), 6: encodeSynAckFrame(6, witSection) },
    witSum: sumBytes(witSection, 0, witSection.length),
  }
}

/** The ECDH x coordinate of both cnf keys: 32 bytes, the same at both ends. */
export function sharedSecret(privateKey: KeyObject, peerKey: PublicJwk | KeyObject): Buffer {
  const publicKey = 'kty' in peerKey ? createPublicKey({ key: { ...peerKey }, format: 'jwk' }) : peerKey
  return diffieHellman({ privateKey, publicKey })
}

/**
 * HKDF-SHA-256 (RFC 5869) of the pair's sharedSecret, empty salt, info `synguard/1` and both RFC 7638 thumbprints in
 * order: 32 bytes, the same at both ends.
 */
export function derivePairwiseKey(secret: Uint8Array, ownThumbprint: string, peerThumbprint: string): Buffer {
  const [first, second] =
    ownThumbprint < peerThumbprint ? [ownThumbprint, peerThumbprint] : [peerThumbprint, ownThumbprint]
  return hkdf(secret, Buffer.from(`synguard/1${first}${second}`))
}

/**
 * HKDF-SHA-256 without salt, 32 bytes: of the MACs that every packet runs. Node's own takes 0.2 ms in a thread that just
 * woke, which a first contact waits for twice.
 */
function hkdf(secret: Uint8Array, info: Uint8Array): Buffer {
  const key = Buffer.alloc(MAC_BYTES)
  computeMac(createMacState(Buffer.alloc(MAC_BYTES)), secret, secret.length, key, 0)
  const block = Buffer.concat([info, Buffer.of(1)])
  computeMac(createMacState(key), block, block.length, key, 0)
  return key
}

/** The pair's MAC states, kept with the peer; of a generation of ours that the peer was not met under, derived (one ECDH). */
export function pairKeys(own: OwnIdentity, peer: PeerIdentity): PairKeys {
  return peer.pairs.get(own.generation) ?? addPair(own, peer, sharedSecret(own.privateKey, peer.cnf))
}

/** Makes a pair's MAC states of its sharedSecret, and keeps them with the peer. */
export function addPair(own: OwnIdentity, peer: PeerIdentity, secret: Uint8Array): PairKeys {
  const key = derivePairwiseKey(secret, own.thumbprint, peer.thumbprint)
  const keys = {
    asClient: createMacState(key, Buffer.concat([own.witHash, peer.witHash])),
    asServer: createMacState(key, Buffer.concat([peer.witHash, own.witHash])),
  }
  // Only the current and the previous identity are ever used; older ones go.
  for (const generation of peer.pairs.keys()) if (generation < own.generation - 1) peer.pairs.delete(generation)
  peer.pairs.set(own.generation, keys)
  return keys
}

/** SHA-256 of a WIT in compact form: what MACs and proofs name it by. */
export function hashWit(compact: string): Buffer {
  return hash('sha256', compact, 'buffer')
}
