/** Connections that others open to this Pod, from their SYN until their slot is needed again. */
import { NONCE_BYTES } from '../handshake/frame.ts'
import type { Packet } from '../packet/decode.ts'
import type { KnownPeer } from './peers.ts'

export interface HalfOpen {
  key: string
  /** Who opened it: a verified peer, a peer without a WIT, or whoever asks the sidecar's own health port. */
  kind: 'identified' | 'plain' | 'own'
  peer: KnownPeer | undefined
  version: number
  readonly nonce: Buffer
  clientIsn: number
  /** Set once the server's SYN-ACK was seen; `serverIsn` is its sequence number. */
  answered: boolean
  serverIsn: number
  /** Bytes of the SYN's frame where conntrack ignored the SYN, else 0. */
  staleFrameBytes: number
  proved: boolean
  /** Milliseconds: when the sidecar last repeated the SYN-ACK itself. */
  repeatedAt: number
  repeats: number
}

/** A ring of reused slots: a new connection takes the oldest one, so a flood costs no memory. */
export interface HalfOpenRing {
  find(key: string): HalfOpen | undefined
  /** A slot for this key, the ring's oldest, with `proved` and counts reset. The key's former slot is forgotten. */
  claim(key: string): HalfOpen
  size(): number
}

export function createHalfOpenRing(capacity: number): HalfOpenRing {
  const slots: HalfOpen[] = []
  const byKey = new Map<string, HalfOpen>()
  let next = 0
  return {
    find: (key) => byKey.get(key),
    size: () => byKey.size,
    claim(key) {
      // A tuple used again leaves its old slot: there, its turn to be evicted may come at once.
      const old = byKey.get(key)
      if (old) old.key = ''
      const slot = slots[next] ?? createSlot()
      slots[next] = slot
      next = (next + 1) % capacity
      if (slot.key !== '') byKey.delete(slot.key)
      slot.key = key
      byKey.set(key, slot)
      slot.peer = undefined
      slot.answered = false
      slot.staleFrameBytes = 0
      slot.proved = false
      slot.repeatedAt = 0
      slot.repeats = 0
      return slot
    },
  }
}

function createSlot(): HalfOpen {
  return {
    key: '',
    kind: 'plain',
    peer: undefined,
    version: 0,
    nonce: Buffer.alloc(NONCE_BYTES),
    clientIsn: 0,
    answered: false,
    serverIsn: 0,
    staleFrameBytes: 0,
    proved: false,
    repeatedAt: 0,
    repeats: 0,
  }
}

const scratch = Buffer.alloc(36)

/** Names a connection from this Pod's side: local and remote address and port, the same for both directions. */
export function tupleKey(bytes: Buffer, packet: Packet, inbound: boolean): string {
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
  return scratch.toString('latin1', 0, 2 * length + 4)
}
