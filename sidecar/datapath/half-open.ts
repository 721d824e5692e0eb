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
  /** Its denial was told: audit tells of a connection once. */
  told: boolean
  /** Seconds since 1970: when its SYN came. */
  openedAt: number
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
const TOLD_AT = 24
const OPENED_AT = 28
const NONCE_AT = 32
const FIRST_NONCE_AT = NONCE_AT + NONCE_BYTES

/** Shows one slot of all records. A class, as V8 compiles its accessors like fields: those of a literal it looks up. */
class ShownSlot implements HalfOpen {
  slot = 0
  readonly nonces: Buffer
  private readonly words: Uint32Array
  private readonly times: Float64Array
  private readonly peers: (KnownPeer | undefined)[] = []
  private readonly policies: (GatePolicy | undefined)[] = []

  constructor(capacity: number) {
    this.nonces = Buffer.from(new ArrayBuffer(capacity * RECORD_BYTES))
    this.words = new Uint32Array(this.nonces.buffer)
    this.times = new Float64Array(this.nonces.buffer)
  }

  get kind(): HalfOpen['kind'] {
    return KINDS[this.nonces[this.slot * RECORD_BYTES + KIND_AT] as number] ?? 'plain'
  }
  set kind(value: HalfOpen['kind']) {
    this.nonces[this.slot * RECORD_BYTES + KIND_AT] = KINDS.indexOf(value)
  }

  get version(): number {
    return this.nonces[this.slot * RECORD_BYTES + VERSION_AT] as number
  }
  set version(value: number) {
    this.nonces[this.slot * RECORD_BYTES + VERSION_AT] = value
  }

  get answered(): boolean {
    return this.nonces[this.slot * RECORD_BYTES + ANSWERED_AT] === 1
  }
  set answered(value: boolean) {
    this.nonces[this.slot * RECORD_BYTES + ANSWERED_AT] = value ? 1 : 0
  }

  get proved(): boolean {
    return this.nonces[this.slot * RECORD_BYTES + PROVED_AT] === 1
  }
  set proved(value: boolean) {
    this.nonces[this.slot * RECORD_BYTES + PROVED_AT] = value ? 1 : 0
  }

  get clientIsn(): number {
    return this.words[(this.slot * RECORD_BYTES + CLIENT_ISN_AT) >> 2] as number
  }
  set clientIsn(value: number) {
    this.words[(this.slot * RECORD_BYTES + CLIENT_ISN_AT) >> 2] = value
  }

  get serverIsn(): number {
    return this.words[(this.slot * RECORD_BYTES + SERVER_ISN_AT) >> 2] as number
  }
  set serverIsn(value: number) {
    this.words[(this.slot * RECORD_BYTES + SERVER_ISN_AT) >> 2] = value
  }

  get repeats(): number {
    return this.words[(this.slot * RECORD_BYTES + REPEATS_AT) >> 2] as number
  }
  set repeats(value: number) {
    this.words[(this.slot * RECORD_BYTES + REPEATS_AT) >> 2] = value
  }

  get repeatedAt(): number {
    return this.times[(this.slot * RECORD_BYTES + REPEATED_AT) >> 3] as number
  }
  set repeatedAt(value: number) {
    this.times[(this.slot * RECORD_BYTES + REPEATED_AT) >> 3] = value
  }

  get told(): boolean {
    return this.nonces[this.slot * RECORD_BYTES + TOLD_AT] === 1
  }
  set told(value: boolean) {
    this.nonces[this.slot * RECORD_BYTES + TOLD_AT] = value ? 1 : 0
  }

  get openedAt(): number {
    return this.words[(this.slot * RECORD_BYTES + OPENED_AT) >> 2] as number
  }
  set openedAt(value: number) {
    this.words[(this.slot * RECORD_BYTES + OPENED_AT) >> 2] = value
  }

  get peer(): KnownPeer | undefined {
    return this.peers[this.slot]
  }
  set peer(value: KnownPeer | undefined) {
    this.peers[this.slot] = value
  }

  get provedUnder(): GatePolicy | undefined {
    return this.policies[this.slot]
  }
  set provedUnder(value: GatePolicy | undefined) {
    this.policies[this.slot] = value
  }

  get nonceAt(): number {
    return this.slot * RECORD_BYTES + NONCE_AT
  }

  get firstNonceAt(): number {
    return this.slot * RECORD_BYTES + FIRST_NONCE_AT
  }
}

export function createHalfOpenRing(capacity: number, seed: HashSeed): HalfOpenRing {
  const byKey = createSlotRing(capacity, seed)
  const answered = createSlotIndex(capacity, seed)
  const shown = new ShownSlot(capacity)

  function show(slot: number): HalfOpen | undefined {
    if (slot === -1) return undefined
    shown.slot = slot
    return shown
  }

  function forgetAnswer(slot: number): void {
    answered.remove(slot)
    shown.slot = slot
    shown.answered = false
    shown.proved = false
  }

  return {
    find: (key) => show(byKey.find(key)),
    findAnswered: (tuple) => show(answered.find(tuple)),
    answer(tuple, serverIsn) {
      answered.put(shown.slot, tuple)
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
      shown.told = false
      shown.openedAt = 0
      return shown
    },
    size: byKey.size,
  }
}
