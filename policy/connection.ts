/** One connection as the cluster sees it: egress of the client, then ingress of the server. For tests and `synguard explain`. */

import type { PodIdentity } from '../api/identity.ts'
import { compile } from './compile.ts'
import { evaluate } from './evaluate.ts'
import { describePeer, formatDecision } from './explain.ts'
import type { Decision, Direction, NetworkPolicy, Peer, TrafficPort, TrafficProtocol } from './types.ts'

export interface ConnectionQuestion {
  readonly policies: readonly NetworkPolicy[]
  readonly client: Endpoint
  readonly server: Endpoint
  readonly protocol: TrafficProtocol
  /** The server's real port, behind any Service. */
  readonly port: number
}

/** A Pod, with its first address unless one is given, or an address outside the cluster's Pods. */
export type Endpoint = { readonly pod: PodIdentity; readonly address?: string } | { readonly address: string }

export interface ConnectionAnswer {
  readonly reachable: boolean
  /** `egress ns/policy`, `ingress ns/policy` or `none`. */
  readonly decidedBy: string
  readonly reason: string
}

/**
 * Whether the client reaches the server, and which policy decided: where it is denied the first isolating policy of
 * the end that refused (the client's is asked first), where it is allowed the ingress policy whose rule allowed, else
 * the egress policy, else `none`. An end outside the cluster has no policies.
 */
export function evaluateConnection({ policies, client, server, protocol, port }: ConnectionQuestion): ConnectionAnswer {
  const traffic = { protocol, port }
  const from = toPeer(client)
  const to = toPeer(server)
  const egress = decideEnd(policies, 'egress', from, to, traffic)
  if (egress !== undefined && !egress.allowed) return denied('egress', egress, from, to)
  const ingress = decideEnd(policies, 'ingress', to, from, traffic)
  if (ingress !== undefined && !ingress.allowed) return denied('ingress', ingress, from, to)
  const reasons: string[] = []
  let decidedBy = 'none'
  for (const [direction, decision] of [['egress', egress] as const, ['ingress', ingress] as const]) {
    if (decision === undefined) continue
    reasons.push(formatDecision(direction, decision))
    if (decision.allowed && typeof decision.by === 'object') decidedBy = `${direction} ${decision.by.policy}`
  }
  const reason = reasons.length === 0 ? 'neither end is a Pod: no policy applies' : reasons.join('; ')
  return { reachable: true, decidedBy, reason }
}

/** undefined where the end is no Pod. */
function decideEnd(
  policies: readonly NetworkPolicy[],
  direction: Direction,
  end: Peer,
  peer: Peer,
  port: TrafficPort,
): Decision | undefined {
  return 'pod' in end ? evaluate(compile(policies, end.pod), direction, peer, port) : undefined
}

function denied(
  direction: Direction,
  decision: Decision & { allowed: false },
  client: Peer,
  server: Peer,
): ConnectionAnswer {
  const reason = `${describePeer(client)} to ${describePeer(server)}: ${formatDecision(direction, decision)}`
  return { reachable: false, decidedBy: `${direction} ${decision.isolatedBy[0]}`, reason }
}

/** The endpoint as a peer of the other end. */
export function toPeer(endpoint: Endpoint): Peer {
  if (!('pod' in endpoint)) return { kind: 'external', address: endpoint.address }
  // A Pod without an address matches no ipBlock.
  const address = endpoint.address ?? endpoint.pod.addresses[0] ?? ''
  return { kind: 'identified', pod: endpoint.pod, address }
}
