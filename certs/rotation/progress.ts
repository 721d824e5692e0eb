import { type RotationRefusal, refuse } from './errors.ts'
import { laggards, outliveSeconds, type RotationFacts, type RotationTiming } from './facts.ts'
import { bootstrapWaits } from './guards.ts'
import { activeKey, type Keyring, type Phase, phaseOf, type RingKey } from './keyring.ts'
import { advance, ROTATION_STEPS, type RotationAdvance, type RotationStep } from './transitions.ts'

/** The step that is safe now, or what the next ones wait for; neither where no rotation is under way. */
export function nextStep<Material>(
  ring: Keyring<Material>,
  facts: RotationFacts,
): ({ readonly step: RotationStep } & RotationAdvance<Material>) | { readonly waits: readonly RotationRefusal[] } {
  const waits: RotationRefusal[] = []
  for (const step of ROTATION_STEPS) {
    const result = advance(ring, { type: step }, facts)
    if (!('refused' in result)) return { step, ...result }
    if (result.refused !== 'rotation-order') waits.push(result)
  }
  return { waits }
}

/** What people may see of a keyring: no private half of any key. */
export interface KeyringReport {
  readonly phase: Phase
  readonly keys: readonly Omit<RingKey<unknown>, 'material' | 'generation' | 'lifetimeSeconds' | 'confirmed'>[]
  /** How many sidecars are expected to hold the latest keys that all replicas give out, and the uids of those that do not. */
  readonly expected: number
  readonly missing: readonly string[]
  /** What each possible step waits for, with names and the earliest time. */
  readonly waits: readonly RotationRefusal[]
}

export function reportKeyring(ring: Keyring<unknown>, facts: RotationFacts): KeyringReport {
  const next = nextStep(ring, facts)
  const lost = phaseOf(ring) === 'none' ? bootstrapWaits(facts) : undefined
  const confirmed = Math.max(0, ...ring.keys.map((key) => key.confirmed?.generation ?? 0))
  return {
    phase: phaseOf(ring),
    keys: ring.keys.map(({ material: _, generation: __, lifetimeSeconds: ___, confirmed: ____, ...shown }) => shown),
    expected: facts.expected.length,
    missing: laggards(facts, confirmed),
    waits: [...(lost === undefined ? [] : [lost]), ...('waits' in next ? next.waits : [])],
  }
}

/**
 * When the schedule begins the next rotation, in seconds since the epoch; undefined while one is under way. Of two
 * replicas that find it due one writes, and the other's rotation is then refused as running.
 */
export function scheduledAt(ring: Keyring<unknown>, rotateEverySeconds: number): number | undefined {
  const active = activeKey(ring)
  return phaseOf(ring) === 'idle' && active !== undefined ? active.since + rotateEverySeconds : undefined
}

/**
 * Whether a schedule leaves room for a rotation: it may wait as long as an identity lives for a silent sidecar, and once
 * more for what was signed before. undefined where it does, else `rotation-schedule`.
 */
export function checkSchedule(rotateEverySeconds: number, timing: RotationTiming): RotationRefusal | undefined {
  const shortest = 2 * outliveSeconds(timing.witLifetimeSeconds, timing)
  return rotateEverySeconds < shortest ? refuse('rotation-schedule') : undefined
}
