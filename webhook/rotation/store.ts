import type { RotationRefusal } from '../../certs/rotation/errors.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'
import type { RotationStatus } from '../../certs/rotation/progress.ts'

/**
 * What replicas share of one keyring, at the API server. Every read is answered by the API server itself, as it is after
 * the call was made, and never from a cache (docs/rotation.md). All reject where it cannot be asked.
 */
export interface RotationStore<Material> {
  /** Rejects with AuthorityError where it is damaged. */
  readKeyring(): Promise<Versioned<Keyring<Material>>>
  /** Whether it was written: false where somebody else wrote since `version`. */
  writeKeyring(ring: Keyring<Material>, version: string): Promise<boolean>
  /** Replaces this replica's record. */
  publish(record: ReplicaRecord): Promise<void>
  /** The records of all replicas, dead ones too. */
  readRecords(): Promise<readonly ReplicaRecord[]>
  readRequest(): Promise<RotationRequest | undefined>
  /** uids of live Pods with a sidecar, on ready nodes. */
  listExpected(): Promise<readonly string[]>
  /** Whether caBundle and ConfigMaps hold every key of the keyring; true for identity keys, which lie in none. */
  readPublished(ring: Keyring<Material>): Promise<boolean>
  writeStatus(status: RotationReport): Promise<void>
  readLease(): Promise<Versioned<LeaseRecord | undefined>>
  writeLease(lease: LeaseRecord, version: string): Promise<boolean>
}

export interface Versioned<Value> {
  readonly value: Value
  /** As resourceVersion: what a write gives to say which state it replaces. */
  readonly version: string
}

/** What a replica says of itself; holds no key. */
export interface ReplicaRecord {
  readonly name: string
  /** Differs in every record that is published. */
  readonly beat: string
  /** Of the keyring that it acts by; 0 before the first. */
  readonly generation: number
  /** uid and generation that its sidecar has acknowledged to this replica. */
  readonly acknowledged: readonly (readonly [uid: string, generation: number])[]
}

export interface RotationRequest {
  /** Each request has its own. */
  readonly id: string
  readonly type: 'rotate' | 'compromised' | 'force' | 'abort'
  /** Of rotate: sidecars are not waited for. */
  readonly force?: boolean
}

export interface RotationReport extends RotationStatus {
  /** The request that was answered last, and why it was refused, where it was. */
  readonly request?: string
  readonly refusal?: RotationRefusal
}

export interface LeaseRecord {
  readonly holder: string
  /** Grows with each renewal. */
  readonly beat: number
}
