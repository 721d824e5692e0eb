import type { RotationFacts, RotationTiming } from '../../../../certs/rotation/facts.ts'
import { activeKey, EMPTY_KEYRING, type Keyring, phaseOf } from '../../../../certs/rotation/keyring.ts'
import { nextStep } from '../../../../certs/rotation/progress.ts'
import { advance, type RotationEvent } from '../../../../certs/rotation/transitions.ts'

/**
 * An API server, two replicas and sidecars as they meet in a rotation. Time is one number, `world.time`, and everybody's
 * clock is ahead of it by something of their own, up to the skew. What a replica does is cut at every read and write,
 * so that another's can come between and a crash can follow.
 */
export const TIMING: RotationTiming = {
  witLifetimeSeconds: 600,
  skewSeconds: 90,
  replicaSilentSeconds: 60,
  cutSeconds: 60,
}
const FENCE_SECONDS = 30
const STREAM_BACKLOG = 3

export type Ring = Keyring<string>

export interface Wit {
  readonly kid: string
  /** By the signer's clock. */
  readonly expiresAt: number
}

interface Bundle {
  readonly generation: number
  readonly kids: readonly string[]
  readonly active: string
  readonly compromised: boolean
}

interface PublishedRecord {
  readonly generation: number
  readonly acknowledged: ReadonlyMap<string, number>
  readonly beat: string
}

export interface Replica {
  readonly name: string
  readonly clock: number
  isUp: boolean
  incarnation: number
  beats: number
  view: Ring
  /** Acts by its view until then. */
  fencedAt: number
  acknowledged: Map<string, number>
  /** Of each replica the last news, and since when it is known. */
  observed: Map<string, { beat: string; at: number }>
  reading: Generator<void> | undefined
  stepping: Generator<void> | undefined
}

export interface Sidecar {
  readonly uid: string
  readonly clock: number
  isLive: boolean
  isFrozen: boolean
  process: number
  wit: Wit | undefined
  bundle: Bundle | undefined
}

interface Message {
  readonly to: Sidecar
  readonly process: number
  readonly bundle: Bundle
  readonly wit?: Wit
  /** Where it came over a stream: who takes the acknowledgement. */
  readonly stream?: { readonly replica: Replica; readonly incarnation: number }
}

export interface World {
  time: number
  store: Ring
  version: number
  request: { readonly id: string; readonly type: Order } | undefined
  requests: number
  keys: number
  records: Map<string, PublishedRecord>
  readonly replicas: readonly Replica[]
  readonly sidecars: readonly Sidecar[]
  messages: Message[]
  wits: Wit[]
  /** Each keyring that was written, with its time. */
  history: { readonly ring: Ring; readonly time: number; readonly event: string }[]
}

export type Order = 'rotate' | 'rotate-force' | 'compromised' | 'force' | 'abort'

export function createWorld(clocks: readonly number[]): World {
  const replica = (name: string, index: number): Replica => ({
    name,
    clock: clocks[index] ?? 0,
    ...{ isUp: true, incarnation: 0, beats: 0, view: EMPTY_KEYRING, fencedAt: 0 },
    ...{ acknowledged: new Map(), observed: new Map(), reading: undefined, stepping: undefined },
  })
  const sidecar = (uid: string, index: number): Sidecar => ({
    uid,
    clock: clocks[2 + index] ?? 0,
    ...{ isLive: true, isFrozen: false, process: 0, wit: undefined, bundle: undefined },
  })
  return {
    ...{ time: 1_000_000, store: EMPTY_KEYRING, version: 0, request: undefined, requests: 0, keys: 0 },
    ...{ records: new Map(), messages: [], wits: [], history: [] },
    replicas: ['replica-0', 'replica-1'].map(replica),
    sidecars: ['pod-0', 'pod-1', 'pod-2'].map(sidecar),
  }
}

export function isServing(world: World, replica: Replica): boolean {
  return replica.isUp && world.time < replica.fencedAt && phaseOf(replica.view) !== 'none'
}

// ---- replicas ----

/** Publishes what it acts by, then reads what to act by. */
function* read(world: World, replica: Replica): Generator<void> {
  const begun = world.time
  replica.beats++
  world.records.set(replica.name, {
    generation: replica.view.generation,
    acknowledged: new Map(replica.acknowledged),
    beat: `${replica.incarnation}.${replica.beats}`,
  })
  yield
  replica.view = world.store
  replica.fencedAt = begun + FENCE_SECONDS
}

/** Takes the operator's request, or the next step, by what it reads one after the other. */
function* step(world: World, replica: Replica): Generator<void> {
  const { store: ring, version } = world
  yield
  const { request } = world
  yield
  const records = new Map(world.records)
  const readAt = world.time
  yield
  const expected = world.sidecars.filter(({ isLive }) => isLive).map(({ uid }) => uid)
  yield
  const facts = factsOf(replica, records, expected, { readAt, now: world.time + replica.clock })
  const taken = decide(world, ring, request, facts)
  if (taken === undefined || world.version !== version) return
  world.store = taken.ring
  world.version++
  world.history.push({ ring: taken.ring, time: world.time, event: taken.event })
}

function factsOf(
  replica: Replica,
  records: World['records'],
  expected: readonly string[],
  { readAt, now }: { readAt: number; now: number },
): RotationFacts {
  const acknowledged = new Map<string, number>()
  const replicas = [...records].map(([name, record]) => {
    for (const [uid, generation] of record.acknowledged) {
      acknowledged.set(uid, Math.max(generation, acknowledged.get(uid) ?? 0))
    }
    if (replica.observed.get(name)?.beat !== record.beat) {
      replica.observed.set(name, { beat: record.beat, at: readAt })
    }
    const at = replica.observed.get(name)?.at ?? readAt
    return { name, generation: record.generation, silentSeconds: readAt - at }
  })
  return { now, replicas, published: true, expected, acknowledged, timing: TIMING }
}

function decide(world: World, ring: Ring, request: World['request'], facts: RotationFacts) {
  if (phaseOf(ring) === 'none') return apply({ type: 'bootstrap', fresh: freshKey(world) })
  if (request !== undefined && request.id !== ring.request) {
    return apply(eventOf(world, request)) ?? apply({ type: 'dismiss', request: request.id })
  }
  const next = nextStep(ring, facts)
  return 'step' in next ? { ring: next.ring, event: next.step } : undefined

  function apply(event: RotationEvent<string>) {
    const result = advance(ring, event, facts)
    return 'refused' in result ? undefined : { ring: result.ring, event: event.type }
  }
}

function eventOf(world: World, { id: request, type }: NonNullable<World['request']>): RotationEvent<string> {
  switch (type) {
    case 'rotate':
      return { type, request, fresh: freshKey(world) }
    case 'rotate-force':
      return { type: 'rotate', request, fresh: freshKey(world), force: true }
    case 'compromised':
      return { type, request, fresh: freshKey(world) }
    default:
      return { type, request }
  }
}

function freshKey(world: World) {
  const id = `key-${world.keys++}`
  return { id, material: `private ${id}`, lifetimeSeconds: TIMING.witLifetimeSeconds }
}

/** Lets a replica go on with its reading or its step, up to `operations` reads and writes. */
export function proceed(world: World, replica: Replica, what: 'reading' | 'stepping', operations: number): void {
  if (!replica.isUp) return
  for (let count = 0; count < operations; count++) {
    replica[what] ??= what === 'reading' ? read(world, replica) : step(world, replica)
    if (!replica[what].next().done) continue
    replica[what] = undefined
    return
  }
}

export function crash(replica: Replica): void {
  Object.assign(replica, { isUp: false, view: EMPTY_KEYRING, fencedAt: 0, reading: undefined, stepping: undefined })
  replica.acknowledged = new Map()
  replica.observed = new Map()
}

export function restart(replica: Replica): void {
  if (replica.isUp) return
  replica.isUp = true
  replica.incarnation++
}

// ---- sidecars ----

function bundleOf({ generation, keys }: Ring): Bundle {
  const kids = keys.map(({ id }) => id)
  const compromised = keys.some((key) => key.compromised)
  return { generation, kids, active: keys.find(({ state }) => state === 'active')?.id ?? '', compromised }
}

/** The sidecar asks for an identity; the answer is under way, and whatever answer was before is nobody's any more. */
export function ask(world: World, sidecar: Sidecar, replica: Replica): void {
  const key = activeKey(replica.view)
  if (!sidecar.isLive || sidecar.isFrozen || !isServing(world, replica) || key === undefined) return
  const lifetime = Math.min(TIMING.witLifetimeSeconds, key.lifetimeSeconds)
  const wit = { kid: key.id, expiresAt: world.time + replica.clock + lifetime }
  world.wits.push(wit)
  world.messages = world.messages.filter(({ to, stream }) => to !== sidecar || stream !== undefined)
  world.messages.push({ to: sidecar, process: sidecar.process, bundle: bundleOf(replica.view), wit })
}

/** A replica's bundle is under way on the sidecar's stream. */
export function push(world: World, sidecar: Sidecar, replica: Replica): void {
  if (!sidecar.isLive || sidecar.wit === undefined || !isServing(world, replica)) return
  // A stream that is not read is ended.
  if (world.messages.filter(({ to }) => to === sidecar).length >= STREAM_BACKLOG) return
  const stream = { replica, incarnation: replica.incarnation }
  world.messages.push({ to: sidecar, process: sidecar.process, bundle: bundleOf(replica.view), stream })
}

/** The sidecar takes one of the messages that are under way to it. Of two bundles it holds the later one. */
export function deliver(world: World, sidecar: Sidecar, choice: number): void {
  const waiting = world.messages.filter(({ to, process }) => to === sidecar && process === sidecar.process)
  const message = waiting[choice % Math.max(1, waiting.length)]
  if (message === undefined || !sidecar.isLive || sidecar.isFrozen) return
  world.messages = world.messages.filter((other) => other !== message)
  const { bundle, wit, stream } = message
  if (sidecar.bundle === undefined || bundle.generation >= sidecar.bundle.generation) sidecar.bundle = bundle
  if (wit !== undefined) sidecar.wit = wit
  if (stream === undefined) return
  const { replica, incarnation } = stream
  const held = sidecar.bundle
  const isReissued = !held.compromised || sidecar.wit?.kid === held.active
  if (!replica.isUp || replica.incarnation !== incarnation || !isReissued) return
  replica.acknowledged.set(sidecar.uid, Math.max(held.generation, replica.acknowledged.get(sidecar.uid) ?? 0))
}

/** The process ends, its Pod stays or not. */
export function endProcess(sidecar: Sidecar, isLive: boolean): void {
  sidecar.process++
  Object.assign(sidecar, { isLive, isFrozen: false, wit: undefined, bundle: undefined })
}

// ---- all of them ----

/** One round in which whoever can does all that it has to do. */
export function round(world: World, seconds: number, choose: (count: number) => number): void {
  for (const replica of world.replicas) {
    proceed(world, replica, 'reading', 9)
    proceed(world, replica, 'reading', 9)
  }
  for (const sidecar of world.sidecars) {
    const replica = world.replicas[choose(world.replicas.length)]
    if (replica === undefined) continue
    const isOld = sidecar.wit === undefined || sidecar.wit.expiresAt - world.time < TIMING.witLifetimeSeconds / 2
    const isTold = sidecar.bundle?.compromised === true && sidecar.wit?.kid !== sidecar.bundle.active
    if (isOld || isTold) ask(world, sidecar, replica)
    deliver(world, sidecar, 0)
    push(world, sidecar, replica)
    deliver(world, sidecar, choose(4))
    deliver(world, sidecar, 0)
  }
  for (const replica of world.replicas) proceed(world, replica, 'stepping', 9)
  world.time += seconds
}

/** All that is known of the rotation at this moment, for one whose clock is right. */
export function presentFacts(world: World): RotationFacts {
  const expected = world.sidecars.filter(({ isLive }) => isLive).map(({ uid }) => uid)
  const observer = { observed: new Map() } as unknown as Replica
  return factsOf(observer, world.records, expected, { readAt: world.time, now: world.time })
}

/** A world in use: the authority made, every sidecar with an identity. */
export function startWorld(offsets: readonly number[]): World {
  const world = createWorld(offsets)
  for (let count = 0; count < 4; count++) round(world, 5, () => count % 2)
  return world
}

/** What an operator asks for, in place of what was asked before. */
export function order(world: World, type: Order): void {
  world.request = { id: `request-${world.requests++}`, type }
}

/** One of the items; any number chooses one. */
export function pick<Item>(items: readonly Item[], choice: number): Item {
  const item = items[choice % items.length]
  if (item === undefined) throw new TypeError('nothing to choose from')
  return item
}
