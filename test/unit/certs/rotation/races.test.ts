import { describe, expect, it } from '@jest/globals'
import { phaseOf } from '../../../../certs/rotation/keyring.ts'
import { signersOutside, unnamed, unverifiable } from './invariants.ts'
import {
  ask,
  crash,
  deliver,
  endProcess,
  order,
  pick,
  proceed,
  push,
  type Replica,
  restart,
  type Sidecar,
  startWorld,
  type World,
} from './world.ts'

/** Orders of events that chance finds too seldom. Each shows what one rule of the facts is for. */

/** A replica publishes and reads, takes a step if one is safe, and reads what came of it. */
function settle(world: World, replica: Replica): void {
  for (const what of ['reading', 'stepping', 'reading'] as const) proceed(world, replica, what, 9)
}

/** The sidecars hear the replica's bundle and say so. */
function acknowledge(world: World, sidecars: readonly Sidecar[], replica: Replica): void {
  for (const sidecar of sidecars) {
    push(world, sidecar, replica)
    deliver(world, sidecar, 0)
  }
}

/** The reads of a step; after them it decides and writes. */
const STEP_READS = [0, 1, 2, 3, 4]

describe('a sidecar that starts anew', () => {
  it('and gets its identity of a replica that is behind is waited for, although it acknowledged the key before', () => {
    const world = startWorld([0, 0, 0, 0, 0])
    const [ahead, behind] = [pick(world.replicas, 0), pick(world.replicas, 1)]
    order(world, 'rotate')
    settle(world, ahead)
    acknowledge(world, world.sidecars, ahead)
    const anew = pick(world.sidecars, 0)
    endProcess(anew, true)
    ask(world, anew, behind)
    deliver(world, anew, 0)
    // Both replicas give the key out now, and say so; only that sidecar has not heard of it.
    for (let count = 0; count < 3; count++) for (const replica of [behind, ahead]) settle(world, replica)
    expect([phaseOf(world.store), unnamed(world), anew.bundle?.kids]).toEqual(['offered', [], ['key-0']])
    acknowledge(world, world.sidecars, behind)
    for (const replica of [behind, ahead]) settle(world, replica)
    expect([phaseOf(world.store), unverifiable(world)]).toEqual(['switched', []])
  })
})

describe('a Pod that starts while a replica stalls between two reads of a step', () => {
  it.each(STEP_READS)('is waited for: %i', (reads) => {
    const world = startWorld([0, 0, 0, 0, 0])
    const [stalled, other] = [pick(world.replicas, 0), pick(world.replicas, 1)]
    const late = pick(world.sidecars, 2)
    endProcess(late, false)
    order(world, 'rotate')
    settle(world, stalled)
    proceed(world, stalled, 'reading', 9)
    proceed(world, stalled, 'stepping', reads)
    late.isLive = true
    ask(world, late, other)
    deliver(world, late, 0)
    for (let count = 0; count < 2; count++) settle(world, other)
    acknowledge(world, world.sidecars.slice(0, 2), other)
    proceed(world, other, 'reading', 9)
    expect([phaseOf(world.store), late.bundle?.kids]).toEqual(['offered', ['key-0']])
    for (let count = 0; count < 2; count++) proceed(world, stalled, 'stepping', 9)
    expect([phaseOf(world.store), unverifiable(world)]).toEqual(['offered', []])
  })
})

describe('a replica that starts again after it was written off', () => {
  /** The other replica is alone for so long that this one counts no more. */
  function writtenOff(): { world: World; back: Replica; other: Replica } {
    const world = startWorld([0, 0, 0, 0, 0])
    const [other, back] = [pick(world.replicas, 0), pick(world.replicas, 1)]
    crash(back)
    for (let passed = 0; passed < 100; passed += 10) {
      settle(world, other)
      world.time += 10
    }
    restart(back)
    settle(world, other)
    return { world, back, other }
  }

  it.each([0, 1, 2])('acts by no keyring that it read while it did not count: %i operations', (operations) => {
    const { world, back, other } = writtenOff()
    proceed(world, back, 'reading', operations)
    order(world, 'rotate')
    for (let count = 0; count < 4; count++) {
      settle(world, other)
      acknowledge(world, world.sidecars, other)
    }
    proceed(world, back, 'reading', 9)
    expect(signersOutside(world)).toEqual([])
  })

  it.each(STEP_READS)('counts in a step that was begun before: %i reads', (reads) => {
    const { world, back, other } = writtenOff()
    order(world, 'rotate')
    proceed(world, other, 'stepping', reads)
    proceed(world, back, 'reading', 9)
    // It writes the prepared key, and still acts by what it read before.
    proceed(world, back, 'stepping', 9)
    for (let count = 0; count < 4; count++) {
      proceed(world, other, 'stepping', 9)
      proceed(world, other, 'reading', 9)
      acknowledge(world, world.sidecars, other)
    }
    expect([phaseOf(world.store), signersOutside(world)]).toEqual(['prepared', []])
  })
})
