/** Packets that arrive, in the order of design: SYN, SYN-ACK, proof, and what is late, lost or of no connection. */
import { MARK_OWN, MARK_RELEASED, MARK_STALE } from '../../api/marks.ts'
import { buildProof, createVerifiedSynAck, type VerifiedSynAck, verifySynAck } from '../handshake/client.ts'
import {
  createFrame,
  decodeFrame,
  FRAME_PROOF,
  FRAME_RESYNC,
  FRAME_SYN,
  FRAME_SYN_ACK,
  HASH_BYTES,
  NONCE_AT,
  NONCE_BYTES,
  PROOF_HASH_AT,
} from '../handshake/frame.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { attachSynAckFrame, proofClientIsn, verifyProofPacket, verifySyn } from '../handshake/server.ts'
import { buildTcp } from '../packet/build.ts'
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
import { stripPayload, toReset } from '../packet/rewrite.ts'
import { HOLD_MILLISECONDS, SYN_ACK_REPEAT_MILLISECONDS } from './bounds.ts'
import { addressText, denies, type Gate, peerName } from './gate.ts'
import { type HalfOpen, tupleKey } from './half-open.ts'
import { decideIdentified, judgeAddress, type Meeting } from './judge.ts'
import { judgeMidstream } from './midstream.ts'
import { drop, hold, type Outcome, pass, refuse, release } from './outcome.ts'
import type { KnownPeer } from './peers.ts'
import { clientView, serverView } from './views.ts'

const frame = createFrame()

/** Decides for a TCP packet in the INPUT hook; `mark` is the connection's. */
export function handleInbound(gate: Gate, mark: number, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if ((packet.flags & FLAG_SYN) !== 0) {
    if ((packet.flags & FLAG_ACK) !== 0) handleSynAck(gate, mark, bytes, packet, outcome)
    else handleSyn(gate, mark, bytes, packet, outcome)
    return
  }
  if ((packet.flags & FLAG_RST) !== 0) return pass(outcome)
  const decoded = decodeFrame(bytes, packet.payloadOffset, packet.totalBytes, frame)
  if (decoded === 'ok' && frame.type === FRAME_PROOF) return handleProof(gate, bytes, packet, outcome)
  handleOther(gate, bytes, packet, outcome)
}

// ---- SYN: somebody opens a connection to this Pod ----

function handleSyn(gate: Gate, mark: number, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet('syn-in')
  if (
    packet.destinationPort === gate.settings.healthPort &&
    gate.sockets.isOwnListener(packet.family, packet.destinationPort)
  ) {
    claim(gate, bytes, packet, 'own', undefined)
    return pass(outcome)
  }
  const onReleased = (mark & MARK_RELEASED) !== 0
  if (!gate.ready || !gate.own) return drop(outcome, 'not-ready')
  const decoded = decodeFrame(bytes, packet.payloadOffset, packet.totalBytes, frame)
  if (decoded === 'none') return handlePlainSyn(gate, onReleased, bytes, packet, outcome)
  if (decoded !== 'ok' || frame.type !== FRAME_SYN) {
    return settleUnidentified(gate, onReleased, 'frame', bytes, packet, outcome)
  }

  const found = gate.peers.findBySection(bytes, frame.witAt, frame.witAt + frame.witBytes, gate.nowMilliseconds)
  if (found === undefined) return needVerification(gate, bytes, packet, outcome)
  if (typeof found === 'string') return settleUnidentified(gate, onReleased, found, bytes, packet, outcome)
  const failure = verifySyn(serverView(gate, gate.own), bytes, packet, found)
  if (failure !== 'ok') return settleUnidentified(gate, onReleased, failure, bytes, packet, outcome)

  const key = tupleKey(bytes, packet, true)
  const pending = gate.halfOpen.find(key)
  const samePending = pending !== undefined && !pending.proved && pending.clientIsn === packet.sequence
  if (samePending && pending.peer && pending.peer.identity.uid !== found.identity.uid) return drop(outcome, 'mac')

  const decision = decideIdentified(gate, 'ingress', found, packet.family, packet.destinationPort)
  if (!decision.allowed && denies(gate, 'ingress', 'policy', bytes, packet, nameOf(found), decision)) {
    return refuseSyn(gate, onReleased, 'policy', bytes, packet, outcome)
  }
  const slot = gate.halfOpen.claim(key)
  fillSlot(slot, 'identified', found, packet)
  slot.version = frame.version
  if ((mark & MARK_STALE) !== 0) slot.staleFrameBytes = packet.payloadBytes
  bytes.copy(slot.nonce, 0, frame.start + NONCE_AT, frame.start + NONCE_AT + NONCE_BYTES)
  pass(outcome, stripPayload(bytes, packet, outcome.packet))
}

/** A SYN without a frame: a peer without a sidecar, the node, an address outside, or a repetition of a framed SYN. */
function handlePlainSyn(gate: Gate, onReleased: boolean, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const pending = gate.halfOpen.find(tupleKey(bytes, packet, true))
  if (pending?.kind === 'identified' && !pending.proved && pending.clientIsn === packet.sequence) return pass(outcome)

  const meeting: Meeting = { direction: 'ingress', protocol: 'TCP', port: packet.destinationPort, witExpected: true }
  const judgement = judgeAddress(gate, meeting, bytes, packet.sourceOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') return needAddress(outcome, judgement.address)
  const { decision, refusal, peer } = judgement
  if (!decision.allowed && denies(gate, 'ingress', refusal, bytes, packet, peerName(peer), decision)) {
    return refuseSyn(gate, onReleased, refusal, bytes, packet, outcome)
  }
  claim(gate, bytes, packet, 'plain', undefined)
  pass(outcome, packet.payloadBytes > 0 ? stripPayload(bytes, packet, outcome.packet) : 0)
}

/** A SYN whose identity does not hold. Where the mode tolerates that, the connection goes on as one without identity. */
function settleUnidentified(
  gate: Gate,
  onReleased: boolean,
  refusal: Refusal,
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  if (denies(gate, 'ingress', refusal, bytes, packet, '', undefined)) {
    return refuseSyn(gate, onReleased, refusal, bytes, packet, outcome)
  }
  claim(gate, bytes, packet, 'plain', undefined)
  pass(outcome, stripPayload(bytes, packet, outcome.packet))
}

/** Refused in silence: the client's next SYN may well show a WIT, or a newer one. */
const SILENT: ReadonlySet<Refusal> = new Set(['wit-void', 'wit-expired', 'no-wit'])

/**
 * Refuses a SYN. Without its frame, or the reset would acknowledge the frame and the client ignore it. On a released
 * connection a refusal must not end what is running: silence.
 */
function refuseSyn(
  gate: Gate,
  onReleased: boolean,
  refusal: Refusal,
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  if (onReleased || gate.settings.refusal === 'drop' || SILENT.has(refusal)) {
    return drop(outcome, refusal)
  }
  refuse(outcome, refusal, stripPayload(bytes, packet, outcome.packet))
}

function claim(gate: Gate, bytes: Buffer, packet: Packet, kind: HalfOpen['kind'], peer: KnownPeer | undefined): void {
  fillSlot(gate.halfOpen.claim(tupleKey(bytes, packet, true)), kind, peer, packet)
}

function fillSlot(slot: HalfOpen, kind: HalfOpen['kind'], peer: KnownPeer | undefined, packet: Packet): void {
  slot.kind = kind
  slot.peer = peer
  slot.clientIsn = packet.sequence
}

/**
 * Holds the packet until its WIT is verified. What is being verified already costs nothing more; a new one is only
 * taken on while neither its source nor all sources together ask too often.
 */
function needVerification(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const section = Buffer.from(bytes.subarray(frame.witAt, frame.witAt + frame.witBytes))
  const key = `wit ${section.toString('latin1')}`
  const now = gate.nowMilliseconds
  const since = gate.verifying.get(key)
  if (since === undefined || now - since > HOLD_MILLISECONDS) {
    const source = bytes.toString('latin1', packet.sourceOffset, packet.sourceOffset + packet.addressBytes)
    if (!gate.verifications.take(source, now) || !gate.allVerifications.take(now)) return drop(outcome, 'busy')
    gate.verifying.set(key, now)
  }
  hold(outcome, { kind: 'verify', key, section })
}

function needAddress(outcome: Outcome, address: string): void {
  hold(outcome, { kind: 'resolve', key: `address ${address}`, address })
}

// ---- SYN-ACK: the answer to a connection that this Pod opens ----

const verified: VerifiedSynAck = createVerifiedSynAck()

function handleSynAck(gate: Gate, mark: number, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet('syn-ack-in')
  if ((mark & MARK_OWN) !== 0) return release(outcome, MARK_OWN)
  if (!gate.own) return drop(outcome, 'not-ready')
  const decoded = decodeFrame(bytes, packet.payloadOffset, packet.totalBytes, frame)
  if (decoded === 'none') return handlePlainSynAck(gate, bytes, packet, outcome)
  if (decoded === 'ok' && frame.type === FRAME_RESYNC) return drop(outcome)
  if (decoded !== 'ok' || frame.type !== FRAME_SYN_ACK) return settleBadSynAck(gate, 'frame', bytes, packet, outcome)

  const found = gate.peers.findBySection(bytes, frame.witAt, frame.witAt + frame.witBytes, gate.nowMilliseconds)
  if (found === undefined) return needVerification(gate, bytes, packet, outcome)
  if (typeof found === 'string') return settleBadSynAck(gate, found, bytes, packet, outcome)
  if (found.identity.uid === gate.own.uid) {
    // Our own WIT: only the directory can tell whether the dialled address is a Service with this Pod behind it.
    const address = addressText(bytes, packet.sourceOffset, packet.addressBytes)
    if (gate.directory.get(address) === undefined) return needAddress(outcome, address)
  }
  const failure = verifySynAck(clientView(gate, gate.own), bytes, packet, frame, found, verified)
  if (failure !== 'ok') return settleBadSynAck(gate, failure, bytes, packet, outcome)

  const decision = decideIdentified(gate, 'egress', found, packet.family, verified.serverPort)
  if (
    !decision.allowed &&
    !verified.hairpin &&
    denies(gate, 'egress', 'policy', bytes, packet, nameOf(found), decision)
  ) {
    return refuseSynAck(gate, bytes, packet, outcome)
  }
  const index = indexOf(gate, bytes, packet, found)
  if (index === undefined) {
    const port = verified.serverPort
    return hold(outcome, { kind: 'row', key: `row ${found.index} ${port}`, index: found.index, port })
  }
  noteReleased(gate, bytes, packet)
  gate.counters.released('egress', 'identified')
  const replyBytes = buildProof(verified, bytes, packet, outcome.reply)
  release(outcome, index, stripPayload(bytes, packet, outcome.packet), replyBytes)
}

/**
 * The row of the identity table for this connection. Behind a translated address the connection's own port is the
 * Service's: a row of its own then keeps the real one, by which a later policy judges the connection.
 */
function indexOf(gate: Gate, bytes: Buffer, packet: Packet, peer: KnownPeer): number | undefined {
  const direct =
    frame.serverPort === packet.sourcePort &&
    bytes.compare(
      bytes,
      packet.sourceOffset,
      packet.sourceOffset + packet.addressBytes,
      frame.serverAddressAt,
      frame.serverAddressAt + frame.addressBytes,
    ) === 0
  if (direct || gate.settings.mode === 'off') return peer.index
  return peer.indexByPort.get(frame.serverPort)
}

/** A SYN-ACK without a frame: from outside, from a Pod without a sidecar, or of a server that took our frame as data. */
function handlePlainSynAck(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const syn = gate.recentSyns.find(tupleKey(bytes, packet, true))
  if (syn?.framed && packet.acknowledgement !== (syn.isn + 1) >>> 0) {
    // A Fast Open server took the frame as data. The own kernel resets this; the repeated SYN goes without a frame.
    gate.frameless.set(addressText(bytes, packet.sourceOffset, packet.addressBytes), true)
    return pass(outcome, packet.payloadBytes > 0 ? stripPayload(bytes, packet, outcome.packet) : 0)
  }
  const meeting: Meeting = { direction: 'egress', protocol: 'TCP', port: packet.sourcePort, witExpected: true }
  const judgement = judgeAddress(gate, meeting, bytes, packet.sourceOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') return needAddress(outcome, judgement.address)
  const { decision, refusal, peer } = judgement
  if (!decision.allowed && denies(gate, 'egress', refusal, bytes, packet, peerName(peer), decision)) {
    return refuseSynAck(gate, bytes, packet, outcome)
  }
  noteReleased(gate, bytes, packet)
  gate.counters.released('egress', 'plain')
  release(outcome, 0)
}

function noteReleased(gate: Gate, bytes: Buffer, packet: Packet): void {
  const syn = gate.recentSyns.find(tupleKey(bytes, packet, true))
  if (syn) syn.released = true
}

/** What is wrong before the MAC was verified may come from anybody: silence. After it, it is the server's own word. */
function settleBadSynAck(gate: Gate, refusal: Refusal, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if (!denies(gate, 'egress', refusal, bytes, packet, '', undefined)) {
    noteReleased(gate, bytes, packet)
    return release(outcome, 0, stripPayload(bytes, packet, outcome.packet))
  }
  if (refusal === 'relayed' || refusal === 'reflected') return refuseSynAck(gate, bytes, packet, outcome)
  drop(outcome, refusal)
}

/** Ends a connection at its SYN-ACK: the own kernel gets a reset in its place, the server one of its own. */
function refuseSynAck(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const replyBytes = buildTcp(
    {
      family: packet.family,
      source: bytes.subarray(packet.destinationOffset, packet.destinationOffset + packet.addressBytes),
      destination: bytes.subarray(packet.sourceOffset, packet.sourceOffset + packet.addressBytes),
      sourcePort: packet.destinationPort,
      destinationPort: packet.sourcePort,
      sequence: packet.acknowledgement,
      acknowledgement: 0,
      flags: FLAG_RST,
      window: 0,
    },
    EMPTY,
    outcome.reply,
  )
  if (gate.settings.refusal === 'drop') return drop(outcome, 'policy', replyBytes)
  pass(outcome, toReset(bytes, packet, outcome.packet))
  outcome.replyBytes = replyBytes
}

const EMPTY = new Uint8Array(0)

// ---- Proof, and everything else that arrives before the connection is released ----

/**
 * A good proof is noted and dropped; the packet behind it, the client kernel's own ACK, then releases the connection.
 * Were it released here, later packets would pass by while that ACK still waits in the queue, and an ACK that reaches
 * a connection already closed makes the server's kernel send a reset, which ends whatever uses the tuple next.
 */
function handleProof(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet('proof-in')
  if (!gate.own) return drop(outcome, 'not-ready')
  const hashAt = frame.start + PROOF_HASH_AT
  const peer = gate.peers.findByHash(bytes, hashAt, hashAt + HASH_BYTES)
  if (!peer) return drop(outcome, 'stale')
  const failure = verifyProofPacket(serverView(gate, gate.own), bytes, packet, frame, peer)
  if (failure !== 'ok') return drop(outcome, failure)
  const hairpin = peer.identity.uid === gate.own.uid
  const decision = decideIdentified(gate, 'ingress', peer, packet.family, packet.destinationPort)
  if (!decision.allowed && !hairpin && denies(gate, 'ingress', 'policy', bytes, packet, nameOf(peer), decision)) {
    return refuse(outcome, 'policy', stripPayload(bytes, packet, outcome.packet))
  }
  const key = tupleKey(bytes, packet, true)
  const clientIsn = proofClientIsn(packet)
  let slot = gate.halfOpen.find(key)
  if (slot?.kind !== 'identified' || slot.clientIsn !== clientIsn) {
    // The slot went to another connection meanwhile; the proof alone carries all that is needed.
    slot = gate.halfOpen.claim(key)
    fillSlot(slot, 'identified', peer, packet)
    slot.clientIsn = clientIsn
    slot.serverIsn = (packet.acknowledgement - 1) >>> 0
    slot.answered = true
  }
  if (!slot.proved) gate.counters.released('ingress', 'identified')
  slot.peer = peer
  slot.proved = true
  drop(outcome)
}

/** ACKs and data of a connection that is not released: they overtook the proof, the proof was lost, or it is old. */
function handleOther(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const key = tupleKey(bytes, packet, true)
  const slot = gate.halfOpen.find(key)
  if (slot?.answered) {
    if (slot.proved || slot.kind !== 'identified') {
      gate.counters.packet('late')
      const index = slot.kind === 'own' ? MARK_OWN : (slot.peer?.index ?? 0)
      return release(outcome, index)
    }
    gate.counters.packet('late')
    return repeatSynAck(gate, slot, bytes, packet, outcome)
  }
  const syn = gate.recentSyns.find(key)
  // A challenge ACK from a server that still knows an older connection (RFC 5961): the own kernel resets that one.
  if (syn && !syn.released && packet.payloadBytes === 0 && (packet.flags & ~FLAG_PSH_ACK) === 0) return pass(outcome)
  gate.counters.packet('midstream')
  judgeMidstream(gate, 'inbound', bytes, packet, outcome)
}

const FLAG_PSH_ACK = 0x18

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
  const length = buildTcp(
    {
      family: packet.family,
      source: bytes.subarray(packet.destinationOffset, packet.destinationOffset + packet.addressBytes),
      destination: bytes.subarray(packet.sourceOffset, packet.sourceOffset + packet.addressBytes),
      sourcePort: packet.destinationPort,
      destinationPort: packet.sourcePort,
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
  return attachSynAckFrame(gate.secret, gate.own, slot.peer, slot.version, slot.nonce, synAck, repeatedPacket, out)
}

function nameOf(peer: KnownPeer): string {
  return `${peer.identity.namespace}/${peer.identity.name}`
}
