import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { phaseOf } from '../../../../certs/rotation/keyring.ts'
import { nextStep } from '../../../../certs/rotation/progress.ts'
import { signersOutside, unknownToReplicas, unnamed, unverifiable, wrongMoves } from './invariants.ts'
import {
  ask,
  crash,
  deliver,
  endProcess,
  type Order,
  order,
  pick,
  presentFacts,
  proceed,
  push,
  restart,
  round,
  startWorld,
  TIMING,
  type World,
} from './world.ts'

const small = fc.nat({ max: 5 })
const clocks = fc.array(fc.constantFrom(0, TIMING.skewSeconds), { minLength: 5, maxLength: 5 })
const seconds = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 20 }) },
  { weight: 3, arbitrary: fc.integer({ min: 20, max: 100 }) },
  { weight: 1, arbitrary: fc.integer({ min: 100, max: 700 }) },
)

interface Command {
  readonly type: string
  readonly run: (world: World) => void
  toString(): string
}

function command<Args extends unknown[]>(
  type: string,
  args: { readonly [Index in keyof Args]: fc.Arbitrary<Args[Index]> },
  run: (world: World, ...args: Args) => void,
): fc.Arbitrary<Command> {
  return fc.tuple<Args>(...args).map((values) => ({
    type,
    run: (world) => run(world, ...values),
    toString: () => `${type}(${values.join(', ')})`,
  }))
}

/** What happens in the world; `orders` are what operators ask for. */
function commands(orders: readonly Order[]): fc.Arbitrary<Command[]> {
  const one = fc.oneof(
    {
      weight: 14,
      arbitrary: command('round', [small, fc.integer({ min: 1, max: 15 })], (world, choice, length) => {
        let count = choice
        round(world, length, (options) => count++ % options)
      }),
    },
    {
      weight: 5,
      // The other replica hears and says nothing meanwhile, and answers by what it knows.
      arbitrary: command('alone', [small, seconds], (world, who, length) => {
        for (let passed = 0; passed < length; passed += 5) {
          for (let count = 0; count < 2; count++) go(world, who, 'reading', 9)
          go(world, who, 'stepping', 9)
          world.time += 5
        }
      }),
    },
    { weight: 8, arbitrary: command('read', [small, small], (w, who, n) => go(w, who, 'reading', n)) },
    { weight: 8, arbitrary: command('step', [small, small], (w, who, n) => go(w, who, 'stepping', n)) },
    {
      weight: 6,
      arbitrary: command('ask', [small, small], (w, who, whom) =>
        ask(w, pick(w.sidecars, who), pick(w.replicas, whom)),
      ),
    },
    {
      weight: 6,
      arbitrary: command('push', [small, small], (w, who, whom) => {
        push(w, pick(w.sidecars, who), pick(w.replicas, whom))
      }),
    },
    { weight: 8, arbitrary: command('deliver', [small, small], (w, who, n) => deliver(w, pick(w.sidecars, who), n)) },
    {
      weight: 6,
      arbitrary: command('pass', [seconds], (world, length) => {
        world.time += length
      }),
    },
    { weight: 2, arbitrary: command('crash', [small], (w, who) => crash(pick(w.replicas, who))) },
    { weight: 4, arbitrary: command('restart', [small], (w, who) => restart(pick(w.replicas, who))) },
    {
      weight: 3,
      arbitrary: command('freeze', [small, fc.nat({ max: 2 })], (world, who, choice) => {
        pick(world.sidecars, who).isFrozen = choice === 0
      }),
    },
    {
      weight: 2,
      arbitrary: command('end', [small, fc.boolean()], (w, who, isLive) => endProcess(pick(w.sidecars, who), isLive)),
    },
    {
      weight: 2,
      arbitrary: command('order', [fc.constantFrom(...orders)], (world, type) => {
        order(world, type)
      }),
    },
  )
  return fc.array(one, { minLength: 100, maxLength: 300, size: 'max' })
}

function go(world: World, who: number, what: 'reading' | 'stepping', operations: number): void {
  proceed(world, pick(world.replicas, who), what, operations + 1)
}

/** Runs the commands; after each, what is wrong. Ends at the first that is. */
function findViolations(world: World, list: readonly Command[], invariants: readonly ((world: World) => string[])[]) {
  for (const { run } of list) {
    run(world)
    const violations = invariants.flatMap((invariant) => invariant(world))
    if (violations.length > 0) return violations
  }
  return []
}

/** Everybody is there again: rounds until the rotation is over. What was wrong after any of them, or that it is not. */
function recover(world: World, isFrozenStill: boolean, invariants: readonly ((world: World) => string[])[]): string[] {
  const begun = world.time
  for (const replica of world.replicas) restart(replica)
  if (!isFrozenStill) for (const sidecar of world.sidecars) sidecar.isFrozen = false
  const isAnswered = () => world.request === undefined || world.request.id === world.store.request
  let count = 0
  while (!(isAnswered() && phaseOf(world.store) === 'idle')) {
    round(world, 10, (options) => count++ % options)
    const violations = invariants.flatMap((invariant) => invariant(world))
    if (violations.length > 0) return violations
    if (world.time - begun > LONGEST_SECONDS) return [`still ${phaseOf(world.store)} after ${LONGEST_SECONDS} s`]
  }
  return []
}

/** A rotation waits at most once for a silent sidecar and once for what was signed; the rest are a few rounds. */
const LONGEST_SECONDS = 2 * (TIMING.witLifetimeSeconds + 4 * TIMING.skewSeconds) + 300

// Shrinking takes minutes; the seed and path that are told repeat a run.
const RUNS = { numRuns: 300, endOnFailure: true }

describe('a rotation among replicas that crash, with stale views and clocks 90 s off', () => {
  it('leaves no identity that a sidecar would accept without its key, no signer outside a bundle, no state lost', () => {
    let completed = 0
    let aborted = 0
    fc.assert(
      fc.property(clocks, commands(['rotate', 'rotate', 'rotate', 'abort']), (offsets, list) => {
        const world = startWorld(offsets)
        const invariants = [unverifiable, signersOutside, unknownToReplicas, unnamed, wrongMoves]
        expect(findViolations(world, list, invariants)).toEqual([])
        completed += world.history.filter(({ event }) => event === 'remove').length
        aborted += world.history.filter(({ event }) => event === 'abort').length
        expect(recover(world, true, invariants)).toEqual([])
      }),
      RUNS,
    )
    // Else the property would have looked at nothing.
    expect(completed).toBeGreaterThan(20)
    expect(aborted).toBeGreaterThan(20)
  })

  it('holds that in an emergency and by force too, but for sidecars that were not waited for', () => {
    let cut = 0
    const orders: Order[] = ['rotate', 'rotate-force', 'compromised', 'compromised', 'force', 'abort']
    fc.assert(
      fc.property(clocks, commands(orders), (offsets, list) => {
        const world = startWorld(offsets)
        const invariants = [signersOutside, unknownToReplicas, unnamed, wrongMoves]
        expect(findViolations(world, list, invariants)).toEqual([])
        cut += world.history.filter(({ event }) => event === 'remove').length
        expect(recover(world, false, invariants)).toEqual([])
      }),
      RUNS,
    )
    expect(cut).toBeGreaterThan(20)
  })
})

describe('a sidecar that is frozen', () => {
  it('is named, holds the step until its identity has ended, and no longer', () => {
    const world = startWorld([0, 90, 0, 0, 0])
    const frozen = pick(world.sidecars, 1)
    frozen.isFrozen = true
    order(world, 'rotate')
    const names = new Set<string>()
    let activatedAt: number | undefined
    const endsAt = frozen.wit?.expiresAt ?? 0
    for (let count = 0; count < 300 && activatedAt === undefined; count++) {
      round(world, 10, (options) => count % options)
      const next = nextStep(world.store, presentFacts(world))
      if (phaseOf(world.store) === 'offered' && 'waits' in next) {
        for (const { names: waited = [] } of next.waits) for (const name of waited) names.add(name)
      }
      expect(unverifiable(world)).toEqual([])
      activatedAt = world.history.find(({ event }) => event === 'activate')?.time
    }
    expect([...names]).toContain(frozen.uid)
    // The others are named at most until they have acknowledged; at the end it is this one alone.
    expect(activatedAt).toBeGreaterThan(endsAt + TIMING.skewSeconds)
    expect(activatedAt).toBeLessThan(endsAt + 4 * TIMING.skewSeconds + 100)
    frozen.isFrozen = false
    for (let count = 0; count < 9; count++) round(world, 5, (options) => count % options)
    expect(unverifiable(world)).toEqual([])
    expect(frozen.wit?.kid).toBe('key-1')
  })

  it('holds nothing where the operator forces it, or in an emergency', () => {
    for (const type of ['rotate-force', 'compromised'] as const) {
      const world = startWorld([0, 0, 0, 0, 0])
      pick(world.sidecars, 1).isFrozen = true
      order(world, type)
      const begun = world.time
      for (let count = 0; count < 20; count++) round(world, 2, (options) => count % options)
      const activated = world.history.find(({ event }) => event === 'activate')
      expect([type, (activated?.time ?? Number.NaN) - begun <= 10]).toEqual([type, true])
    }
  })
})

describe('a replica that crashed', () => {
  it('is waited for as long as it might act, and at every single write of a rotation another one goes on', () => {
    for (let operations = 0; operations < 120; operations++) {
      const world = startWorld([0, 90, 45, 0, 90])
      order(world, 'rotate')
      const first = pick(world.replicas, 0)
      // Counts the first replica's reads and writes until it crashes after exactly so many.
      let left = operations
      while (left > 0) {
        proceed(world, first, 'reading', 1)
        left--
        if (left-- > 0) proceed(world, first, 'stepping', 1)
        world.time += 1
      }
      crash(first)
      for (let count = 0; count < 300; count++) {
        round(world, 10, () => 1)
        expect([unverifiable, signersOutside, wrongMoves].flatMap((invariant) => invariant(world))).toEqual([])
      }
      expect([operations, phaseOf(world.store), world.store.request]).toEqual([operations, 'idle', 'request-0'])
      expect(world.store.keys.map(({ id, state }) => [id === 'key-0', state])).toEqual([[false, 'active']])
    }
  })
})
