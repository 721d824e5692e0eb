/** Denials: noted, told, and enforced or not, as the mode says. */
import type { Decision, Direction, Peer } from '../../policy/types.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { type Packet, PROTOCOL_TCP, PROTOCOL_UDP } from '../packet/decode.ts'
import { addressText, type Gate } from './gate.ts'
import type { KnownPeer } from './peers.ts'

/** RFC 9260. */
export const PROTOCOL_SCTP = 132

/** What a packet is denied for. */
export interface Denial {
  readonly direction: Direction
  readonly refusal: Refusal
  /** Undefined where nothing is known but the address. */
  readonly peer?: Peer | undefined
  readonly decision?: Decision | undefined
  /** The destination's real port, where it is not the packet's: behind a Service. */
  readonly port?: number
  /** The packet goes back to whoever opened the connection. */
  readonly isAnswer?: boolean
  /** It was told of this connection before. */
  readonly isTold?: boolean
}

/**
 * Notes a denial. True where it stands (enforce); in audit it is counted and told, once a connection, and the packet goes
 * on; in off it goes on silently.
 */
export function denies(gate: Gate, bytes: Buffer, packet: Packet, denial: Denial): boolean {
  const mode = gate.settings.mode
  if (mode === 'off') return false
  const enforced = mode === 'enforce'
  if (!enforced && denial.isTold === true) return false
  const { direction, refusal, peer, decision, isAnswer = false } = denial
  gate.counters.denied(direction, refusal, enforced)
  const source = addressText(bytes, isAnswer ? packet.destinationOffset : packet.sourceOffset, packet.addressBytes)
  const destination = addressText(bytes, isAnswer ? packet.sourceOffset : packet.destinationOffset, packet.addressBytes)
  const protocol = protocolText(packet.protocol)
  const port = denial.port ?? (isAnswer ? packet.sourcePort : packet.destinationPort)
  const policies = decision && !decision.allowed ? decision.isolatedBy : []
  const address = direction === 'ingress' ? source : destination
  const pod = peer && 'pod' in peer ? peer.pod : undefined
  const identified = peer?.kind === 'identified'
  gate.denials.note(
    { direction, refusal, enforced, protocol, port, address, pod, identified, policies },
    gate.nowMilliseconds,
  )
  if (gate.reports.take(gate.nowMilliseconds)) {
    gate.report({
      direction,
      refusal,
      enforced,
      protocol,
      source,
      sourcePort: isAnswer ? packet.destinationPort : packet.sourcePort,
      destination,
      destinationPort: port,
      peer: peer ? peerName(peer) : '',
      policies,
      ...(isUnknownProbe(gate, denial, protocol, port) && { hint: HINT_UNKNOWN_PROBE }),
    })
  }
  return enforced
}

/** Told with a refusal that may be a kubelet's: of a probe that fails nobody else says why. */
export const HINT_UNKNOWN_PROBE =
  "This is the port of a probe, and its source is no Pod and no node that is known. If it is this Pod's node, add the address to nodeAddresses in the webhook's settings and restart the Pod."

function isUnknownProbe(gate: Gate, { direction, peer }: Denial, protocol: string, port: number): boolean {
  return (
    direction === 'ingress' &&
    peer?.kind === 'external' &&
    gate.settings.probePorts.some((probe) => probe.protocol === protocol && probe.port === port)
  )
}

/** The denial of a peer that showed a WIT, by the policies. */
export function byPolicy(
  direction: Direction,
  peer: Pick<KnownPeer, 'asPeer'>,
  packet: Packet,
  decision: Decision,
  isTold: boolean,
): Denial {
  return { direction, refusal: 'policy', peer: peer.asPeer[packet.family], decision, isTold }
}

function protocolText(protocol: number): string {
  if (protocol === PROTOCOL_TCP) return 'TCP'
  if (protocol === PROTOCOL_UDP) return 'UDP'
  return protocol === PROTOCOL_SCTP ? 'SCTP' : String(protocol)
}

/** The client's next SYN may well show a WIT, or a newer one. */
const SILENT: ReadonlySet<Refusal> = new Set(['wit-void', 'wit-expired', 'no-wit'])

/** True where a client that is refused hears nothing. */
export function isSilent(gate: Gate, refusal: Refusal): boolean {
  return gate.settings.refusal === 'drop' || SILENT.has(refusal)
}

/** `namespace/name` of a peer, or its address. */
export function peerName(peer: Peer): string {
  return 'pod' in peer ? `${peer.pod.namespace}/${peer.pod.name}` : peer.address
}
