/** Connections that others open to this Pod, from their SYN until their slot is needed again. */
import { NONCE_BYTES } from '../handshake/frame.ts'
import type { ConnectionKey } from './connection-key.ts'
import type { GatePolicy } from './gate.ts'
import type { HashSeed } from './keyed-hash.ts'
import type { KnownPeer } from './peers.ts'
import { createSlotIndex, createSlotRing } from './slot-index.ts'

/** Who opened a connection: a verified peer, a peer without a WIT, or whoever asks the sidecar's own health port. */
const KINDS = ['plain', 'identified', 'own'] as const

export interface HalfOpen {
  kind: (typeof KINDS)[number]
  peer: KnownPeer | undefined
  version: number
  clientIsn: number
  /** Set once the server's SYN-ACK was seen; `serverIsn` is its sequence number. */
  answered: boolean
  serverIsn: number
  proved: boolean
  /** The policies that allowed it, at its proof or its plain SYN; where they changed since, it is decided anew. */
  provedUnder: GatePolicy | undefined
  /** Milliseconds: when the sidecar last repeated the SYN-ACK itself. */
  repeatedAt: number
  repeats: number
  /** nonce_c of the last SYN, and of the first that was answered, lie at these offsets of `nonces`. */
  readonly nonces: Buffer
  readonly nonceAt: number
  readonly firstNonceAt: number
}

/**
 * A ring of reused slots: a new connection takes the oldest one, so a flood costs no memory.
 *
 * A SYN is named by its tuple and its sequence number, so that a forged or recorded one with another number takes no
 * other's place. Once the kernel has answered one of them, the tuple is that one's.
 *
 * One object shows whichever slot was found or claimed last: it is valid until the next call of either.
 */
export interface HalfOpenRing {
  /** By connectionKey with the client's initial sequence number. */
  find(key: ConnectionKey): HalfOpen | undefined
  /** The connection that the tuple's last SYN-ACK answered, by tupleKey; what was before it is over. */
  findAnswered(tuple: ConnectionKey): HalfOpen | undefined
  /** Notes a SYN-ACK to the slot shown. The rules cleared the connection's mark for it: it has to be proved, again too. */
  answer(tuple: ConnectionKey, serverIsn: number): void
  /** A slot for this key, the ring's oldest, with `proved` and counts reset. The key's former slot is forgotten. */
  claim(key: ConnectionKey): HalfOpen
  size(): number
}

// A slot's record of 64 bytes: offsets in bytes.
const RECORD_BYTES = 64
const KIND_AT = 0
const VERSION_AT = 1
const ANSWERED_AT = 2
const PROVED_AT = 3
const CLIENT_ISN_AT = 4
const SERVER_ISN_AT = 8
const REPEATS_AT = 12
const REPEATED_AT = 16
const NONCE_AT = 32
const FIRST_NONCE_AT = NONCE_AT + NONCE_BYTES

export function createHalfOpenRing(capacity: number, seed: HashSeed): HalfOpenRing {
  const byKey = createSlotRing(capacity, seed)
  const answered = createSlotIndex(capacity, seed)
  const records = Buffer.from(new ArrayBuffer(capacity * RECORD_BYTES))
  const words = new Uint32Array(records.buffer)
  const times = new Float64Array(records.buffer)
  const peers: (KnownPeer | undefined)[] = []
  const policies: (GatePolicy | undefined)[] = []
  let slot = 0
  let at = 0

  const shown: HalfOpen = {
    get kind() {
      return KINDS[records[at + KIND_AT] as number] ?? 'plain'
    },
    set kind(value) {
      records[at + KIND_AT] = KINDS.indexOf(value)
    },
    get version() {
      return records[at + VERSION_AT] as number
    },
    set version(value) {
      records[at + VERSION_AT] = value
    },
    get answered() {
      return records[at + ANSWERED_AT] === 1
    },
    set answered(value) {
      records[at + ANSWERED_AT] = value ? 1 : 0
    },
    get proved() {
      return records[at + PROVED_AT] === 1
    },
    set proved(value) {
      records[at + PROVED_AT] = value ? 1 : 0
    },
    get clientIsn() {
      return words[(at + CLIENT_ISN_AT) >> 2] as number
    },
    set clientIsn(value) {
      words[(at + CLIENT_ISN_AT) >> 2] = value
    },
    get serverIsn() {
      return words[(at + SERVER_ISN_AT) >> 2] as number
    },
    set serverIsn(value) {
      words[(at + SERVER_ISN_AT) >> 2] = value
    },
    get repeats() {
      return words[(at + REPEATS_AT) >> 2] as number
    },
    set repeats(value) {
      words[(at + REPEATS_AT) >> 2] = value
    },
    get repeatedAt() {
      return times[(at + REPEATED_AT) >> 3] as number
    },
    set repeatedAt(value) {
      times[(at + REPEATED_AT) >> 3] = value
    },
    get peer() {
      return peers[slot]
    },
    set peer(value) {
      peers[slot] = value
    },
    get provedUnder() {
      return policies[slot]
    },
    set provedUnder(value) {
      policies[slot] = value
    },
    nonces: records,
    get nonceAt() {
      return at + NONCE_AT
    },
    get firstNonceAt() {
      return at + FIRST_NONCE_AT
    },
  }

  function show(index: number): HalfOpen {
    slot = index
    at = index * RECORD_BYTES
    return shown
  }

  function forgetAnswer(index: number): void {
    answered.remove(index)
    show(index)
    shown.answered = false
    shown.proved = false
  }

  return {
    find(key) {
      const found = byKey.find(key)
      return found === -1 ? undefined : show(found)
    },
    findAnswered(tuple) {
      const found = answered.find(tuple)
      return found === -1 ? undefined : show(found)
    },
    answer(tuple, serverIsn) {
      answered.put(slot, tuple)
      shown.answered = true
      shown.serverIsn = serverIsn
      shown.proved = false
    },
    claim(key) {
      // A key used again leaves its old slot: there, its turn to be evicted may come at once.
      const old = byKey.find(key)
      if (old !== -1) forgetAnswer(old)
      forgetAnswer(byKey.claim(key))
      shown.peer = undefined
      shown.provedUnder = undefined
      shown.repeatedAt = 0
      shown.repeats = 0
      return shown
    },
    size: byKey.size,
  }
}
