import { type RotationRefusal, refuse } from './errors.ts'
import { laggards, outliveSeconds, type RotationFacts, replicasBehind } from './facts.ts'
import type { Keyring, RingKey } from './keyring.ts'

/** What each step waits for; undefined once it is safe. */

type Keys = Keyring<unknown>
type Key = RingKey<unknown>

/** Who acts by keys that are in no Secret would be left with identities that nobody else verifies. */
export function bootstrapWaits({ replicas, timing }: RotationFacts): RotationRefusal | undefined {
  const names = replicas
    .filter(({ generation, silentSeconds }) => generation > 0 && silentSeconds < timing.replicaSilentSeconds)
    .map(({ name }) => name)
  return names.length > 0 ? refuse('rotation-keys-lost', { names }) : undefined
}

/** Keys of which it is not written yet that all replicas act by their state. */
export function unconfirmedKeys({ keys }: Keys): readonly Key[] {
  return keys.filter(({ state, confirmed }) => state !== 'active' && confirmed === undefined)
}

/** Replicas first, then what they publish: one that is behind may still take it back. */
export function confirmWaits(ring: Keys, facts: RotationFacts): RotationRefusal | undefined {
  const generation = Math.max(...unconfirmedKeys(ring).map((key) => key.generation))
  const names = replicasBehind(facts, generation)
  const isKnown = facts.replicas.some(({ silentSeconds }) => silentSeconds < facts.timing.replicaSilentSeconds)
  if (names.length > 0 || !isKnown) return refuse('rotation-waits-replicas', { names })
  if (!facts.published) return refuse('rotation-waits-trust')
  return undefined
}

/**
 * Whether every identity that lives is held by a sidecar with the prepared key. Since it was confirmed, nobody gets an
 * identity without it: so a sidecar that does not acknowledge it holds the step until what it had before has ended.
 */
export function activateWaits(ring: Keys, prepared: Key, facts: RotationFacts): RotationRefusal | undefined {
  const { confirmed, forced } = prepared
  if (confirmed === undefined) return refuse('rotation-order')
  // Until then each connection costs trust; a sidecar that meets a key it does not know asks for the bundle.
  const isEmergency = ring.keys.some(({ compromised }) => compromised)
  if (isEmergency || forced) return undefined
  const names = laggards(facts, confirmed.generation)
  const lifetimes = ring.keys.map(({ lifetimeSeconds }) => lifetimeSeconds)
  const longest = Math.max(facts.timing.witLifetimeSeconds, ...lifetimes)
  const until = confirmed.at + outliveSeconds(longest, facts.timing)
  return names.length > 0 && facts.now < until ? refuse('rotation-waits-sidecars', { names, until }) : undefined
}

/** Whether nothing is left that only this previous key verifies, or it is compromised and sidecars had their time. */
export function removeWaits(previous: Key, facts: RotationFacts): RotationRefusal | undefined {
  const { confirmed, compromised, forced, lifetimeSeconds } = previous
  if (confirmed === undefined) return refuse('rotation-order')
  if (!compromised) {
    const until = confirmed.at + outliveSeconds(lifetimeSeconds, facts.timing)
    return facts.now < until ? refuse('rotation-waits-time', { until }) : undefined
  }
  if (forced) return undefined
  const names = laggards(facts, confirmed.generation)
  const until = confirmed.at + facts.timing.cutSeconds
  return names.length > 0 && facts.now < until ? refuse('rotation-waits-sidecars', { names, until }) : undefined
}
