/** A SYN that arrives: somebody opens a connection to this Pod. */
import { MARK_RELEASED, MARK_STALE } from '../../api/marks.ts'
import { createFrame, decodeFrame, FRAME_SYN, NONCE_AT, NONCE_BYTES } from '../handshake/frame.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { verifySyn } from '../handshake/server.ts'
import type { Packet } from '../packet/decode.ts'
import { stripPayload } from '../packet/rewrite.ts'
import { type ConnectionKey, connectionKey } from './connection-key.ts'
import { byPolicy, denies, isSilent } from './denial.ts'
import { needVerification } from './first-contact.ts'
import type { Gate } from './gate.ts'
import type { HalfOpen } from './half-open.ts'
import { decideIdentified, judgeAddress, type Meeting } from './judge.ts'
import { drop, needAddress, type Outcome, pass, passWithoutData, refuse } from './outcome.ts'
import { serverView } from './views.ts'

const frame = createFrame()

/** Decides for a SYN: void, expiry and source of its WIT, then the ingress policy. */
export function handleSyn(gate: Gate, mark: number, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet('syn-in')
  if (
    packet.destinationPort === gate.settings.healthPort &&
    gate.sockets.isOwnListener(packet.family, packet.destinationPort)
  ) {
    claimOnce(gate, bytes, packet, 'own')
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
  if (found === undefined) return needVerification(gate, bytes, packet, frame, outcome)
  if (typeof found === 'string') return settleUnidentified(gate, onReleased, found, bytes, packet, outcome)
  const failure = verifySyn(serverView(gate, gate.own), bytes, packet, found)
  if (failure !== 'ok') return settleUnidentified(gate, onReleased, failure, bytes, packet, outcome)

  const key = connectionKey(bytes, packet, true, packet.sequence)
  const pending = gate.halfOpen.find(key)
  if (pending?.peer && pending.peer.identity.uid !== found.identity.uid) return drop(outcome, 'mac')

  const decision = decideIdentified(gate, 'ingress', found, packet.family, packet.destinationPort)
  if (!decision.allowed) {
    const isTold = pending?.told === true
    if (denies(gate, bytes, packet, byPolicy('ingress', found, packet, decision, isTold))) {
      return refuseSyn(gate, onReleased, 'policy', bytes, packet, outcome)
    }
  }
  const slot = pending?.kind === 'identified' ? pending : claim(gate, packet, key, 'identified')
  slot.told = !decision.allowed
  if (!slot.proved) {
    slot.peer = found
    slot.version = frame.version
    // A repetition finds this very connection in conntrack, no former one.
    if (!slot.answered && (mark & MARK_STALE) !== 0 && !gate.sockets.isEstablished(bytes, packet, true)) {
      gate.sockets.reopenTracking(bytes, packet)
    }
    const nonceAt = frame.start + NONCE_AT
    // A copy with another nonce may be an attacker's: whom the first one's SYN-ACK released can be asked by it alone.
    if (!slot.answered) bytes.copy(slot.nonces, slot.firstNonceAt, nonceAt, nonceAt + NONCE_BYTES)
    bytes.copy(slot.nonces, slot.nonceAt, nonceAt, nonceAt + NONCE_BYTES)
  }
  pass(outcome, stripPayload(bytes, packet, outcome.packet))
}

/** A SYN without a frame: a peer without a sidecar, the node, an address outside, or a repetition of a framed SYN. */
function handlePlainSyn(gate: Gate, onReleased: boolean, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  if (isIdentified(gate, bytes, packet)) return passWithoutData(bytes, packet, outcome)

  const meeting: Meeting = { direction: 'ingress', protocol: 'TCP', port: packet.destinationPort, witExpected: true }
  const judgement = judgeAddress(gate, meeting, bytes, packet.sourceOffset, packet.addressBytes)
  if (judgement.kind === 'unknown') return needAddress(outcome, judgement.address)
  const { decision, refusal } = judgement
  if (!decision.allowed) {
    const isTold = wasTold(gate, bytes, packet)
    if (denies(gate, bytes, packet, { direction: 'ingress', isTold, ...judgement })) {
      return refuseSyn(gate, onReleased, refusal, bytes, packet, outcome)
    }
  }
  const slot = claimOnce(gate, bytes, packet, 'plain')
  slot.provedUnder = gate.policy
  slot.told = !decision.allowed
  passWithoutData(bytes, packet, outcome)
}

/** True where the denial of this very SYN was told when it was here before. */
function wasTold(gate: Gate, bytes: Buffer, packet: Packet): boolean {
  return gate.halfOpen.find(connectionKey(bytes, packet, true, packet.sequence))?.told === true
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
  const isTold = wasTold(gate, bytes, packet)
  if (denies(gate, bytes, packet, { direction: 'ingress', refusal, isTold })) {
    // A damaged or forged copy of a SYN whose identity held does not end that connection.
    return refuseSyn(gate, onReleased || pending, refusal, bytes, packet, outcome)
  }
  if (!pending) claimOnce(gate, bytes, packet, 'plain').told = true
  pass(outcome, stripPayload(bytes, packet, outcome.packet))
}

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
  if (silent || isSilent(gate, refusal)) return drop(outcome, refusal)
  refuse(outcome, refusal, stripPayload(bytes, packet, outcome.packet))
}

/** A repetition finds the slot that its SYN had, with what is known of the connection since. */
function claimOnce(gate: Gate, bytes: Buffer, packet: Packet, kind: HalfOpen['kind']): HalfOpen {
  const key = connectionKey(bytes, packet, true, packet.sequence)
  const known = gate.halfOpen.find(key)
  return known?.kind === kind ? known : claim(gate, packet, key, kind)
}

function claim(gate: Gate, packet: Packet, key: ConnectionKey, kind: HalfOpen['kind']): HalfOpen {
  const slot = gate.halfOpen.claim(key)
  slot.kind = kind
  slot.clientIsn = packet.sequence
  slot.openedAt = gate.nowMilliseconds / 1000
  return slot
}
