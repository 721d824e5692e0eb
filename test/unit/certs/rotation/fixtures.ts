import type { RotationFacts, RotationTiming } from '../../../../certs/rotation/facts.ts'
import { EMPTY_KEYRING, type Keyring, type Phase } from '../../../../certs/rotation/keyring.ts'
import { advance, type FreshKey, type RotationEvent } from '../../../../certs/rotation/transitions.ts'

export const NOW = 1_800_000_000
export const TIMING: RotationTiming = {
  witLifetimeSeconds: 3_600,
  skewSeconds: 120,
  replicaSilentSeconds: 60,
  cutSeconds: 60,
}

export type Event = RotationEvent<string>
export type Ring = Keyring<string>

export function fresh(id: string, lifetimeSeconds = 3_600): FreshKey<string> {
  return { id, material: `private ${id}`, lifetimeSeconds }
}

/** Nobody is behind: whatever a guard asks for is there. */
export function openFacts(now = NOW, differences: Partial<RotationFacts> = {}): RotationFacts {
  return {
    now,
    replicas: [{ name: 'one', generation: Number.MAX_SAFE_INTEGER, silentSeconds: 0 }],
    published: true,
    expected: [],
    acknowledged: new Map(),
    timing: TIMING,
    ...differences,
  }
}

/** The keyring after events that are all taken; each comes 1 s after the one before. */
export function play(ring: Ring, events: readonly Event[], now = NOW): Ring {
  return events.reduce((current, event, index) => {
    const facts = openFacts(now + index, event.type === 'bootstrap' ? { replicas: [] } : {})
    const result = advance(current, event, facts)
    if ('refused' in result) throw new Error(`${event.type}: ${result.refused}`)
    return result.ring
  }, ring)
}

export const bootstrap: Event = { type: 'bootstrap', fresh: fresh('a') }
export const rotate: Event = { type: 'rotate', fresh: fresh('b'), request: 'r1' }
export const confirm: Event = { type: 'confirm' }
export const activate: Event = { type: 'activate' }
export const remove: Event = { type: 'remove' }

/** A keyring in each phase of a plain rotation from key a to key b. */
export const RINGS: Readonly<Record<Phase, Ring>> = {
  none: EMPTY_KEYRING,
  idle: play(EMPTY_KEYRING, [bootstrap]),
  prepared: play(EMPTY_KEYRING, [bootstrap, rotate]),
  offered: play(EMPTY_KEYRING, [bootstrap, rotate, confirm]),
  switched: play(EMPTY_KEYRING, [bootstrap, rotate, confirm, activate]),
  draining: play(EMPTY_KEYRING, [bootstrap, rotate, confirm, activate, confirm]),
}
