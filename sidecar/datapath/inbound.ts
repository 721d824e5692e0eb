/** Packets that arrive, in the order of design: SYN, SYN-ACK, proof, and what is late, lost or of no connection. */
import { MARK_INDEX, MARK_OWN, MARK_RELEASED, MARK_STALE } from '../../api/marks.ts'
import {
  buildProof,
  createVerifiedSynAck,
  holdsAddress,
  type VerifiedSynAck,
  verifySynAck,
} from '../handshake/client.ts'
import {
  createFrame,
  decodeFrame,
  FRAME_PROOF,
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
import { HOLD_MILLISECONDS, MAXIMUM_EARLY_BYTES, SYN_ACK_REPEAT_MILLISECONDS } from './bounds.ts'
import { addressText, denies, type Gate, peerName } from './gate.ts'
import { connectionKey, type HalfOpen, tupleKey } from './half-open.ts'
import { decideIdentified, judgeAddress, type Meeting } from './judge.ts'
import { judgeMidstream } from './midstream.ts'
import { drop, hold, type Outcome, pass, refuse, release } from './outcome.ts'
import type { KnownPeer } from './peers.ts'
import type { RecentSyn } from './recent-syns.ts'
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
    claim(gate, bytes, packet, 'own')
    return pass(outcome)
  }
  const onReleased = (mark & MARK_RELEASED) !== 0
  if (!gate.ready || !gate.own) return drop(outcome, 'not-ready')
  if (gate.own.expiresAt * 1000 < gate.nowMilliseconds) {
    return settleUnidentified(gate, onReleased, 'identity-expired', bytes, packet, outcome)
  }
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

  const pending = gate.halfOpen.find(connectionKey(bytes, packet, true, packet.sequence))
  if (pending?.peer && pending.peer.identity.uid !== found.identity.uid) return drop(outcome, 'mac')

  const decision = decideIdentified(gate, 'ingress', found, packet.family, packet.destinationPort)
  const hairpin = found.identity.uid === gate.own.uid
  if (!decision.allowed && !hairpin && denies(gate, 'ingress', 'policy', bytes, packet, nameOf(found), decision)) {
    return refuseSyn(gate, onReleased, 'policy', bytes, packet, outcome)
  }
  const slot = claim(gate, bytes, packet, 'identified')
  if (!slot.proved) {
    slot.peer = found
    slot.version = frame.version
    // A repetition finds this very connection in conntrack, no former one.
    if (!slot.answered && (mark & MARK_STALE) !== 0 && !gate.sockets.isEstablished(bytes, packet, true)) {
      gate.sockets.reopenTracking(bytes, packet)
    }
    bytes.copy(slot.nonce, 0, frame.start + NONCE_AT, frame.start + NONCE_AT + NONCE_BYTES)
  }
  pass(outcome, stripPayload(bytes, packet, outcome.packet))
}

/** A SYN without a frame: a peer without a sidecar, the node, an address outside, or a repetition of a framed SYN. */
function handlePlainSyn(gate: Gate, onReleased: boolean, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if (isIdentified(gate, bytes, packet)) return passWithoutData(bytes, packet, outcome)

  const meeting: Meeting = { direction: 'ingress', protocol: 'TCP', port: packet.destinationPort, witExpected: true }
  const judgement = judgeAddress(gate, meeting, bytes, packet.sourceOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') return needAddress(outcome, judgement.address)
  const { decision, refusal, peer } = judgement
  if (!decision.allowed && denies(gate, 'ingress', refusal, bytes, packet, peerName(peer), decision)) {
    return refuseSyn(gate, onReleased, refusal, bytes, packet, outcome)
  }
  claim(gate, bytes, packet, 'plain').provedUnder = gate.policy
  passWithoutData(bytes, packet, outcome)
}

/** A SYN goes to the kernel without data: nobody has decided for its connection yet. */
function passWithoutData(bytes: Buffer, packet: Packet, outcome: Outcome): void {
  pass(outcome, packet.payloadBytes > 0 ? stripPayload(bytes, packet, outcome.packet) : 0)
}

/** True where this very SYN was here before with an identity: it stays that connection's, whatever comes without. */
function isIdentified(gate: Gate, bytes: Buffer, packet: Packet): boolean {
  return gate.halfOpen.find(connectionKey(bytes, packet, true, packet.sequence))?.kind === 'identified'
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
  const pending = isIdentified(gate, bytes, packet)
  if (denies(gate, 'ingress', refusal, bytes, packet, '', undefined)) {
    // A damaged or forged copy of a SYN whose identity held does not end that connection.
    return refuseSyn(gate, onReleased || pending, refusal, bytes, packet, outcome)
  }
  if (!pending) claim(gate, bytes, packet, 'plain')
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
  silent: boolean,
  refusal: Refusal,
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  if (silent || gate.settings.refusal === 'drop' || SILENT.has(refusal)) {
    return drop(outcome, refusal)
  }
  refuse(outcome, refusal, stripPayload(bytes, packet, outcome.packet))
}

/** The SYN's slot. A repetition finds the one it had, with what is known of the connection since. */
function claim(gate: Gate, bytes: Buffer, packet: Packet, kind: HalfOpen['kind']): HalfOpen {
  const key = connectionKey(bytes, packet, true, packet.sequence)
  const known = gate.halfOpen.find(key)
  if (known?.kind === kind) return known
  const slot = gate.halfOpen.claim(key)
  slot.kind = kind
  slot.clientIsn = packet.sequence
  return slot
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
  if (!gate.ready || !gate.own) return drop(outcome, 'not-ready')
  const decoded = decodeFrame(bytes, packet.payloadOffset, packet.totalBytes, frame)
  if (answersAnotherSyn(gate, bytes, packet)) return passWithoutData(bytes, packet, outcome)
  const onReleased = (mark & MARK_RELEASED) !== 0
  if (decoded === 'none') return handlePlainSynAck(gate, onReleased, bytes, packet, outcome)
  if (decoded !== 'ok' || frame.type !== FRAME_SYN_ACK) {
    return settleBadSynAck(gate, onReleased, 'frame', bytes, packet, outcome)
  }

  const found = gate.peers.findBySection(bytes, frame.witAt, frame.witAt + frame.witBytes, gate.nowMilliseconds)
  if (found === undefined) return needVerification(gate, bytes, packet, outcome)
  if (typeof found === 'string') return settleBadSynAck(gate, onReleased, found, bytes, packet, outcome)
  if (found.identity.uid === gate.own.uid) {
    // Our own WIT: only the directory can tell whether the dialled address is a Service with this Pod behind it.
    const address = addressText(bytes, packet.sourceOffset, packet.addressBytes)
    if (gate.directory.get(address) === undefined) return needAddress(outcome, address)
  }
  if (isOtherPod(gate, bytes, packet, found)) {
    return settleBadSynAck(gate, onReleased, 'wit-address', bytes, packet, outcome)
  }
  const failure = verifySynAck(clientView(gate, gate.own), bytes, packet, frame, found, verified)
  if (failure !== 'ok') return settleBadSynAck(gate, onReleased, failure, bytes, packet, outcome)

  const decision = decideIdentified(gate, 'egress', found, packet.family, verified.serverPort)
  if (
    !decision.allowed &&
    !verified.hairpin &&
    denies(gate, 'egress', 'policy', bytes, packet, nameOf(found), decision)
  ) {
    return onReleased ? drop(outcome, 'policy') : refuseSynAck(bytes, packet, outcome)
  }
  const index = indexOf(gate, bytes, packet, found)
  if (index === undefined) {
    const port = verified.serverPort
    return hold(outcome, { kind: 'row', key: `row ${found.index} ${port}`, index: found.index, port })
  }
  // A repeated SYN-ACK asks for the proof again; another Pod's does not change whose connection this is.
  if (onReleased && (mark & MARK_INDEX) !== index) return drop(outcome, 'mac')
  const syn = noteReleased(gate, bytes, packet)
  if (!onReleased) gate.counters.released('egress', 'identified')
  const replyBytes =
    onReleased && syn && syn.repeatedSynAcks++ === 0
      ? buildPlainSyn(syn, bytes, packet, outcome.reply)
      : buildProof(verified, bytes, packet, outcome.reply)
  release(outcome, index, stripPayload(bytes, packet, outcome.packet), replyBytes)
}

/**
 * True where our kernel is known to wait for the answer to another SYN. The kernel resets what this one belongs to, and
 * keeps waiting. Where the answer acknowledges the frame, a Fast Open server took it as data: its next SYN has none.
 */
function answersAnotherSyn(gate: Gate, bytes: Buffer, packet: Packet): boolean {
  const syn = gate.recentSyns.find(tupleKey(bytes, packet, true))
  if (!syn || packet.acknowledgement === (syn.isn + 1) >>> 0) return false
  const frameTaken = syn.frameBytes > 0 && packet.acknowledgement === (syn.isn + 1 + syn.frameBytes) >>> 0
  if (frameTaken && !syn.released) {
    gate.frameless.set(addressText(bytes, packet.sourceOffset, packet.addressBytes), true)
  }
  return true
}

/**
 * True where the answer comes from an address that is known to be another Pod's than its WIT's. Only Services are
 * answered by others than whom was dialled.
 */
function isOtherPod(gate: Gate, bytes: Buffer, packet: Packet, peer: KnownPeer): boolean {
  if (holdsAddress(peer, bytes, packet.sourceOffset, packet.addressBytes)) return false
  const known = gate.peers.findByAddress(bytes, packet.sourceOffset, packet.sourceOffset + packet.addressBytes)
  if (known && known.expiresAt * 1000 > gate.nowMilliseconds) return true
  const entry = gate.directory.get(addressText(bytes, packet.sourceOffset, packet.addressBytes))
  return entry !== undefined && entry !== 'unknown' && entry.kind === 'pod'
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

/** A SYN-ACK without a frame: from outside, or from a Pod without a sidecar. */
function handlePlainSynAck(gate: Gate, onReleased: boolean, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  // Repeated, or forged: the connection keeps its mark, and the identity that it may have.
  if (onReleased) return passWithoutData(bytes, packet, outcome)
  const meeting: Meeting = { direction: 'egress', protocol: 'TCP', port: packet.sourcePort, witExpected: true }
  const judgement = judgeAddress(gate, meeting, bytes, packet.sourceOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') return needAddress(outcome, judgement.address)
  const { decision, refusal, peer } = judgement
  if (!decision.allowed && denies(gate, 'egress', refusal, bytes, packet, peerName(peer), decision)) {
    return refuseSynAck(bytes, packet, outcome)
  }
  noteReleased(gate, bytes, packet)
  gate.counters.released('egress', 'plain')
  release(outcome, 0, packet.payloadBytes > 0 ? stripPayload(bytes, packet, outcome.packet) : 0)
}

function noteReleased(gate: Gate, bytes: Buffer, packet: Packet): RecentSyn | undefined {
  const syn = gate.recentSyns.find(tupleKey(bytes, packet, true))
  if (syn) syn.released = true
  return syn
}

/**
 * Our SYN once more, without its frame. A server that repeats its SYN-ACK did not get our proof: it was lost, or
 * conntrack on the path, which knew the tuple from an earlier connection, ignored our SYN and drops what follows it.
 * conntrack gets in step by a SYN and a SYN-ACK that acknowledges just that, which a frame prevents. The server answers
 * this one with another SYN-ACK, and that one gets the proof.
 */
function buildPlainSyn(syn: RecentSyn, bytes: Buffer, packet: Packet, out: Buffer): number {
  return buildTcp(
    {
      family: packet.family,
      source: bytes.subarray(packet.destinationOffset, packet.destinationOffset + packet.addressBytes),
      destination: bytes.subarray(packet.sourceOffset, packet.sourceOffset + packet.addressBytes),
      sourcePort: packet.destinationPort,
      destinationPort: packet.sourcePort,
      sequence: syn.isn,
      acknowledgement: 0,
      flags: FLAG_SYN,
      window: syn.window,
      options: syn.options,
    },
    EMPTY,
    out,
  )
}

/** What is wrong before the MAC was verified may come from anybody: silence. After it, it is the server's own word. */
function settleBadSynAck(
  gate: Gate,
  onReleased: boolean,
  refusal: Refusal,
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  if (onReleased) return drop(outcome, refusal)
  if (!denies(gate, 'egress', refusal, bytes, packet, '', undefined)) {
    noteReleased(gate, bytes, packet)
    return release(outcome, 0, stripPayload(bytes, packet, outcome.packet))
  }
  if (refusal === 'relayed' || refusal === 'reflected') return refuseSynAck(bytes, packet, outcome)
  drop(outcome, refusal)
}

/** Ends a connection at its SYN-ACK: the own kernel gets a reset in its place, the server one of its own. */
function refuseSynAck(bytes: Buffer, packet: Packet, outcome: Outcome): void {
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
  if (!gate.ready || !gate.own) return drop(outcome, 'not-ready')
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
function handleOther(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
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
    const hairpin = peer.identity.uid === gate.own?.uid
    if (!decision.allowed && !hairpin && denies(gate, 'ingress', 'policy', bytes, packet, nameOf(peer), decision)) {
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

function nameOf(peer: KnownPeer): string {
  return `${peer.identity.namespace}/${peer.identity.name}`
}
