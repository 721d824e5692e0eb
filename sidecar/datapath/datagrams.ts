/** UDP and every other protocol but TCP and ICMP: judged by the directory at the first packet of a flow. */

import type { TrafficProtocol } from '../../policy/types.ts'
import { type Packet, PROTOCOL_TCP, PROTOCOL_UDP } from '../packet/decode.ts'
import { denies, PROTOCOL_SCTP } from './denial.ts'
import type { Gate } from './gate.ts'
import { judgeAddress } from './judge.ts'
import { drop, hold, needAddress, type Outcome, refuse, release } from './outcome.ts'

/** Decides for a packet of the second queue; an allowed flow's connection is released, a denied one gets an ICMP error. */
export function handleDatagram(gate: Gate, inbound: boolean, bytes: Buffer, packet: Packet, outcome: Outcome): void {
  gate.counters.packet(packet.protocol === PROTOCOL_UDP ? 'datagram' : 'other')
  if (!gate.ready) return inbound ? drop(outcome, 'not-ready') : hold(outcome, { kind: 'ready' })
  // A part of a TCP packet has no frame that anybody could check. None should come here: conntrack puts them together, and
  // a rule drops those that a raw socket kept from it (IP_NODEFRAG).
  if (packet.fragment === 'later' || packet.protocol === PROTOCOL_TCP) return drop(outcome, 'fragment')
  const direction = inbound ? 'ingress' : 'egress'
  const remoteAt = inbound ? packet.sourceOffset : packet.destinationOffset
  const meeting = { direction, protocol: protocolOf(packet), port: portOf(bytes, packet), witExpected: false } as const
  const judgement = judgeAddress(gate, meeting, bytes, remoteAt, packet.addressBytes)
  if (judgement.kind === 'unknown') {
    return needAddress(outcome, judgement.address)
  }
  const { decision, refusal } = judgement
  if (!decision.allowed && denies(gate, bytes, packet, { direction, ...judgement })) {
    return inbound && gate.settings.refusal === 'drop' ? drop(outcome, refusal) : refuse(outcome, refusal)
  }
  gate.counters.released(direction, 'plain')
  release(outcome, 0)
}

function protocolOf(packet: Packet): TrafficProtocol {
  if (packet.protocol === PROTOCOL_UDP) return 'UDP'
  return packet.protocol === PROTOCOL_SCTP ? 'SCTP' : 'other'
}

/** The destination port; SCTP has it where TCP and UDP have (RFC 9260 section 3.1). */
function portOf(bytes: Buffer, packet: Packet): number {
  if (packet.protocol === PROTOCOL_UDP) return packet.destinationPort
  if (packet.protocol !== PROTOCOL_SCTP || packet.payloadBytes < 4) return 0
  return bytes.readUInt16BE(packet.payloadOffset + 2)
}
