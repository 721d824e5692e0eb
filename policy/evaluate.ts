/**
 * Decides one connection by compiled policies. Rules only ever allow, so the first that matches ends the search.
 * What is no business of policies (the Pod's own node, probes, modes) is decided by the callers.
 */

import type { PodIdentity } from '../api/identity.ts'
import { cidrContains, parseAddress } from './address.ts'
import type { CompiledPeer, CompiledPolicy, CompiledPort } from './compile.ts'
import { matchesSelector } from './selector.ts'
import type { Allowed, Decision, Direction, Peer, TrafficPort, TrafficProtocol } from './types.ts'

export type { Decision, Direction, Peer, TrafficPort, TrafficProtocol } from './types.ts'

const NOT_ISOLATED: Allowed = { allowed: true, by: 'not-isolated' }
const ITSELF: Allowed = { allowed: true, by: 'itself' }

/**
 * The decision for one connection between the subject and a peer. `port` is the destination's real one: the subject's
 * for ingress, the peer's for egress. Decisions are shared objects: the same rule gives the same object.
 */
export function evaluate(compiled: CompiledPolicy, direction: Direction, peer: Peer, port: TrafficPort): Decision {
  const { isolated, rules, denied, dependsOnAddress } = compiled[direction]
  if (!isolated) return NOT_ISOLATED
  const pod = 'pod' in peer ? peer.pod : undefined
  // "Pods cannot block access to themselves" (Kubernetes, concepts/services-networking/network-policies).
  if (pod !== undefined && pod.uid === compiled.uid && compiled.uid !== '') return ITSELF
  const address = dependsOnAddress ? parseAddress(peer.address) : undefined
  for (const rule of rules) {
    if (rule.ports !== undefined && !matchesAnyPort(rule.ports, port, pod)) continue
    if (rule.peers === undefined || matchesAnyPeer(rule.peers, pod, address)) return rule.allowed
  }
  return denied
}

function matchesAnyPort(ports: readonly CompiledPort[], { protocol, port }: TrafficPort, pod?: PodIdentity): boolean {
  for (const candidate of ports) {
    if (candidate.protocol !== protocol) continue
    if ('name' in candidate) {
      if (pod !== undefined && hasNamedPort(pod, candidate.name, protocol, port)) return true
    } else if (port >= candidate.first && port <= candidate.last) return true
  }
  return false
}

function hasNamedPort(pod: PodIdentity, name: string, protocol: TrafficProtocol, port: number): boolean {
  return pod.ports.some((named) => named.name === name && named.protocol === protocol && named.port === port)
}

function matchesAnyPeer(
  peers: readonly CompiledPeer[],
  pod: PodIdentity | undefined,
  address: Uint8Array | undefined,
): boolean {
  for (const peer of peers) if (matchesPeer(peer, pod, address)) return true
  return false
}

function matchesPeer(peer: CompiledPeer, pod: PodIdentity | undefined, address: Uint8Array | undefined): boolean {
  if (peer.kind === 'ipBlock') {
    if (address === undefined || !cidrContains(peer.cidr, address)) return false
    return !peer.except.some((except) => cidrContains(except, address))
  }
  if (pod === undefined || !matchesSelector(peer.podSelector, pod.labels)) return false
  return peer.kind === 'pods'
    ? pod.namespace === peer.namespace
    : matchesSelector(peer.namespaceSelector, pod.namespaceLabels)
}

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
    if (remembered.size >= DECISION_CACHE_ENTRIES) {
      // All at once: it is rare, and to find the oldest would cost every hit.
      remembered.clear()
      slots.clear()
    } else remembered.set(key, { address, decision })
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
