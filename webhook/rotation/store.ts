import type { RotationRequest, RotationStatus } from '../../api/rotation.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'

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
  /** Removes the records of replicas that are long gone. */
  forget(names: readonly string[]): Promise<void>
  /** What the operator asks for, and what is wrong with how it is written. */
  readRequest(): Promise<AskedRequest>
  /** Live Pods with a sidecar, on ready nodes: by uid, `NAMESPACE/POD`. */
  listExpected(): Promise<ExpectedPods>
  /** The same as a watch shows them, which may be behind. */
  seenExpected(): ExpectedPods
  /** Whether caBundle and ConfigMaps hold every key of the keyring; true for identity keys, which lie in none. */
  readPublished(ring: Keyring<Material>): Promise<boolean>
  /** The status that was written last, where it can be read. */
  readStatus(): Promise<RotationStatus | undefined>
  writeStatus(status: RotationStatus): Promise<void>
}

export interface LeaseStore {
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
  readonly acknowledged: Acknowledged
}

export type Acknowledged = readonly (readonly [uid: string, generation: number])[]

export type ExpectedPods = ReadonlyMap<string, string>

export interface AskedRequest {
  readonly request?: RotationRequest
  readonly problems: readonly string[]
}

export interface LeaseRecord {
  readonly holder: string
  /** Grows with each renewal. */
  readonly beat: number
}
