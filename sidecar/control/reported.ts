/** Pods, policies and denials as reports tell them: see api/reports.ts. */
import type { PodIdentity } from '../../api/identity.ts'
import type { ReportedDenial, ReportedPeer, ReportedPod } from '../../api/reports.ts'
import { workloadOf } from '../../api/workload.ts'
import type { Decision, Peer, TrafficProtocol } from '../../policy/types.ts'
import type { DenialRow } from '../datapath/denials.ts'
import type { GatePolicy } from '../datapath/gate.ts'

export function reportedPod({
  namespace,
  name,
  labels,
}: Pick<PodIdentity, 'namespace' | 'name' | 'labels'>): ReportedPod {
  return { namespace, name, workload: workloadOf(name, labels) }
}

export function reportedPeer(pod: PodIdentity | undefined, identified: boolean, address: string): ReportedPeer {
  if (pod === undefined) return { kind: 'address', address }
  return { kind: identified ? 'identified' : 'attested', address, pod: reportedPod(pod) }
}

/** `ns/policy rule N`, or the policies that isolate. */
export function describeDecision(decision: Decision): string {
  if (!decision.allowed) return decision.isolatedBy.join(', ')
  if (decision.by === 'not-isolated') return 'not isolated'
  return decision.by === 'itself' ? 'itself' : `${decision.by.policy} rule ${decision.by.rule}`
}

export interface DenialContext {
  /** The policies in force. */
  readonly policy: GatePolicy | undefined
  /** What a Pod is now; undefined where no newer word of it is known. */
  readonly currentIdentity: (pod: PodIdentity) => PodIdentity | undefined
}

/** A row of the table, and whether the policies in force still deny it: they may have been mended since. */
export function reportedDenial(row: DenialRow, { policy, currentIdentity }: DenialContext): ReportedDenial {
  const pod = row.pod && (currentIdentity(row.pod) ?? row.pod)
  const { direction, protocol, port, address, identified, enforced, count } = row
  const peer: Peer = pod
    ? { kind: identified ? 'identified' : 'attested', pod, address }
    : { kind: 'external', address }
  const now =
    row.refusal === 'policy' ? policy?.evaluator.decide(direction, 0, peer, trafficProtocol(protocol), port) : undefined
  return {
    direction,
    protocol,
    port,
    peer: reportedPeer(pod, identified, address),
    policies: now !== undefined && !now.allowed ? now.isolatedBy : row.policies,
    reason: row.refusal,
    enforced,
    stands: now?.allowed !== true,
    count,
    first: new Date(row.firstAt).toISOString(),
    last: new Date(row.lastAt).toISOString(),
  }
}

function trafficProtocol(text: string): TrafficProtocol {
  return text === 'TCP' || text === 'UDP' || text === 'SCTP' ? text : 'other'
}
