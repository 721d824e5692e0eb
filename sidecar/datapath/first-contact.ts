/** Peers whose WIT this sidecar has not verified yet. */
import type { Frame } from '../handshake/frame.ts'
import type { Packet } from '../packet/decode.ts'
import { HOLD_MILLISECONDS } from './bounds.ts'
import type { Gate } from './gate.ts'
import { drop, hold, type Outcome } from './outcome.ts'

/**
 * Holds the packet until its WIT is verified. What is being verified already costs nothing more; a new one is only
 * taken on while neither its source nor all sources of its kind together ask too often.
 */
export function needVerification(gate: Gate, bytes: Buffer, packet: Packet, frame: Frame, outcome: Outcome): void {
  const section = Buffer.from(bytes.subarray(frame.witAt, frame.witAt + frame.witBytes))
  const key = `wit ${section.toString('latin1')}`
  const now = gate.nowMilliseconds
  const since = gate.verifying.get(key)
  if (since === undefined || now - since > HOLD_MILLISECONDS) {
    const source = bytes.toString('latin1', packet.sourceOffset, packet.sourceOffset + packet.addressBytes)
    if (!gate.verifications.take(source, now) || !takeOfAll(gate, bytes, packet, frame)) return drop(outcome, 'busy')
    gate.verifying.set(key, now)
  }
  hold(outcome, { kind: 'verify', key, section })
}

/** The protected header of a WIT of this key (docs/wire.md). */
export function witHeader(kid: string): string {
  return `{"alg":"ES256","kid":"${kid}","typ":"wit+jwt","zip":"DEF"}`
}

/** Takes a token of the WIT's kind: what strangers can make up without end must not use up what others need. */
function takeOfAll(gate: Gate, bytes: Buffer, packet: Packet, frame: Frame): boolean {
  const { nowMilliseconds: now, trustedHeaders } = gate
  const header = frame.witAt + 2
  const text = bytes.toString('latin1', header, header + bytes.readUInt16BE(frame.witAt))
  if (trustedHeaders !== undefined && !trustedHeaders.has(text)) return gate.unknownKeys.take(now)
  const at = packet.sourceOffset
  const isKnown = gate.peers.findByAddress(bytes, at, at + packet.addressBytes) !== undefined
  return (isKnown && gate.renewals.take(now)) || gate.allVerifications.take(now)
}
