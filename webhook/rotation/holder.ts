import { AuthorityError } from '../../certs/errors.ts'
import { REPLICA_FENCE_SECONDS } from '../../certs/limits.ts'
import { type Keyring, phaseOf } from '../../certs/rotation/keyring.ts'
import type { RotationStore } from './store.ts'

/** The keyring that this replica acts by. */
export interface KeyringHolder<Material> {
  /**
   * What to sign by and to give out now; undefined before the first reading, and once the last began too long ago: other
   * replicas may have written this one off, and removed what it would sign by.
   */
  current(): Keyring<Material> | undefined
  /** What was read last, however long ago. */
  last(): Keyring<Material> | undefined
  /** Seconds since the last reading began; infinite before the first. */
  readAgeSeconds(): number
  /** Notes that a sidecar holds the keys of that generation (docs/rotation.md says of what). */
  acknowledge(uid: string, generation: number): void
  /** Publishes what this replica acts by, then reads what to act by. Rejects as the store does; the last keyring stands. */
  refresh(): Promise<void>
}

export interface HolderOptions<Material> {
  readonly store: Pick<RotationStore<Material>, 'publish' | 'readKeyring' | 'readRecords'>
  readonly name: string
  /** Differs from every earlier process of this name. */
  readonly incarnation: string
  /** Seconds on a clock that only runs. */
  readonly elapsed: () => number
  /** Hears of each keyring that differs from the one before. */
  readonly onKeyring: (ring: Keyring<Material>) => void
}

export function createKeyringHolder<Material>(options: HolderOptions<Material>): KeyringHolder<Material> {
  const { store, name, incarnation, elapsed, onKeyring } = options
  let held: Keyring<Material> | undefined
  let actsUntil = Number.NEGATIVE_INFINITY
  let beats = 0
  let acknowledged = new Map<string, number>()
  let running: Promise<void> | undefined

  /** What an earlier process of this name heard still holds, and would be lost by the first record of this one. */
  async function inherit(): Promise<void> {
    if (beats > 0) return
    const earlier = (await store.readRecords()).find((record) => record.name === name)
    acknowledged = new Map(earlier?.acknowledged)
  }

  async function refresh(): Promise<void> {
    const begun = elapsed()
    await inherit()
    beats++
    const generation = held?.generation ?? 0
    await store.publish({ name, beat: `${incarnation}.${beats}`, generation, acknowledged: [...acknowledged] })
    const { value: ring } = await store.readKeyring().catch((error: unknown) => {
      // Nobody can step by what is damaged, so what this replica holds goes on being good.
      if (error instanceof AuthorityError) actsUntil = begun + REPLICA_FENCE_SECONDS
      throw error
    })
    actsUntil = begun + REPLICA_FENCE_SECONDS
    // The same where it is gone: no keys are made while a replica acts by some.
    if (phaseOf(ring) === 'none' || ring.generation === held?.generation) return
    held = ring
    const needed = neededGeneration(ring)
    acknowledged = new Map([...acknowledged].filter(([, generation]) => generation >= needed))
    onKeyring(ring)
  }

  return {
    current: () => (elapsed() < actsUntil ? held : undefined),
    last: () => held,
    readAgeSeconds: () => elapsed() - (actsUntil - REPLICA_FENCE_SECONDS),
    acknowledge(uid, generation) {
      if (held === undefined || generation < neededGeneration(held)) return
      acknowledged.set(uid, Math.max(generation, acknowledged.get(uid) ?? 0))
    },
    refresh() {
      // One at a time: a reading that began earlier and ends later would bring back what was before.
      running ??= refresh().finally(() => {
        running = undefined
      })
      return running
    },
  }
}

/** Acknowledgements of earlier generations than any step waits for say nothing; without a rotation, none does. */
function neededGeneration({ generation, keys }: Keyring<unknown>): number {
  const confirmed = keys.flatMap(({ state, confirmed }) =>
    state !== 'active' && confirmed !== undefined ? [confirmed.generation] : [],
  )
  return confirmed.length === 0 ? generation + 1 : Math.min(...confirmed)
}
