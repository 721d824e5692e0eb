import { ROTATION_KEYS_MAX } from '../limits.ts'
import { type RotationErrorCode, type RotationRefusal, refuse } from './errors.ts'
import type { RotationFacts } from './facts.ts'
import { activateWaits, bootstrapWaits, confirmWaits, removeWaits, unconfirmedKeys } from './guards.ts'
import { activeKey, type Keyring, type Phase, phaseOf, type RingKey } from './keyring.ts'

/** A key that is in no keyring yet. */
export interface FreshKey<Material> extends Pick<RingKey<Material>, 'id' | 'material' | 'lifetimeSeconds'> {}

/** What the world asks for, and the steps that a rotation then takes. `request` is an operator's, each with its own. */
export type RotationEvent<Material> =
  | { readonly type: 'bootstrap'; readonly fresh: FreshKey<Material> }
  /** Without a request it is the schedule's. */
  | { readonly type: 'rotate'; readonly fresh: FreshKey<Material>; readonly request?: string; readonly force?: true }
  | { readonly type: 'compromised'; readonly fresh: FreshKey<Material>; readonly request: string }
  | { readonly type: 'force'; readonly request: string }
  | { readonly type: 'abort'; readonly request: string }
  /** The request was refused: it must not come true later, when it would be taken. */
  | { readonly type: 'dismiss'; readonly request: string }
  /** From now on identities of the active key may live so long; until it is written none does. */
  | { readonly type: 'lifetime'; readonly seconds: number }
  /** The Secret was put back to what it was before: somebody acts by that later generation, or has acted by it. */
  | { readonly type: 'restore'; readonly above: number }
  | { readonly type: RotationStep }

/** Steps are taken by whichever replica finds one safe. */
export const ROTATION_STEPS = ['confirm', 'activate', 'remove'] as const
export type RotationStep = (typeof ROTATION_STEPS)[number]

/**
 * What is written, in this order. `secret` is compare-and-swap, and where it fails nothing follows. The others follow
 * from the keyring alone, so whoever reads it does them, and a crash before them loses nothing: `bundle` to sidecars
 * and the API server, `signer` where another key signs, `reissue` where sidecars must fetch an identity at once.
 */
export type RotationWrite = 'secret' | 'bundle' | 'signer' | 'reissue' | 'status'

export interface RotationAdvance<Material> {
  readonly ring: Keyring<Material>
  /** Empty where the event has come true already. */
  readonly writes: readonly RotationWrite[]
}

type EventType = RotationEvent<unknown>['type']
type Row = Readonly<Record<Phase, 'taken' | RotationErrorCode>>

const NO_KEYS = 'rotation-no-keys'
const HAS_KEYS = 'rotation-has-keys'
const RUNNING = 'rotation-running'
const IDLE = 'rotation-not-running'
const ORDER = 'rotation-order'
const YES = 'taken'

/**
 * Each event in each phase: taken, if its guard allows, or refused. An emergency may begin in the midst of another
 * rotation, so previous keys are also confirmed and removed while a key is prepared.
 */
export const TRANSITIONS: Readonly<Record<EventType, Row>> = {
  bootstrap: { none: YES, ...under(HAS_KEYS), idle: HAS_KEYS },
  rotate: { none: NO_KEYS, idle: YES, ...under(RUNNING) },
  compromised: { none: NO_KEYS, idle: YES, ...under(YES) },
  force: { none: NO_KEYS, idle: IDLE, ...under(YES) },
  abort: { none: NO_KEYS, idle: IDLE, ...under(YES) },
  dismiss: { none: NO_KEYS, idle: YES, ...under(YES) },
  lifetime: { none: NO_KEYS, idle: YES, ...under(YES) },
  restore: { none: NO_KEYS, idle: YES, ...under(YES) },
  confirm: { none: ORDER, idle: ORDER, prepared: YES, offered: ORDER, switched: YES, draining: ORDER },
  activate: { none: ORDER, idle: ORDER, prepared: ORDER, offered: YES, switched: ORDER, draining: ORDER },
  remove: { none: ORDER, idle: ORDER, prepared: YES, offered: YES, switched: YES, draining: YES },
}

function under<Value>(value: Value) {
  return { prepared: value, offered: value, switched: value, draining: value }
}

/**
 * The keyring after an event, and what to write for it; or why the event is not taken, by code. An operator's request
 * that was answered already changes nothing.
 */
export function advance<Material>(
  ring: Keyring<Material>,
  event: RotationEvent<Material>,
  facts: RotationFacts,
): RotationAdvance<Material> | RotationRefusal {
  const allowed = TRANSITIONS[event.type][phaseOf(ring)]
  const isAnswered = 'request' in event && event.request !== undefined && event.request === ring.request
  if (isAnswered) return { ring, writes: [] }
  if (allowed !== YES) return refuse(allowed)
  const next = take(ring, event, facts)
  if ('refused' in next) return next
  if (next.keys === ring.keys && next.request === ring.request) return { ring, writes: [] }
  return { ring: next, writes: writesBetween(ring, next) }
}

type Taken<Material> = Keyring<Material> | RotationRefusal

function take<Material>(
  ring: Keyring<Material>,
  event: RotationEvent<Material>,
  facts: RotationFacts,
): Taken<Material> {
  // A clock that is behind must not stop it, and one keyring must not look like another.
  const generation = Math.max(ring.generation + 1, facts.now)
  const request = 'request' in event ? event.request : undefined
  const next: Keyring<Material> = { ...ring, generation, ...(request === undefined ? {} : { request }) }
  const stamp = { generation, since: facts.now }
  switch (event.type) {
    case 'bootstrap':
      return bootstrapWaits(facts) ?? { ...next, keys: [{ ...event.fresh, ...stamp, state: 'active' }] }
    case 'rotate':
      return prepare(next, { ...event.fresh, ...stamp, state: 'prepared', ...(event.force && { forced: true }) })
    case 'compromised':
      return prepare(declareCompromised(next, stamp), { ...event.fresh, ...stamp, state: 'prepared' })
    case 'force':
      return force(next)
    case 'abort':
      return abort(next, stamp)
    case 'dismiss':
      return next
    case 'lifetime':
      return extendLifetime(next, event.seconds)
    case 'restore':
      return event.above <= ring.generation ? ring : restore(next, event.above, facts)
    case 'confirm':
      return confirm(next, facts)
    case 'activate':
      return activate(next, stamp, facts)
    case 'remove':
      return remove(next, facts)
  }
}

type Stamp = Pick<RingKey<unknown>, 'generation' | 'since'>

function prepare<Material>(ring: Keyring<Material>, fresh: RingKey<Material>): Taken<Material> {
  if (ring.keys.some(({ id }) => id === fresh.id)) return refuse('rotation-known-key')
  if (ring.keys.length >= ROTATION_KEYS_MAX) return refuse('rotation-too-many-keys')
  return { ...ring, keys: [...ring.keys, fresh] }
}

/**
 * All of them: they lie in one Secret. A prepared key has signed nothing and goes at once. What was confirmed of previous
 * ones is begun anew: sidecars acknowledged it while their identities could still be by these.
 */
function declareCompromised<Material>(ring: Keyring<Material>, stamp: Stamp): Keyring<Material> {
  const keys = ring.keys
    .filter(({ state }) => state !== 'prepared')
    .map((key): RingKey<Material> => {
      return { ...(key.state === 'previous' ? moveKey(key, 'previous', stamp) : key), compromised: true }
    })
  return { ...ring, keys }
}

/** What waits for sidecars does so no longer. */
function force<Material>(ring: Keyring<Material>): Taken<Material> {
  const waitsForSidecars = ({ state, compromised }: RingKey<Material>) =>
    state === 'prepared' || (state === 'previous' && compromised === true)
  if (!ring.keys.some(waitsForSidecars)) return refuse('rotation-not-forcible')
  return { ...ring, keys: ring.keys.map((key) => (waitsForSidecars(key) ? { ...key, forced: true } : key)) }
}

/** A prepared key has signed nothing; and once it signs, the key before it is still trusted by all and can sign again. */
function abort<Material>(ring: Keyring<Material>, stamp: Stamp): Taken<Material> {
  if (ring.keys.some(({ state }) => state === 'prepared')) {
    const keys = ring.keys
      .filter(({ state }) => state !== 'prepared')
      .map((key) => (key.state === 'active' ? withoutCompromise(key) : key))
    return { ...ring, keys }
  }
  const previous = ring.keys.filter(({ state }) => state === 'previous')
  if (previous.length > 1 || previous.some(({ compromised, aborted }) => compromised || aborted)) {
    return refuse('rotation-no-way-back')
  }
  const keys = ring.keys.map((key): RingKey<Material> => {
    return key.state === 'previous'
      ? moveKey(key, 'active', stamp)
      : { ...moveKey(key, 'previous', stamp), aborted: true }
  })
  return { ...ring, keys }
}

function extendLifetime<Material>(ring: Keyring<Material>, seconds: number): Keyring<Material> {
  const active = activeKey(ring)
  if (active === undefined || active.lifetimeSeconds >= seconds) return ring
  return { ...ring, keys: ring.keys.map((key) => (key === active ? { ...key, lifetimeSeconds: seconds } : key)) }
}

/**
 * Above what sidecars hold, or they would keep that; and what was acknowledged and confirmed was of other keys, so that
 * is begun anew.
 */
function restore<Material>(ring: Keyring<Material>, above: number, facts: RotationFacts): Keyring<Material> {
  const generation = Math.max(ring.generation, above + 1)
  const stamp = { generation, since: facts.now }
  const keys = ring.keys.map((key) => (key.state === 'active' ? key : moveKey(key, key.state, stamp)))
  return { ...ring, generation, keys }
}

function confirm<Material>(ring: Keyring<Material>, facts: RotationFacts): Taken<Material> {
  const unconfirmed = new Set<unknown>(unconfirmedKeys(ring))
  if (unconfirmed.size === 0) return refuse('rotation-order')
  const wait = confirmWaits(ring, facts)
  if (wait !== undefined) return wait
  const confirmed = { generation: ring.generation, at: facts.now }
  return { ...ring, keys: ring.keys.map((key) => (unconfirmed.has(key) ? { ...key, confirmed } : key)) }
}

function activate<Material>(ring: Keyring<Material>, stamp: Stamp, facts: RotationFacts): Taken<Material> {
  const prepared = ring.keys.find(({ state }) => state === 'prepared')
  if (prepared === undefined) return refuse('rotation-order')
  const wait = activateWaits(ring, prepared, facts)
  if (wait !== undefined) return wait
  const keys = ring.keys.map((key) => {
    if (key.state === 'previous') return key
    return moveKey(key, key === prepared ? 'active' : 'previous', stamp)
  })
  return { ...ring, keys }
}

/** Removes every key that may go; where none may, says what the first of them waits for. */
function remove<Material>(ring: Keyring<Material>, facts: RotationFacts): Taken<Material> {
  const previous = ring.keys.filter(({ state }) => state === 'previous')
  const waits = previous.map((key) => removeWaits(key, facts))
  const gone = new Set(previous.filter((_, index) => waits[index] === undefined))
  if (gone.size === 0) return waits[0] ?? refuse('rotation-order')
  return { ...ring, keys: ring.keys.filter((key) => !gone.has(key)) }
}

/** The key in another state, about which nothing is confirmed yet; what an operator forced is over with the old state. */
function moveKey<Material>(
  { confirmed: _, forced: __, ...key }: RingKey<Material>,
  state: RingKey<Material>['state'],
  stamp: Stamp,
): RingKey<Material> {
  return { ...key, ...stamp, state }
}

function withoutCompromise<Material>({ compromised: _, ...key }: RingKey<Material>): RingKey<Material> {
  return key
}

function writesBetween(before: Keyring<unknown>, after: Keyring<unknown>): readonly RotationWrite[] {
  const ids = ({ keys }: Keyring<unknown>) => keys.map(({ id }) => id).join(' ')
  const isOtherSigner = activeKey(before)?.id !== activeKey(after)?.id
  const isEmergency = after.keys.some(({ compromised }) => compromised)
  return [
    'secret',
    ...(ids(before) === ids(after) ? [] : (['bundle'] as const)),
    ...(isOtherSigner ? (['signer'] as const) : []),
    ...(isOtherSigner && isEmergency ? (['reissue'] as const) : []),
    'status',
  ]
}
