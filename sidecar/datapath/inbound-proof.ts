/** What arrives at a server after its SYN-ACK and before the release: the proof, what overtook it, what is late or lost. */
import { MARK_OWN } from '../../api/marks.ts'
import { type Frame, HASH_BYTES, PROOF_HASH_AT } from '../handshake/frame.ts'
import { attachSynAckFrame, proofClientIsn, verifyProofPacket } from '../handshake/server.ts'
import { buildTcp, buildTcpAnswer } from '../packet/build.ts'
import {
  createPacket,
  decodePacket,
  FLAG_ACK,
  FLAG_RST,
  FLAG_SYN,
  IPV6_HEADER_BYTES,
  type Packet,
  TCP_HEADER_BYTES,
} from '../packet/decode.ts'
import { consumePayload } from '../packet/rewrite.ts'
import { MAXIMUM_EARLY_BYTES, SYN_ACK_REPEAT_MILLISECONDS } from './bounds.ts'
import { connectionKey, tupleKey } from './connection-key.ts'
import { byPolicy, denies } from './denial.ts'
import type { Gate } from './gate.ts'
import type { HalfOpen } from './half-open.ts'
import { decideIdentified } from './judge.ts'
import { judgeMidstream } from './midstream.ts'
import { drop, type Outcome, pass, release } from './outcome.ts'
import type { KnownPeer } from './peers.ts'
import { serverView } from './views.ts'

const EMPTY = new Uint8Array(0)

/** A good proof releases the connection and goes on without its payload: as the client kernel's ACK, for which it stands. */
export function handleProof(gate: Gate, bytes: Buffer, packet: Packet, frame: Frame, outcome: Outcome): void {
  gate.counters.packet('proof-in')
  if (!gate.ready || !gate.own) return drop(outcome, 'not-ready')
  const hashAt = frame.start + PROOF_HASH_AT
  const peer = gate.peers.findByHash(bytes, hashAt, hashAt + HASH_BYTES)
  if (!peer) return drop(outcome, 'stale')
  const failure = verifyProofPacket(serverView(gate, gate.own), bytes, packet, frame, peer)
  if (failure !== 'ok') return drop(outcome, failure)
  const decision = decideIdentified(gate, 'ingress', peer, packet.family, packet.destinationPort)
  if (!decision.allowed) {
    const isTold = gate.halfOpen.findAnswered(tupleKey(bytes, packet, true))?.told === true
    if (denies(gate, bytes, packet, byPolicy('ingress', peer, packet, decision, isTold))) {
      return refuseProved(gate, proofClientIsn(packet), bytes, packet, outcome)
    }
  }
  const serverIsn = (packet.acknowledgement - 1) >>> 0
  const clientIsn = proofClientIsn(packet)
  const tuple = tupleKey(bytes, packet, true)
  const slot = gate.halfOpen.findAnswered(tuple)
  const packetBytes = consumePayload(bytes, packet, outcome.packet)
  if (!slot) {
    // The slot went to another connection meanwhile, or nobody waits for this proof: it alone carries all that the
    // kernel needs, and the connection's next packet releases, if there is one.
    const claimed = gate.halfOpen.claim(connectionKey(bytes, packet, true, clientIsn))
    claimed.kind = 'identified'
    claimed.clientIsn = clientIsn
    claimed.openedAt = gate.nowMilliseconds / 1000
    gate.halfOpen.answer(tuple, serverIsn)
    noteProof(gate, claimed, peer)
    return pass(outcome, packetBytes)
  }
  if (slot.kind !== 'identified' || slot.clientIsn !== clientIsn || slot.serverIsn !== serverIsn) {
    // An old one: the tuple has another connection now.
    return drop(outcome, 'mac')
  }
  if (slot.proved) return drop(outcome)
  noteProof(gate, slot, peer)
  release(outcome, peer.index, packetBytes)
}

function noteProof(gate: Gate, slot: HalfOpen, peer: KnownPeer): void {
  gate.counters.released('ingress', 'identified')
  slot.peer = peer
  slot.proved = true
  slot.provedUnder = gate.policy
}

/** ACKs and data of a connection that is not released: they overtook the proof, the proof was lost, or it is old. */
export function handleUnreleased(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  // Whoever waits for the release has heard nothing of the server but its SYN-ACK.
  const tuple = tupleKey(bytes, packet, true)
  const slot = gate.halfOpen.findAnswered(tuple)
  if (slot?.serverIsn === (packet.acknowledgement - 1) >>> 0) {
    gate.counters.packet('late')
    // A reset in answer to a number of nobody's would carry the right one, and end the connection.
    if ((packet.sequence - slot.clientIsn - 1) >>> 0 >= MAXIMUM_EARLY_BYTES) return drop(outcome, 'stale')
    if (slot.kind === 'identified' && !slot.proved) return repeatSynAck(gate, slot, bytes, packet, outcome)
    if (slot.peer) return releaseProved(gate, slot, slot.peer, bytes, packet, outcome)
    if (slot.kind === 'own') return release(outcome, MARK_OWN)
    // Released at its SYN-ACK already, unless policies have changed since.
    return slot.provedUnder === gate.policy ? release(outcome, 0) : drop(outcome, 'policy')
  }
  const syn = gate.recentSyns.find(tuple)
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
    if (!decision.allowed && denies(gate, bytes, packet, byPolicy('ingress', peer, packet, decision, slot.told))) {
      return refuseProved(gate, slot.clientIsn, bytes, packet, outcome)
    }
  }
  release(outcome, peer.index)
}

/**
 * Ends a connection that its SYN's policy allowed and the one of now does not: the own kernel gets a reset, and the client
 * one of its own. A kernel that heard nothing would repeat its SYN-ACK; once policy allows the client again, the client's
 * sidecar would prove that one too, for a socket that its kernel has not any more.
 */
function refuseProved(gate: Gate, clientIsn: number, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const { family, sourceOffset, destinationOffset, addressBytes, sourcePort, destinationPort } = packet
  const reset = {
    family,
    source: bytes.subarray(sourceOffset, sourceOffset + addressBytes),
    destination: bytes.subarray(destinationOffset, destinationOffset + addressBytes),
    sourcePort,
    destinationPort,
    sequence: (clientIsn + 1) >>> 0,
    acknowledgement: packet.acknowledgement,
    flags: FLAG_RST | FLAG_ACK,
    window: 0,
  }
  pass(outcome, buildTcp(reset, EMPTY, outcome.packet))
  if (gate.settings.refusal === 'drop') return
  const answer = { sequence: packet.acknowledgement, acknowledgement: 0, flags: FLAG_RST, window: 0 }
  outcome.replyBytes = buildTcpAnswer(bytes, packet, answer, EMPTY, outcome.reply)
}

/**
 * The proof did not come: ask for it again with a SYN-ACK of our own, as the kernel does a second later, or never
 * where it sent SYN cookies. The client's sidecar answers it with the proof; to its kernel it is a duplicate.
 */
function repeatSynAck(gate: Gate, slot: HalfOpen, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if (gate.nowMilliseconds - slot.repeatedAt < SYN_ACK_REPEAT_MILLISECONDS) return drop(outcome)
  if (gate.settings.mode !== 'enforce' && slot.repeats > 0) {
    denies(gate, bytes, packet, { direction: 'ingress', refusal: 'mac', peer: slot.peer?.asPeer[packet.family] })
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
    slot.nonces,
    slot.repeats % 2 === 1 ? slot.firstNonceAt : slot.nonceAt,
    gate.nowMilliseconds / 1000,
    synAck,
    repeatedPacket,
    out,
  )
}
