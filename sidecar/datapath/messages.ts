/** What the packet path (worker thread) and the control plane (main thread) say to each other. */
import type { KeyObject } from 'node:crypto'
import type { DirectoryEntry, PodIdentity } from '../../api/identity.ts'
import type { PublicJwk } from '../../certs/authority.ts'
import type { NetworkPolicy, Subject } from '../../policy/types.ts'
import type { Refusal } from '../handshake/reasons.ts'
import type { ConnectionEnds } from './connection-key.ts'
import type { CounterValues } from './counters.ts'
import type { DenialSnapshot } from './denials.ts'
import type { GateSettings, RefusalReport } from './gate.ts'

/** Given when the worker is made. */
export interface WorkerData {
  readonly settings: GateSettings
  readonly queueTcp: number
  readonly queueOther: number
}

/** A verified WIT with its row of the identity table, which is on disk before it is sent. */
export interface VerifiedPeer {
  readonly index: number
  readonly identity: PodIdentity
  readonly witHash: Uint8Array
  readonly cnf: PublicJwk
  /**
   * sharedSecret with our identity of that generation: whoever just verified a signature has the curve's code at hand,
   * and 32 bytes are sooner told than a key. The packet path makes those of later generations itself.
   */
  readonly shared?: { readonly generation: number; readonly secret: Uint8Array }
  readonly thumbprint: string
  readonly kid: string
  readonly issuedAt: number
  readonly expiresAt: number
}

export type ToWorker =
  | { readonly type: 'settings'; readonly settings: GateSettings }
  | {
      readonly type: 'own'
      readonly uid: string
      readonly generation: number
      readonly witSection: Uint8Array
      readonly witHash: Uint8Array
      readonly privateKey: KeyObject
      readonly thumbprint: string
      readonly expiresAt: number
    }
  | {
      readonly type: 'policies'
      readonly policies: readonly NetworkPolicy[]
      readonly subject: Subject
    }
  | { readonly type: 'ready'; readonly ready: boolean }
  /** Answers `verify`, which has the same key. */
  | {
      readonly type: 'verified'
      readonly key: string
      readonly section: Uint8Array
      readonly result: VerifiedPeer | Refusal
    }
  /** Answers `row`. */
  | { readonly type: 'row'; readonly key: string; readonly index: number; readonly port: number; readonly row: number }
  /** Answers `resolve`, and tells of changes; `unknown`: the issuer cannot be asked. */
  | { readonly type: 'resolved'; readonly address: string; readonly entry: DirectoryEntry | 'unknown' }
  | { readonly type: 'forget-address'; readonly address: string }
  /** WITs of this Pod issued at or before the time are refused. */
  | { readonly type: 'void'; readonly uid: string; readonly issuedBefore: number }
  /** WITs of this Pod issued at or before the time stand with another identity, which has its own row. */
  | {
      readonly type: 'relabel'
      readonly uid: string
      readonly issuedBefore: number
      readonly identity: PodIdentity
      readonly index: number
    }
  /** The trust bundle changed: WITs that did not verify may now, peers signed by other keys go. */
  | { readonly type: 'bundle'; readonly kids: readonly string[] }
  /** All that was sent before is in force, and no verdict from before it is on its way, once this is answered. */
  | { readonly type: 'barrier'; readonly cause: string }
  /** Asks for the table of denials. */
  | { readonly type: 'denials'; readonly id: number }
  /** Asks when these connections began. */
  | { readonly type: 'opened'; readonly id: number; readonly connections: readonly ConnectionEnds[] }

export type FromWorker =
  | { readonly type: 'bound'; readonly queueFd: number; readonly rawFds: readonly number[] }
  | { readonly type: 'verify'; readonly key: string; readonly section: Uint8Array }
  | { readonly type: 'resolve'; readonly address: string }
  | { readonly type: 'row'; readonly key: string; readonly index: number; readonly port: number }
  /** Answers `barrier`. */
  | { readonly type: 'reached'; readonly cause: string }
  | { readonly type: 'refusal'; readonly report: RefusalReport }
  /** Answers `denials`; `since`, in milliseconds since 1970, is when the table was made. */
  | { readonly type: 'denials'; readonly id: number; readonly snapshot: DenialSnapshot; readonly since: number }
  /** Answers `opened`, in its order: seconds since 1970, 0 where it is not remembered. */
  | { readonly type: 'opened'; readonly id: number; readonly at: readonly number[] }
  | { readonly type: 'counters'; readonly values: CounterValues }
