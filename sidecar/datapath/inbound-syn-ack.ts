/** A SYN-ACK that arrives: the answer to a connection that this Pod opens. */
import { MARK_INDEX, MARK_OWN, MARK_PROVED, MARK_RELEASED, MARK_REVOKED } from '../../api/marks.ts'
import {
  buildProof,
  createVerifiedSynAck,
  equalBytes,
  holdsAddress,
  type VerifiedSynAck,
  verifySynAck,
} from '../handshake/client.ts'
import { createFrame, decodeFrame, FRAME_SYN_ACK } from '../handshake/frame.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { buildTcpAnswer } from '../packet/build.ts'
import { FLAG_RST, FLAG_SYN, type Packet } from '../packet/decode.ts'
import { stripPayload, toReset } from '../packet/rewrite.ts'
import { tupleKey } from './connection-key.ts'
import { byPolicy, denies } from './denial.ts'
import { findDialled, knownAddress } from './dialled.ts'
import { needVerification } from './first-contact.ts'
import { addressText, type Gate } from './gate.ts'
import { decideIdentified, judgeAddress, type Meeting } from './judge.ts'
import { drop, hold, needAddress, type Outcome, pass, passWithoutData, release } from './outcome.ts'
import type { KnownPeer } from './peers.ts'
import type { RecentSyn } from './recent-syns.ts'
import { clientView } from './views.ts'

const frame = createFrame()
const EMPTY = new Uint8Array(0)

const verified: VerifiedSynAck = createVerifiedSynAck()

/** Decides for a SYN-ACK: its WIT and MAC, where the server saw us, then the egress policy on the server's real port. */
export function handleSynAck(gate: Gate, mark: number, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet('syn-ack-in')
  if ((mark & MARK_OWN) !== 0) return release(outcome, MARK_OWN)
  if (!gate.ready || !gate.own) return drop(outcome, 'not-ready')
  const decoded = decodeFrame(bytes, packet.payloadOffset, packet.totalBytes, frame)
  const syn = gate.recentSyns.find(tupleKey(bytes, packet, true))
  if (syn && answersAnotherSyn(gate, syn, bytes, packet)) return passWithoutData(bytes, packet, outcome)
  const onReleased = (mark & MARK_RELEASED) !== 0
  if (decoded === 'none') return handlePlainSynAck(gate, syn, onReleased, bytes, packet, outcome)
  if (decoded !== 'ok' || frame.type !== FRAME_SYN_ACK) {
    return settleBadSynAck(gate, syn, onReleased, 'frame', bytes, packet, outcome)
  }

  const found = gate.peers.findBySection(bytes, frame.witAt, frame.witAt + frame.witBytes, gate.nowMilliseconds)
  if (found === undefined) return needVerification(gate, bytes, packet, frame, outcome)
  if (typeof found === 'string') return settleBadSynAck(gate, syn, onReleased, found, bytes, packet, outcome)
  if (found.identity.uid === gate.own.uid) {
    // Our own WIT: only the directory can tell whether the dialled address is a Service with this Pod behind it.
    const address = knownAddress(gate.nodeAddresses, addressText(bytes, packet.sourceOffset, packet.addressBytes))
    const dialled = findDialled(gate.directory, address, 'TCP', packet.sourcePort)
    if (dialled.kind === 'ask') return needAddress(outcome, dialled.address)
  }
  if (isOtherPod(gate, bytes, packet, found)) {
    return settleBadSynAck(gate, syn, onReleased, 'wit-address', bytes, packet, outcome)
  }
  const failure = verifySynAck(clientView(gate, gate.own), bytes, packet, frame, found, verified)
  if (failure !== 'ok') return settleBadSynAck(gate, syn, onReleased, failure, bytes, packet, outcome)
  // Ended by a review, and its socket destroyed. A server that did not hear of it still asks for the proof, and would get
  // it for a socket that is not there any more once policy allows both again.
  if ((mark & MARK_REVOKED) !== 0) return refuseSynAck(bytes, packet, outcome)

  const decision = decideIdentified(gate, 'egress', found, packet.family, verified.serverPort)
  if (!decision.allowed) {
    const denial = byPolicy('egress', found, packet, decision, onReleased || syn?.told === true)
    if (denies(gate, bytes, packet, { ...denial, isAnswer: true, port: verified.serverPort })) {
      return onReleased ? drop(outcome, 'policy') : refuseSynAck(bytes, packet, outcome)
    }
    // At once: it may be held for its row, and come back.
    if (syn) syn.told = true
  }
  const index = indexOf(gate, bytes, packet, found)
  if (index === undefined) {
    const port = verified.serverPort
    return hold(outcome, { kind: 'row', key: `row ${found.index} ${port}`, index: found.index, port })
  }
  // A repeated SYN-ACK asks for the proof again; another Pod's does not change whose connection this is.
  if (onReleased && (mark & MARK_INDEX) !== index) return drop(outcome, 'mac')
  if (syn) syn.released = true
  if (!onReleased) gate.counters.released('egress', 'identified')
  const packetBytes = stripPayload(bytes, packet, outcome.packet)
  if (onReleased && syn && syn.repeatedSynAcks++ === 0) {
    return release(outcome, index, packetBytes, buildPlainSyn(syn, bytes, packet, outcome.reply))
  }
  const known = syn !== undefined && syn.frameBytes > 0
  const replyBytes = buildProof(verified, known ? syn : UNKNOWN_SYN, bytes, packet, outcome.reply)
  release(outcome, known && !onReleased ? index | MARK_PROVED : index, packetBytes, replyBytes)
}

/** Small enough to be true for any receive buffer, with or without scaling. */
const UNKNOWN_SYN = { window: 512, windowScale: 0 }

/**
 * True where our kernel is known to wait for the answer to another SYN. The kernel resets what this one belongs to, and
 * keeps waiting. Where the answer acknowledges the frame, a Fast Open server took it as data: its next SYN has none.
 */
function answersAnotherSyn(gate: Gate, syn: RecentSyn, bytes: Buffer, packet: Packet): boolean {
  if (packet.acknowledgement === (syn.isn + 1) >>> 0) return false
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
    frame.addressBytes === packet.addressBytes &&
    equalBytes(bytes, packet.sourceOffset, bytes, frame.serverAddressAt, packet.addressBytes)
  if (direct || gate.settings.mode === 'off') return peer.index
  return peer.indexByPort.get(frame.serverPort)
}

/** A SYN-ACK without a frame: from outside, or from a Pod without a sidecar. */
function handlePlainSynAck(
  gate: Gate,
  syn: RecentSyn | undefined,
  onReleased: boolean,
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  // Repeated, or forged: the connection keeps its mark, and the identity that it may have.
  if (onReleased) return passWithoutData(bytes, packet, outcome)
  const meeting: Meeting = { direction: 'egress', protocol: 'TCP', port: packet.sourcePort, witExpected: true }
  const judgement = judgeAddress(gate, meeting, bytes, packet.sourceOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') return needAddress(outcome, judgement.address)
  const isTold = syn?.told === true
  const { decision } = judgement
  if (!decision.allowed && denies(gate, bytes, packet, { direction: 'egress', isAnswer: true, isTold, ...judgement })) {
    return refuseSynAck(bytes, packet, outcome)
  }
  if (syn) syn.released = true
  gate.counters.released('egress', 'plain')
  release(outcome, 0, packet.payloadBytes > 0 ? stripPayload(bytes, packet, outcome.packet) : 0)
}

/**
 * Our SYN once more, without its frame. A server that repeats its SYN-ACK did not get our proof: it was lost, or
 * conntrack on the path, which knew the tuple from an earlier connection, ignored our SYN and drops what follows it.
 * conntrack gets in step by a SYN and a SYN-ACK that acknowledges just that, which a frame prevents. The server answers
 * this one with another SYN-ACK, and that one gets the proof.
 */
function buildPlainSyn(syn: RecentSyn, bytes: Buffer, packet: Packet, out: Buffer): number {
  return buildTcpAnswer(
    bytes,
    packet,
    {
      sequence: syn.isn,
      acknowledgement: 0,
      flags: FLAG_SYN,
      window: syn.window,
      options: syn.options(),
    },
    EMPTY,
    out,
  )
}

/** What is wrong before the MAC was verified may come from anybody: silence. After it, it is the server's own word. */
function settleBadSynAck(
  gate: Gate,
  syn: RecentSyn | undefined,
  onReleased: boolean,
  refusal: Refusal,
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  if (onReleased) return drop(outcome, refusal)
  if (!denies(gate, bytes, packet, { direction: 'egress', refusal, isAnswer: true, isTold: syn?.told === true })) {
    if (syn) syn.released = true
    return release(outcome, 0, stripPayload(bytes, packet, outcome.packet))
  }
  if (refusal === 'relayed' || refusal === 'reflected') return refuseSynAck(bytes, packet, outcome)
  drop(outcome, refusal)
}

/** Ends a connection at its SYN-ACK: the own kernel gets a reset in its place, the server one of its own. */
function refuseSynAck(bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const replyBytes = buildTcpAnswer(
    bytes,
    packet,
    {
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
