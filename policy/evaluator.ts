/** Decisions remembered for known peers: the hot path of a sidecar. */

import type { CompiledPolicy } from './compile.ts'
import { evaluate } from './evaluate.ts'
import type { Decision, Direction, Peer, TrafficProtocol } from './types.ts'

/** Decisions kept at most (about 2 MB): a busy Pod has far fewer pairs of peer and port, a port scan no more. */
export const DECISION_CACHE_ENTRIES = 16_384

/** Peer keys are 20 bits (the index in a connection's mark), port slots 10: together a small integer, never boxed. */
const PEER_KEY_BITS = 20
const PORT_SLOTS = 1 << 10

export interface Evaluator {
  /**
   * The decision for a connection, as evaluate() gives it. `peerKey` (1 to 2^20 - 1) stands for one Pod with one set
   * of labels and ports for as long as it is not forgotten; 0 means that the peer has no key: nothing is remembered.
   */
  decide(direction: Direction, peerKey: number, peer: Peer, protocol: TrafficProtocol, port: number): Decision
  /** Drops what is remembered of a peer whose labels changed, or whose key goes to another. */
  forget(peerKey: number): void
  /** Decisions now remembered. */
  size(): number
}

interface Remembered {
  address: string
  decision: Decision
}

/** Remembers decisions over compiled policies for the hot path: a hit is one Map lookup by a small integer and allocates
 * nothing; make a new one when the policies or the subject change. */
export function createEvaluator(compiled: CompiledPolicy): Evaluator {
  const remembered = new Map<number, Remembered>()
  const slots = createPortSlots()

  function remember(key: number, address: string, decision: Decision): void {
    // All at once: it is rare, and to find the oldest would cost every hit.
    if (remembered.size >= DECISION_CACHE_ENTRIES) remembered.clear()
    remembered.set(key, { address, decision })
  }

  return {
    decide(direction, peerKey, peer, protocol, port) {
      const { isolated, dependsOnAddress } = compiled[direction]
      // No key, no memory: without isolation evaluate() is cheaper than the lookup.
      if (!isolated || peerKey <= 0 || peerKey >> PEER_KEY_BITS !== 0) {
        return evaluate(compiled, direction, peer, { protocol, port })
      }
      const slot = slots.get(direction, protocol, port)
      if (slot < 0) {
        remembered.clear()
        slots.clear()
        return evaluate(compiled, direction, peer, { protocol, port })
      }
      const key = (slot << PEER_KEY_BITS) | peerKey
      const hit = remembered.get(key)
      // A Pod has an address of each family, and may come through a translated one: the last is remembered.
      if (hit !== undefined && (!dependsOnAddress || hit.address === peer.address)) return hit.decision
      const decision = evaluate(compiled, direction, peer, { protocol, port })
      if (hit === undefined) remember(key, peer.address, decision)
      else {
        hit.address = peer.address
        hit.decision = decision
      }
      return decision
    },
    forget(peerKey) {
      for (const key of remembered.keys()) if ((key & ((1 << PEER_KEY_BITS) - 1)) === peerKey) remembered.delete(key)
    },
    size: () => remembered.size,
  }
}

interface PortSlots {
  /** A number from 1 to PORT_SLOTS - 1 for the direction, protocol and port; -1 when all are given. */
  get(direction: Direction, protocol: TrafficProtocol, port: number): number
  clear(): void
}

/** Numbers the ports in use, so that a cache key stays small: most Pods are asked for a handful. */
function createPortSlots(): PortSlots {
  const tables: Record<Direction, Partial<Record<TrafficProtocol, Uint16Array>>> = { ingress: {}, egress: {} }
  let given = 0
  return {
    get(direction, protocol, port) {
      // Made when first needed; pages that nobody touches cost no memory.
      let table = tables[direction][protocol]
      if (table === undefined) {
        table = new Uint16Array(65536)
        tables[direction][protocol] = table
      }
      const index = protocol === 'other' ? 0 : port & 0xffff
      const slot = table[index]
      if (slot !== undefined && slot !== 0) return slot
      if (given === PORT_SLOTS - 1) return -1
      given++
      table[index] = given
      return given
    },
    clear() {
      tables.ingress = {}
      tables.egress = {}
      given = 0
    },
  }
}
