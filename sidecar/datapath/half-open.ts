/** Connections that others open to this Pod, from their SYN until their slot is needed again. */
import { NONCE_BYTES } from '../handshake/frame.ts'
import type { Packet } from '../packet/decode.ts'
import type { GatePolicy } from './gate.ts'
import type { KnownPeer } from './peers.ts'

export interface HalfOpen {
  key: string
  /** Its tupleKey, once answered. */
  tuple: string
  /** Who opened it: a verified peer, a peer without a WIT, or whoever asks the sidecar's own health port. */
  kind: 'identified' | 'plain' | 'own'
  peer: KnownPeer | undefined
  version: number
  /** nonce_c of the last SYN, and of the first that was answered. */
  readonly nonce: Buffer
  readonly firstNonce: Buffer
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
}

/**
 * A ring of reused slots: a new connection takes the oldest one, so a flood costs no memory.
 *
 * A SYN is named by its tuple and its sequence number, so that a forged or recorded one with another number takes no
 * other's place. Once the kernel has answered one of them, the tuple is that one's.
 */
export interface HalfOpenRing {
  /** By connectionKey with the client's initial sequence number. */
  find(key: string): HalfOpen | undefined
  /** The connection that the tuple's last SYN-ACK answered, by tupleKey; what was before it is over. */
  findAnswered(tuple: string): HalfOpen | undefined
  /** Notes a SYN-ACK. The rules cleared the connection's mark for it: it has to be proved, again too. */
  answer(slot: HalfOpen, tuple: string, serverIsn: number): void
  /** A slot for this key, the ring's oldest, with `proved` and counts reset. The key's former slot is forgotten. */
  claim(key: string): HalfOpen
  size(): number
}

export function createHalfOpenRing(capacity: number): HalfOpenRing {
  const slots: HalfOpen[] = []
  const byKey = new Map<string, HalfOpen>()
  const byTuple = new Map<string, HalfOpen>()
  let next = 0

  function forgetAnswer(slot: HalfOpen): void {
    if (slot.tuple !== '' && byTuple.get(slot.tuple) === slot) byTuple.delete(slot.tuple)
    slot.tuple = ''
    slot.answered = false
    slot.proved = false
  }

  return {
    find: (key) => byKey.get(key),
    findAnswered: (tuple) => byTuple.get(tuple),
    answer(slot, tuple, serverIsn) {
      slot.tuple = tuple
      slot.answered = true
      slot.serverIsn = serverIsn
      slot.proved = false
      byTuple.set(tuple, slot)
    },
    size: () => byKey.size,
    claim(key) {
      // A key used again leaves its old slot: there, its turn to be evicted may come at once.
      const old = byKey.get(key)
      if (old) {
        old.key = ''
        forgetAnswer(old)
      }
      const slot = slots[next] ?? createSlot()
      slots[next] = slot
      next = (next + 1) % capacity
      if (slot.key !== '') byKey.delete(slot.key)
      slot.key = key
      byKey.set(key, slot)
      forgetAnswer(slot)
      slot.peer = undefined
      slot.provedUnder = undefined
      slot.repeatedAt = 0
      slot.repeats = 0
      return slot
    },
  }
}

function createSlot(): HalfOpen {
  return {
    key: '',
    tuple: '',
    kind: 'plain',
    peer: undefined,
    version: 0,
    nonce: Buffer.alloc(NONCE_BYTES),
    firstNonce: Buffer.alloc(NONCE_BYTES),
    clientIsn: 0,
    answered: false,
    serverIsn: 0,
    proved: false,
    provedUnder: undefined,
    repeatedAt: 0,
    repeats: 0,
  }
}

const scratch = Buffer.alloc(40)

/** Names a connection from this Pod's side: local and remote address and port, the same for both directions. */
export function tupleKey(bytes: Buffer, packet: Packet, inbound: boolean): string {
  return scratch.toString('latin1', 0, writeTuple(bytes, packet, inbound))
}

/** Names a SYN by its tuple and its sequence number. */
export function connectionKey(bytes: Buffer, packet: Packet, inbound: boolean, isn: number): string {
  const end = writeTuple(bytes, packet, inbound)
  scratch[end] = isn >>> 24
  scratch[end + 1] = isn >>> 16
  scratch[end + 2] = isn >>> 8
  scratch[end + 3] = isn
  return scratch.toString('latin1', 0, end + 4)
}

function writeTuple(bytes: Buffer, packet: Packet, inbound: boolean): number {
  const length = packet.addressBytes
  const localAt = inbound ? packet.destinationOffset : packet.sourceOffset
  const remoteAt = inbound ? packet.sourceOffset : packet.destinationOffset
  const localPort = inbound ? packet.destinationPort : packet.sourcePort
  const remotePort = inbound ? packet.sourcePort : packet.destinationPort
  for (let i = 0; i < length; i++) {
    scratch[i] = bytes[localAt + i] as number
    scratch[length + i] = bytes[remoteAt + i] as number
  }
  scratch[2 * length] = localPort >>> 8
  scratch[2 * length + 1] = localPort
  scratch[2 * length + 2] = remotePort >>> 8
  scratch[2 * length + 3] = remotePort
  return 2 * length + 4
}
