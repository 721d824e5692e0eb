/** TCP packets that this Pod sends before their connection is released. */
import { MARK_OWN } from '../../api/marks.ts'
import { attachSynFrame } from '../handshake/client.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { attachSynAckFrame } from '../handshake/server.ts'
import { FLAG_ACK, FLAG_FIN, FLAG_SYN, type Packet } from '../packet/decode.ts'
import { stripPayload, toReset } from '../packet/rewrite.ts'
import { PLAIN_SYN_FROM } from './bounds.ts'
import { connectionKey, tupleKey } from './connection-key.ts'
import { denies, isSilent } from './denial.ts'
import { findDialled, findNodePort, knownAddress, leadsTo } from './dialled.ts'
import { addressFacts, type Gate } from './gate.ts'
import { judgeAddress } from './judge.ts'
import { judgeMidstream } from './midstream.ts'
import { drop, hold, needAddress, type Outcome, pass, passWithoutData, refuse, release } from './outcome.ts'

/** Decides for a TCP packet in the OUTPUT hook. */
export function handleOutbound(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if ((packet.flags & FLAG_SYN) !== 0) {
    if ((packet.flags & FLAG_ACK) !== 0) handleSynAck(gate, bytes, packet, outcome)
    else handleSyn(gate, bytes, packet, outcome)
    return
  }
  // Challenge ACKs and those of TIME_WAIT carry nothing (RFC 5961, RFC 9293 section 3.10.7).
  if (packet.payloadBytes === 0 && (packet.flags & FLAG_FIN) === 0) return pass(outcome)
  gate.counters.packet('midstream')
  judgeMidstream(gate, 'outbound', bytes, packet, outcome)
}

function handleSyn(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet('syn-out')
  const at = packet.destinationOffset
  const { text: address, isCluster, isNode, ownPorts } = addressFacts(gate, bytes, at, packet.addressBytes)
  if (ownPorts.has(packet.destinationPort) && gate.sockets.isOwnConnection(bytes, packet)) {
    gate.counters.released('egress', 'own')
    return release(outcome, MARK_OWN)
  }
  if (!gate.ready || !gate.own) return hold(outcome, { kind: 'ready' })
  if (gate.nowMilliseconds / 1000 > gate.own.expiresAt) {
    if (denies(gate, bytes, packet, { direction: 'egress', refusal: 'identity-expired' })) {
      return refuseSyn('identity-expired', bytes, packet, outcome)
    }
    return pass(outcome)
  }
  if (!isCluster) return handleSynToOutside(gate, bytes, packet, outcome)
  if (isNode) {
    const known = knownAddress(gate.nodeAddresses, address)
    const entry = gate.directory.get(known)
    if (entry === undefined) return needAddress(outcome, known)
    const nodePort = entry === 'unknown' ? undefined : findNodePort(entry, 'TCP', packet.destinationPort)
    if (!nodePort) return handleSynToOutside(gate, bytes, packet, outcome)
  }

  let judged: JudgedSyn = 'allowed'
  if (gate.policy && !gate.policy.tcpEgressPossible) {
    // No rule could match anybody. But a Service may lead back to this very Pod: who answers, its SYN-ACK tells.
    const known = knownAddress(gate.nodeAddresses, address)
    const dialled = findDialled(gate.directory, known, 'TCP', packet.destinationPort)
    if (dialled.kind === 'ask') return needAddress(outcome, dialled.address)
    if (!leadsTo(dialled, gate.own.uid)) judged = judgeSyn(gate, false, bytes, packet, outcome)
    if (judged === 'stopped') return
  }
  const syn = gate.recentSyns.note(tupleKey(bytes, packet, false), packet.sequence, gate.nowMilliseconds)
  if (judged === 'tolerated') syn.told = true
  const plain =
    (syn.sent >= PLAIN_SYN_FROM && syn.sent % 2 === 1) ||
    gate.frameless.has(address) ||
    packet.payloadOffset + gate.own.synFrame.length > gate.settings.mtu
  if (plain) return passWithoutData(bytes, packet, outcome)
  pass(outcome, attachSynFrame(gate.own, gate.secret, bytes, packet, outcome.packet))
  if (syn.frameBytes === 0) syn.noteFrame(outcome.packet, packet, gate.own.synFrame.length)
}

/** Stopped: it goes no further now, as `outcome` says. Tolerated: denied, and the mode lets it go on. */
type JudgedSyn = 'allowed' | 'tolerated' | 'stopped'

/** Judges whom a SYN is for by the directory alone. */
function judgeSyn(gate: Gate, witExpected: boolean, bytes: Buffer, packet: Packet, outcome: Outcome): JudgedSyn {
  const meeting = { direction: 'egress', protocol: 'TCP', port: packet.destinationPort, witExpected } as const
  const judgement = judgeAddress(gate, meeting, bytes, packet.destinationOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') {
    needAddress(outcome, judgement.address)
    return 'stopped'
  }
  if (judgement.decision.allowed) return 'allowed'
  const before = gate.recentSyns.find(tupleKey(bytes, packet, false))
  const isTold = before?.isn === packet.sequence && before.told
  if (!denies(gate, bytes, packet, { direction: 'egress', isTold, ...judgement })) return 'tolerated'
  refuseSyn(judgement.refusal, bytes, packet, outcome)
  return 'stopped'
}

/** Outside the cluster, and at the own node but for its node ports, nobody can show a WIT: ipBlock rules decide at the SYN, without a frame. */
function handleSynToOutside(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  const judged = judgeSyn(gate, true, bytes, packet, outcome)
  if (judged === 'stopped') return
  const syn = gate.recentSyns.note(tupleKey(bytes, packet, false), packet.sequence, gate.nowMilliseconds)
  if (judged === 'tolerated') syn.told = true
  pass(outcome)
}

function refuseSyn(refusal: Refusal, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  refuse(outcome, refusal, packet.payloadBytes > 0 ? stripPayload(bytes, packet, outcome.packet) : 0)
}

/** Our kernel answers a SYN: a frame only to a frame. */
function handleSynAck(gate: Gate, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet('syn-ack-out')
  const slot = gate.halfOpen.find(connectionKey(bytes, packet, false, (packet.acknowledgement - 1) >>> 0))
  // Without the SYN's nonce there is no answer to give: the sidecar was restarted between SYN and SYN-ACK.
  if (!slot) return drop(outcome, 'stale')
  const repeated = slot.answered
  gate.halfOpen.answer(tupleKey(bytes, packet, false), packet.sequence)
  if (slot.kind === 'own') {
    gate.counters.released('ingress', 'own')
    return release(outcome, MARK_OWN)
  }
  if (slot.kind === 'plain' || !slot.peer) {
    // Policies may have changed since the SYN, and whoever keeps its ACK back until its connection was revoked must not
    // have it released by the repetition.
    if ((repeated || slot.provedUnder !== gate.policy) && !isStillAllowed(gate, slot.told, bytes, packet, outcome))
      return
    slot.provedUnder = gate.policy
    gate.counters.released('ingress', 'plain')
    return release(outcome, 0)
  }
  if (!gate.own) return drop(outcome, 'not-ready')
  pass(
    outcome,
    attachSynAckFrame(
      gate.secret,
      gate.own,
      slot.peer,
      slot.version,
      slot.nonces,
      slot.nonceAt,
      gate.nowMilliseconds / 1000,
      bytes,
      packet,
      outcome.packet,
    ),
  )
}

/** Judges the client of a plain connection again; where the policies in force, or the mode, let it no further, so `outcome` says. */
function isStillAllowed(gate: Gate, isTold: boolean, bytes: Buffer, packet: Packet, outcome: Outcome): boolean {
  const meeting = { direction: 'ingress', protocol: 'TCP', port: packet.sourcePort, witExpected: true } as const
  const judgement = judgeAddress(gate, meeting, bytes, packet.destinationOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') {
    needAddress(outcome, judgement.address)
    return false
  }
  const { decision, refusal } = judgement
  const denial = { direction: 'ingress', isAnswer: true, isTold, ...judgement } as const
  if (decision.allowed || !denies(gate, bytes, packet, denial)) return true
  refuseSynAck(gate, refusal, bytes, packet, outcome)
  return false
}

/** Ends a connection at its SYN-ACK: the client gets a reset in its place, as for its SYN, the own kernel one by the rules. */
function refuseSynAck(gate: Gate, refusal: Refusal, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if (isSilent(gate, refusal)) return drop(outcome, refusal)
  refuse(outcome, refusal)
  outcome.replyBytes = toReset(bytes, packet, outcome.reply)
}
