/** TCP packets that arrive before their connection is released, by what they are. */
import { createFrame, decodeFrame, FRAME_PROOF } from '../handshake/frame.ts'
import { FLAG_ACK, FLAG_RST, FLAG_SYN, type Packet } from '../packet/decode.ts'
import type { Gate } from './gate.ts'
import { handleProof, handleUnreleased } from './inbound-proof.ts'
import { handleSyn } from './inbound-syn.ts'
import { handleSynAck } from './inbound-syn-ack.ts'
import { type Outcome, pass } from './outcome.ts'

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
  if (decoded === 'ok' && frame.type === FRAME_PROOF) return handleProof(gate, bytes, packet, frame, outcome)
  handleUnreleased(gate, bytes, packet, outcome)
}
