import { ROTATION_KEYS_MAX } from '../limits.ts'

/** As the Secret names them. Who is not active only verifies. */
export const KEY_STATES = ['prepared', 'active', 'previous'] as const
export type KeyState = (typeof KEY_STATES)[number]

/** A key that can be active, and what the rotation knows of it. `Material` is a SigningKey or a ServingAuthority. */
export interface RingKey<Material> {
  /** What people and acknowledgements call it: the kid, or a CA certificate's fingerprint. */
  readonly id: string
  readonly material: Material
  readonly state: KeyState
  /** The keyring's generation that put it into this state, and when (seconds since the epoch, by the writer's clock). */
  readonly generation: number
  readonly since: number
  /** Nothing that it signs lives longer than this many seconds after it is signed. */
  readonly lifetimeSeconds: number
  /**
   * When every replica was known to act by this state: each gives a prepared key to sidecars, none signs by a previous
   * one any more. The generation is that of the write which says so.
   */
  readonly confirmed?: { readonly generation: number; readonly at: number }
  /** Somebody else may have it: it is removed without waiting for the end of what it signed. */
  readonly compromised?: true
  /** An operator does not want to wait for sidecars. */
  readonly forced?: true
  /** It was active only until an operator aborted its rotation. */
  readonly aborted?: true
}

/** Keys of one kind, in the order of their making. Either none, or exactly one active and at most one prepared. */
export interface Keyring<Material> {
  /** Grows with each write, and is never below the time of it: a Secret made anew or restored goes on above the lost one. */
  readonly generation: number
  readonly keys: readonly RingKey<Material>[]
  /** The operator's request that was answered last. */
  readonly request?: string
}

export const EMPTY_KEYRING: Keyring<never> = { generation: 0, keys: [] }

/**
 * Where a rotation stands:
 * `none` no keys yet; `idle` one key; `prepared` a new key that some replica may not give out yet; `offered` all give it
 * out, and sidecars acknowledge it; `switched` it signs, and some replica may still sign by the one before; `draining`
 * none does, and what was signed comes to its end.
 */
export const PHASES = ['none', 'idle', 'prepared', 'offered', 'switched', 'draining'] as const
export type Phase = (typeof PHASES)[number]

export function phaseOf({ keys }: Keyring<unknown>): Phase {
  if (keys.length === 0) return 'none'
  const prepared = keys.find(({ state }) => state === 'prepared')
  if (prepared !== undefined) return prepared.confirmed === undefined ? 'prepared' : 'offered'
  const previous = keys.filter(({ state }) => state === 'previous')
  if (previous.length === 0) return 'idle'
  return previous.some(({ confirmed }) => confirmed === undefined) ? 'switched' : 'draining'
}

/** The key that signs; undefined where there are none. */
export function activeKey<Material>({ keys }: Keyring<Material>): RingKey<Material> | undefined {
  return keys.find(({ state }) => state === 'active')
}

/** What is wrong with keys that no rotation made, as a sentence; undefined where nothing is. */
export function findFault({ keys }: Keyring<unknown>): string | undefined {
  const count = (wanted: KeyState) => keys.filter(({ state }) => state === wanted).length
  if (keys.length > 0 && count('active') !== 1) return `exactly one key must be active, not ${count('active')}`
  if (count('prepared') > 1) return `at most one key may be prepared, not ${count('prepared')}`
  if (new Set(keys.map(({ id }) => id)).size < keys.length) return 'a key occurs twice'
  if (keys.length > ROTATION_KEYS_MAX) return `at most ${ROTATION_KEYS_MAX} keys may be kept, not ${keys.length}`
  return undefined
}
