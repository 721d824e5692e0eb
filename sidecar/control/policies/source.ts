import type { SynguardError } from '../../../api/errors.ts'
import type { NetworkPolicy } from '../../../policy/types.ts'

/** The whole set of the namespace's policies as they stand, and whether it is complete. */
export interface PolicySet {
  readonly policies: readonly NetworkPolicy[]
  /** False until the source was read in full once: until then a policy that isolates may be missing. */
  readonly synced: boolean
}

export interface PolicySourceListener {
  /** A new set, never twice the same; the first call may come with synced false. */
  onChange(set: PolicySet): void
  /** The source cannot be read or is wrong; the last set stands. */
  onError(error: SynguardError): void
}

/** Where a sidecar's NetworkPolicies come from: the API server, or a directory of YAML files. */
export interface PolicySource {
  start(listener: PolicySourceListener): void
  stop(): void
  /** When the source last confirmed what stands, in milliseconds since 1970; undefined before it was read in full. */
  confirmedAt(): number | undefined
}
