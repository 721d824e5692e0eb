/** What arrives at a server after its SYN-ACK and before the release: the proof, what overtook it, what is late or lost. */
import { MARK_OWN } from '../../api/marks.ts'
import { type Frame, HASH_BYTES, PROOF_HASH_AT } from '../handshake/frame.ts'
import { attachSynAckFrame, proofClientIsn, verifyProofPacket } from '../handshake/server.ts'
import { buildTcpAnswer } from '../packet/build.ts'
import {
  createPacket,
  decodePacket,
  FLAG_ACK,
  FLAG_SYN,
  IPV6_HEADER_BYTES,
  type Packet,
  TCP_HEADER_BYTES,
} from '../packet/decode.ts'
import { stripPayload } from '../packet/rewrite.ts'
import { MAXIMUM_EARLY_BYTES, SYN_ACK_REPEAT_MILLISECONDS } from './bounds.ts'
import { denies, type Gate } from './gate.ts'
import { connectionKey, type HalfOpen, tupleKey } from './half-open.ts'
import { decideIdentified } from './judge.ts'
import { judgeMidstream } from './midstream.ts'
import { drop, type Outcome, pass, refuse, release } from './outcome.ts'
import { type KnownPeer, nameOf } from './peers.ts'
import { serverView } from './views.ts'

const EMPTY = new Uint8Array(0)

/**
 * A good proof is noted and dropped; the packet behind it, the client kernel's own ACK, then releases the connection.
 * Were it released here, later packets would pass by while that ACK still waits in the queue, and an ACK that reaches
 * a connection already closed makes the server's kernel send a reset, which ends whatever uses the tuple next.
 */
export function handleProof(gate: Gate, bytes: Buffer, packet: Packet, frame: Frame, outcome: Outcome): void {
  gate.counters.packet('proof-in')
  if (!gate.ready || !gate.own) return drop(outcome, 'not-ready')
  const hashAt = frame.start + PROOF_HASH_AT
  const peer = gate.peers.findByHash(bytes, hashAt, hashAt + HASH_BYTES)
  if (!peer) return drop(outcome, 'stale')
  const failure = verifyProofPacket(serverView(gate, gate.own), bytes, packet, frame, peer)
  if (failure !== 'ok') return drop(outcome, failure)
  const decision = decideIdentified(gate, 'ingress', peer, packet.family, packet.destinationPort)
  if (!decision.allowed && denies(gate, 'ingress', 'policy', bytes, packet, nameOf(peer), decision)) {
    return refuse(outcome, 'policy', stripPayload(bytes, packet, outcome.packet))
  }
  const slot = slotOfProof(gate, bytes, packet)
  if (!slot) return drop(outcome, 'mac')
  if (!slot.proved) gate.counters.released('ingress', 'identified')
  slot.peer = peer
  slot.proved = true
  slot.provedUnder = gate.policy
  drop(outcome)
}

/**
 * The slot of the connection that a good proof names by both initial sequence numbers; undefined where the SYN's slot
 * knows another answer: the proof is an old one, and the SYN may be a recorded one.
 */
function slotOfProof(gate: Gate, bytes: Buffer, packet: Packet): HalfOpen | undefined {
  const serverIsn = (packet.acknowledgement - 1) >>> 0
  const clientIsn = proofClientIsn(packet)
  const key = connectionKey(bytes, packet, true, clientIsn)
  let slot = gate.halfOpen.find(key)
  if (slot?.kind === 'identified' && slot.answered) return slot.serverIsn === serverIsn ? slot : undefined
  if (slot?.kind !== 'identified') {
    // The slot went to another connection meanwhile; the proof alone carries all that is needed.
    slot = gate.halfOpen.claim(key)
    slot.kind = 'identified'
    slot.clientIsn = clientIsn
  }
  gate.halfOpen.answer(slot, connectionKey(bytes, packet, true, serverIsn), serverIsn)
  return slot
}

/** ACKs and data of a connection that is not released: they overtook the proof, the proof was lost, or it is old. */
export function handleUnreleased(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  // Whoever waits for the release has heard nothing of the server but its SYN-ACK.
  const slot = gate.halfOpen.findAnswered(connectionKey(bytes, packet, true, (packet.acknowledgement - 1) >>> 0))
  if (slot) {
    gate.counters.packet('late')
    // A reset in answer to a number of nobody's would carry the right one, and end the connection.
    if ((packet.sequence - slot.clientIsn - 1) >>> 0 >= MAXIMUM_EARLY_BYTES) return drop(outcome, 'stale')
    if (slot.kind === 'identified' && !slot.proved) return repeatSynAck(gate, slot, bytes, packet, outcome)
    if (slot.peer) return releaseProved(gate, slot, slot.peer, bytes, packet, outcome)
    if (slot.kind === 'own') return release(outcome, MARK_OWN)
    // Released at its SYN-ACK already, unless policies have changed since.
    return slot.provedUnder === gate.policy ? release(outcome, 0) : drop(outcome, 'policy')
  }
  const syn = gate.recentSyns.find(tupleKey(bytes, packet, true))
  // A challenge ACK from a server that still knows an older connection (RFC 5961): the own kernel resets that one.
  if (syn && !syn.released && packet.payloadBytes === 0 && (packet.flags & ~FLAG_PSH_ACK) === 0) return pass(outcome)
  gate.counters.packet('midstream')
  judgeMidstream(gate, 'inbound', bytes, packet, outcome)
}

const FLAG_PSH_ACK = 0x18

/** Releases a proved connection, by what is known of its peer now: it may have kept its ACK back for a while. */
function releaseProved(
  gate: Gate,
  slot: HalfOpen,
  proved: KnownPeer,
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  const peer = gate.peers.findByHash(proved.witHash, 0, HASH_BYTES)
  if (!peer) return drop(outcome, 'stale')
  if (peer.refused !== '') return drop(outcome, peer.refused)
  if (peer !== proved || slot.provedUnder !== gate.policy) {
    const decision = decideIdentified(gate, 'ingress', peer, packet.family, packet.destinationPort)
    if (!decision.allowed && denies(gate, 'ingress', 'policy', bytes, packet, nameOf(peer), decision)) {
      return refuse(outcome, 'policy')
    }
  }
  release(outcome, peer.index)
}

/**
 * The proof did not come: ask for it again with a SYN-ACK of our own, as the kernel does a second later, or never
 * where it sent SYN cookies. The client's sidecar answers it with the proof; to its kernel it is a duplicate.
 */
function repeatSynAck(gate: Gate, slot: HalfOpen, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if (gate.nowMilliseconds - slot.repeatedAt < SYN_ACK_REPEAT_MILLISECONDS) return drop(outcome)
  if (gate.settings.mode !== 'enforce' && slot.repeats > 0) {
    denies(gate, 'ingress', 'mac', bytes, packet, slot.peer ? nameOf(slot.peer) : '', undefined)
    slot.proved = true
    slot.peer = undefined
    return release(outcome, 0)
  }
  slot.repeatedAt = gate.nowMilliseconds
  slot.repeats++
  gate.counters.add('syn_ack_repeats_total')
  drop(outcome, '', buildRepeatedSynAck(gate, slot, bytes, packet, outcome.reply))
}

const repeated = Buffer.alloc(IPV6_HEADER_BYTES + TCP_HEADER_BYTES)
const repeatedPacket = createPacket()

function buildRepeatedSynAck(gate: Gate, slot: HalfOpen, bytes: Buffer, packet: Packet, out: Buffer): number {
  if (!gate.own || !slot.peer) return 0
  const length = buildTcpAnswer(
    bytes,
    packet,
    {
      sequence: slot.serverIsn,
      acknowledgement: (slot.clientIsn + 1) >>> 0,
      flags: FLAG_SYN | FLAG_ACK,
      window: 0xffff,
    },
    EMPTY,
    repeated,
  )
  const synAck = repeated.subarray(0, length)
  if (decodePacket(synAck, repeatedPacket) !== 'ok') return 0
  return attachSynAckFrame(
    gate.secret,
    gate.own,
    slot.peer,
    slot.version,
    slot.nonce,
    gate.nowMilliseconds / 1000,
    synAck,
    repeatedPacket,
    out,
  )
}
