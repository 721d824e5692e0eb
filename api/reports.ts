/** What a sidecar tells `synguard audit` and `synguard flows`: JSON on its health port, for callers on loopback alone. */
import type { Mode } from './identity.ts'

export const PATH_AUDIT = '/audit'
export const PATH_FLOWS = '/flows'

export interface ReportedPod {
  readonly namespace: string
  readonly name: string
  /** `deployment/web`, or `pod/web` where its labels name nothing: see api/workload.ts. */
  readonly workload: string
}

/** The other end of a connection. */
export interface ReportedPeer {
  /** `identified` showed a WIT, `attested` is a Pod as the API server knows it, `address` is no Pod, or unknown. */
  readonly kind: 'identified' | 'attested' | 'address'
  readonly address: string
  /** Of the two first kinds. */
  readonly pod?: ReportedPod
}

/** What a report begins with; times are ISO 8601. */
interface Report {
  readonly pod: ReportedPod
  readonly mode: Mode
  readonly at: string
  /** Denials are counted since then: the start of the sidecar's data path. */
  readonly since: string
}

export interface AuditReport extends Report {
  readonly denials: readonly ReportedDenial[]
  /** Denials beyond the rows that a sidecar keeps: how many, of whom it cannot say. */
  readonly unlistedDenials: number
  /** Connections that run, and that the policies in force deny: enforcing ends them. */
  readonly running: readonly RunningDenial[]
  /** Of further kinds. */
  readonly unlistedRunning: number
}

interface Denied {
  /** `ingress`: this Pod's policies of incoming connections deny it. */
  readonly direction: 'ingress' | 'egress'
  /** TCP, UDP, SCTP, or the number of another. */
  readonly protocol: string
  /** The destination's real port. */
  readonly port: number
  readonly peer: ReportedPeer
  /** The policies that isolate the end that denies: of a denial none has a rule that matches. */
  readonly policies: readonly string[]
}

export interface ReportedDenial extends Denied {
  /** A reason of docs/errors.md. */
  readonly reason: string
  /** False where the mode let it go on. */
  readonly enforced: boolean
  /** False where the policies allow it by now. */
  readonly stands: boolean
  readonly count: number
  readonly first: string
  readonly last: string
}

export interface RunningDenial extends Denied {
  readonly count: number
}

export interface FlowsReport extends Report {
  readonly flows: readonly ReportedFlow[]
  /** Released connections in all. */
  readonly total: number
  /** Whether the kernel counts bytes of flows (nf_conntrack_acct): without it only TCP's are known. */
  readonly accounting: boolean
  /** The last denials, the newest first. */
  readonly refusals: readonly ReportedDenial[]
}

export interface ReportedFlow {
  readonly direction: 'ingress' | 'egress'
  readonly protocol: string
  readonly local: string
  readonly localPort: number
  /** As this Pod dialled it: a Service's address and port, where it dialled one. */
  readonly remote: string
  readonly remotePort: number
  readonly peer: ReportedPeer
  /** `ns/policy rule N`, `not isolated`, `itself`; what denies it, where the mode lets it run; empty where it is not known now. */
  readonly decidedBy: string
  /** Null where it is not known now: the directory has to be asked. */
  readonly allowed: boolean | null
  /** Payload, by the socket (tcp_info), or packets with their headers, by the kernel's flows; null where neither knows. */
  readonly bytes: { readonly sent: number; readonly received: number; readonly by: 'socket' | 'conntrack' } | null
  /** When its handshake began; null where it is older than what the sidecar remembers of handshakes. */
  readonly opened: string | null
}

/** `POST /v1/refusals` to the issuer, authenticated as `/v1/peers` is: what it writes Events of. */
export const PATH_REFUSALS = '/v1/refusals'

export interface RefusalsRequest {
  readonly refusals: readonly ToldRefusal[]
}

export interface ToldRefusal {
  readonly direction: 'ingress' | 'egress'
  /** A reason of docs/errors.md. */
  readonly reason: string
  readonly protocol: string
  readonly port: number
  /** `namespace/name` of a Pod, or an address. */
  readonly peer: string
  /** Whether the peer showed a WIT. */
  readonly identified: boolean
  readonly policies: readonly string[]
  /** Since the last time that it was told. */
  readonly count: number
}
