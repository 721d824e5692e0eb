/** Peers whose WIT this sidecar has not verified yet. */
import type { Frame } from '../handshake/frame.ts'
import type { Packet } from '../packet/decode.ts'
import { HOLD_MILLISECONDS } from './bounds.ts'
import type { Gate } from './gate.ts'
import { drop, hold, type Outcome } from './outcome.ts'

/**
 * Holds the packet until its WIT is verified. What is being verified already costs nothing more; a new one is only
 * taken on while neither its source nor all sources together ask too often.
 */
export function needVerification(gate: Gate, bytes: Buffer, packet: Packet, frame: Frame, outcome: Outcome): void {
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
