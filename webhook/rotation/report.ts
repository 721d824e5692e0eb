import type { RotationAnswer, RotationCondition, RotationStatus } from '../../api/rotation.ts'
import type { RotationFacts } from '../../certs/rotation/facts.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'
import { reportKeyring } from '../../certs/rotation/progress.ts'
import type { ExpectedPods } from './store.ts'

export interface ReportOptions {
  readonly ring: Keyring<unknown>
  readonly facts: RotationFacts
  /** Names of the expected Pods. */
  readonly pods: ExpectedPods
  readonly answered: RotationAnswer | undefined
  readonly conditions: readonly RotationCondition[]
  readonly scheduledAt: number | undefined
}

/** What operators see of a keyring, its rotation, and whom it waits for; names no key but by its id. */
export function reportRotation(options: ReportOptions): RotationStatus {
  const { ring, facts, pods, answered, conditions, scheduledAt } = options
  const { phase, keys, expected, missing, waits } = reportKeyring(ring, facts)
  const nameOf = (uid: string) => pods.get(uid) ?? uid
  return {
    at: facts.now,
    phase,
    keys,
    sidecars: { expected, acknowledged: expected - missing.length, missing: missing.map(nameOf) },
    waits: waits.map(({ refused, message, names, until }) => ({
      code: refused,
      message,
      ...(names !== undefined && { names: names.map(nameOf), count: names.length }),
      ...(until !== undefined && { until }),
    })),
    ...(answered !== undefined && { answered }),
    conditions,
    ...(scheduledAt !== undefined && { scheduledAt }),
  }
}
