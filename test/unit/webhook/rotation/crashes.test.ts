import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import type { RotationRequest } from '../../../../api/rotation.ts'
import { activeKey, phaseOf } from '../../../../certs/rotation/keyring.ts'
import { createStage, type Stage, startReplica, type TestReplica } from './memory-store.ts'

/** A process of a replica. */
interface Process {
  readonly name: string
  readonly replica: TestReplica
  /** How many calls it still makes before it is gone, in the midst of a turn. */
  callsLeft: number
}

/** The clock of b is ahead of that of a by 90 s. */
const CLOCKS = { a: 0, b: 90 }

/** A fresh process; each of its calls reaches the API server when the scheduler says so. */
function startProcess(stage: Stage, name: keyof typeof CLOCKS, scheduler: fc.Scheduler): Process {
  const before = (call: string) => {
    if (--process.callsLeft < 0) return Promise.reject(new Error('crashed'))
    return scheduler.schedule(Promise.resolve(), `${name} ${call}`)
  }
  const replica = startReplica(stage, name, { clock: CLOCKS[name], before })
  const process: Process = { name, replica, callsLeft: Number.POSITIVE_INFINITY }
  return process
}

const number = fc.nat({ max: 30 })
const commands = fc.array(
  fc.record({
    type: fc.constantFrom('turn', 'both', 'both', 'both', 'cut', 'start', 'pass', 'request', 'acknowledge'),
    name: fc.constantFrom('a', 'b'),
    number,
  }),
  { minLength: 40, maxLength: 120, size: 'max' },
)
const REQUESTS: readonly RotationRequest['type'][] = ['rotate', 'rotate', 'compromised', 'abort', 'force']
const SIDECARS = ['pod-1', 'pod-2']

/**
 * Whatever one replica signs by now, each that acts gives out; and one key is active. A process that gets through to the API
 * server no more counts as long as it acts.
 */
function findFaults(stage: Stage, processes: Iterable<Process>): string[] {
  const rings = [...processes].flatMap(({ replica }) => replica.holder.current() ?? [])
  const unknown = rings
    .map((ring) => activeKey(ring)?.id)
    .filter((id) => ![...rings, stage.ring].every(({ keys }) => keys.some((key) => key.id === id)))
  const counts = stage.history.map(({ keys }) => keys.filter(({ state }) => state === 'active').length)
  return [
    ...unknown.map((id) => `${id} signs and is not given out`),
    ...counts.filter((count) => count !== 1).map((count) => `${count} keys are active`),
  ]
}

function acknowledge({ replica }: Process): void {
  const generation = replica.holder.current()?.generation
  if (generation !== undefined) for (const uid of SIDECARS) replica.holder.acknowledge(uid, generation)
}

describe('two replicas whose processes end at any of their calls', () => {
  it('sign by nothing that the other does not give out, lose no key, and finish once both are there', async () => {
    let rotations = 0
    let crashes = 0
    await fc.assert(
      fc.asyncProperty(commands, fc.scheduler(), async (list, scheduler) => {
        const stage = createStage()
        stage.expected = [...SIDECARS]
        const start = (name: keyof typeof CLOCKS) => startProcess(stage, name, scheduler)
        const processes = { a: start('a'), b: start('b') }
        /** Turns at the same time, their calls in any order. */
        const turn = async (taking: readonly Process[]) => {
          const results = await scheduler.waitFor(Promise.allSettled(taking.map(({ replica }) => replica.turn())))
          crashes += results.filter(({ status }) => status === 'rejected').length
        }
        let requests = 0
        for (const { type, name, number } of list) {
          if (type === 'turn') await turn([processes[name]])
          if (type === 'both') await turn(Object.values(processes))
          if (type === 'cut') processes[name].callsLeft = number
          if (type === 'start') processes[name] = start(name)
          if (type === 'pass') stage.elapsed += number * 4
          if (type === 'acknowledge') acknowledge(processes[name])
          if (type === 'request') {
            stage.request = { id: `r${requests++}`, type: REQUESTS[number % REQUESTS.length] ?? 'rotate' }
          }
          expect(findFaults(stage, Object.values(processes))).toEqual([])
        }
        Object.assign(processes, { a: start('a'), b: start('b') })
        const isOver = () => stage.request?.id === stage.ring.request && phaseOf(stage.ring) === 'idle'
        for (let passed = 0; passed < 9_000 && !isOver(); passed += 20) {
          await turn(Object.values(processes))
          for (const process of Object.values(processes)) acknowledge(process)
          stage.elapsed += 20
          expect(findFaults(stage, Object.values(processes))).toEqual([])
        }
        expect([isOver(), stage.ring.keys.map(({ state }) => state)]).toEqual([true, ['active']])
        rotations += stage.history.filter((ring) => phaseOf(ring) === 'idle').length - 1
      }),
      { numRuns: 50, endOnFailure: true },
    )
    // Else the property would have looked at nothing.
    expect([rotations > 25, crashes > 50]).toEqual([true, true])
  })
})
