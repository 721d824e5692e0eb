import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { connect, createPod, establish, type TestPod } from './pods.ts'
import { type Choices, simulate } from './simulation.ts'

// Evenly spread: fc.double takes each exponent as often as any other, and would choose next to nothing but zeros.
const evenly = fc.noBias(fc.integer({ min: 0, max: 9_999 })).map((number) => number / 10_000)
const numbers = fc.array(evenly, { minLength: 100, maxLength: 400, size: 'max' })

async function threePods(): Promise<[TestPod, TestPod, TestPod]> {
  const client = await createPod({ name: 'client', address: '10.244.0.2' })
  const server = await createPod({ name: 'server', address: '10.244.0.3' })
  const mallory = await createPod({ name: 'mallory', address: '10.244.0.9' })
  const pods: [TestPod, TestPod, TestPod] = [client, server, mallory]
  for (const { gate } of pods) {
    for (const { identity } of pods) {
      gate.directory.set(String(identity.addresses[0]), { kind: 'pod', guarded: true, pod: identity })
    }
  }
  return pods
}

async function run(choices: Choices, steps = 900) {
  const [client, server, mallory] = await threePods()
  const early = await establish(connect(client, server, { clientIsn: 9, serverIsn: 10 }))
  const c = connect(client, server, { clientIsn: 50_000, serverIsn: 3_000_000_000 })
  const result = await simulate(c, mallory, choices, [early.syn, early.synAck, early.proof], steps)
  return { violations: result.violations, received: result.server.received }
}

const FINISHED = { violations: [], received: 'hello' }

describe('two guarded Pods on a network that loses, doubles and reorders', () => {
  it('finish their connection when the network becomes fair, and nothing passes before its proof', async () => {
    await fc.assert(
      fc.asyncProperty(numbers, evenly, async (list, loss) => {
        expect(await run({ numbers: list, loss: loss * 0.7, duplication: 0.4, attack: 0, hostileSteps: 150 })).toEqual(
          FINISHED,
        )
      }),
      { numRuns: 200, endOnFailure: true },
    )
  })
})

describe('the same with an attacker who sees everything', () => {
  it('are not released, ended or diverted by what the attacker puts in', async () => {
    await fc.assert(
      fc.asyncProperty(numbers, async (list) => {
        expect(await run({ numbers: list, loss: 0.2, duplication: 0.3, attack: 0.8, hostileSteps: 120 })).toEqual(
          FINISHED,
        )
      }),
      { numRuns: 200, endOnFailure: true },
    )
  })
})

describe('the same where the policies of one end deny from some step on', () => {
  const denial = fc.record({
    end: fc.constantFrom('client', 'server'),
    step: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 40 })),
  })

  it('nothing is released without both decisions, nor after one was taken back', async () => {
    await fc.assert(
      fc.asyncProperty(numbers, denial, async (list, denied) => {
        const choices = { numbers: list, loss: 0.3, duplication: 0.3, attack: 0.6, hostileSteps: 80, denial: denied }
        const { violations, received } = await run(choices, 160)
        expect(violations).toEqual([])
        if (denied.step === 0) expect(received).toBe('')
      }),
      { numRuns: 200, endOnFailure: true },
    )
  })
})
