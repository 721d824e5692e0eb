import { CUT_SECONDS, REPLICA_SILENT_SECONDS, SKEW_SECONDS } from '../limits.ts'

export interface RotationTiming {
  /** The longest that an identity may live, as set now. */
  readonly witLifetimeSeconds: number
  /** How far any two clocks may differ; sidecars accept an identity for as long after its end. */
  readonly skewSeconds: number
  readonly replicaSilentSeconds: number
  readonly cutSeconds: number
}

/** The timing of an installation whose identities live `witLifetimeSeconds`. */
export function rotationTiming(witLifetimeSeconds: number, skewSeconds = SKEW_SECONDS): RotationTiming {
  return {
    witLifetimeSeconds,
    skewSeconds,
    replicaSilentSeconds: REPLICA_SILENT_SECONDS,
    cutSeconds: CUT_SECONDS,
  }
}

/**
 * What is known beside the keyring. All of it must have been asked for after the keyring was read, of the API server
 * itself and not of a cache: who is missing in it then starts later than the keyring was written, and starts by it.
 */
export interface RotationFacts {
  /** The clock, in seconds since the epoch. */
  readonly now: number
  /** Every replica that has published what it acts by. */
  readonly replicas: readonly ReplicaFact[]
  /** Whether what lies outside the Secret (caBundle, ConfigMaps) was read and holds every key's public half. */
  readonly published: boolean
  /** uids of the Pods that must acknowledge: live, with a sidecar, on ready nodes. */
  readonly expected: readonly string[]
  /**
   * Of each uid the highest generation that its sidecar has acknowledged, to any replica, dead ones too: it holds the
   * keys of that generation, and where one of them is compromised, an identity by the active one.
   */
  readonly acknowledged: ReadonlyMap<string, number>
  readonly timing: RotationTiming
}

/** A replica publishes before it reads the keyring, and acts by nothing that it read before it published. */
export interface ReplicaFact {
  readonly name: string
  /** Of the keyring that it acts by; 0 before the first. */
  readonly generation: number
  /** For how long the reader has seen nothing new of it, on a clock that only runs: clocks are not compared. */
  readonly silentSeconds: number
}

/** Replicas that may act and do not act by `generation` yet. */
export function replicasBehind({ replicas, timing }: RotationFacts, generation: number): readonly string[] {
  return replicas
    .filter((replica) => replica.silentSeconds < timing.replicaSilentSeconds && replica.generation < generation)
    .map(({ name }) => name)
}

/** Expected sidecars that have not acknowledged `generation`, in the order of `expected`. */
export function laggards({ expected, acknowledged }: RotationFacts, generation: number): readonly string[] {
  return expected.filter((uid) => (acknowledged.get(uid) ?? 0) < generation)
}

/**
 * How long after a time that one replica wrote down everything that was signed before it has surely come to its end,
 * when another replica looks. It lives its lifetime by the signer's clock, and its verifier's clock may be behind that
 * and grants the skew once more; and the clock of who looks may be ahead of the one that wrote.
 */
export function outliveSeconds(lifetimeSeconds: number, { skewSeconds }: RotationTiming): number {
  return lifetimeSeconds + 3 * skewSeconds
}
