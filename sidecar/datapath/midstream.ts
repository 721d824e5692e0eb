/**
 * Packets of connections whose mark is gone although they run: conntrack forgets half-closed connections after 60 to
 * 120 s, and its table can be flushed. The socket proves that the handshake once was authorised; the policies in
 * force decide anew.
 */
import type { Direction } from '../../policy/types.ts'
import type { Packet } from '../packet/decode.ts'
import { tupleKey } from './connection-key.ts'
import { byPolicy, denies } from './denial.ts'
import type { Gate } from './gate.ts'
import { decideIdentified, judgeAddress } from './judge.ts'
import { drop, needAddress, type Outcome, refuse, release } from './outcome.ts'

/** Judges a non-SYN packet of no known connection. Without a socket past its handshake it is refused. */
export function judgeMidstream(
  gate: Gate,
  hook: 'inbound' | 'outbound',
  bytes: Buffer,
  packet: Packet,
  outcome: Outcome,
): void {
  const inbound = hook === 'inbound'
  if (!gate.sockets.isEstablished(bytes, packet, inbound)) {
    return inbound ? refuse(outcome, 'stale') : drop(outcome, 'stale')
  }
  if (!gate.ready) return drop(outcome, 'not-ready')
  // Who opened the connection is lost: the end whose port a local listener has is the server.
  const localPort = inbound ? packet.destinationPort : packet.sourcePort
  const remotePort = inbound ? packet.sourcePort : packet.destinationPort
  const remoteAt = inbound ? packet.sourceOffset : packet.destinationOffset
  const direction: Direction = gate.sockets.isListening(packet.family, localPort) ? 'ingress' : 'egress'
  const port = direction === 'ingress' ? localPort : remotePort
  const isAnswer = inbound === (direction === 'egress')

  const known = gate.peers.findByAddress(bytes, remoteAt, remoteAt + packet.addressBytes)
  if (known && known.refused === '' && known.expiresAt * 1000 > gate.nowMilliseconds) {
    const decision = decideIdentified(gate, direction, known, packet.family, port)
    if (!decision.allowed) {
      const isTold = wasTold(gate, inbound, bytes, packet)
      const denial = { ...byPolicy(direction, known, packet, decision, isTold), isAnswer }
      if (denies(gate, bytes, packet, denial)) return refuse(outcome, 'policy')
    }
    return release(outcome, known.index)
  }
  const meeting = { direction, protocol: 'TCP', port, witExpected: false } as const
  const judgement = judgeAddress(gate, meeting, bytes, remoteAt, packet.addressBytes)
  if (judgement.kind === 'unknown') {
    return needAddress(outcome, judgement.address)
  }
  const { decision, refusal } = judgement
  if (!decision.allowed) {
    const isTold = wasTold(gate, inbound, bytes, packet)
    if (denies(gate, bytes, packet, { direction, isAnswer, isTold, ...judgement })) return refuse(outcome, refusal)
  }
  release(outcome, 0)
}

/** True where the denial of the connection was told at its handshake, as far as that is remembered. */
function wasTold(gate: Gate, inbound: boolean, bytes: Buffer, packet: Packet): boolean {
  const tuple = tupleKey(bytes, packet, inbound)
  return (gate.recentSyns.find(tuple) ?? gate.halfOpen.findAnswered(tuple))?.told === true
}
