import { describe, expect, it, jest } from '@jest/globals'
import { checkOnce, fuzz } from './engine.ts'
import { readRegressions } from './regressions.ts'
import { bytesTarget, hold, valueTarget } from './target.ts'
import { TARGETS } from './targets.ts'

// A guard against hanging, far above the seconds that each test takes: a busy machine is no failure.
jest.setTimeout(200_000)

/** Inputs of each target in every run of the tests; `npm run fuzz` tries as many as one likes. */
const SAMPLE = 3_000
/** Where one input makes hundreds of decisions, or writes a file. */
const SAMPLES: Readonly<Record<string, number>> = {
  policy: 150,
  wit: 1_000,
  'policy-text': 120,
  'identity-table': 400,
  admission: 1_500,
}

describe('a fixed sample of hostile inputs', () => {
  it.each(TARGETS)('breaks no law of $name', async (target) => {
    const sample = SAMPLES[target.name] ?? SAMPLE
    const isOver = (inputs: number) => inputs >= sample
    const report = await target.use((own) => fuzz(own, { seed: 20_260_101, isOver }))
    expect(report.findings).toEqual([])
    // Otherwise every input failed at the first look, and nothing was held.
    expect(Object.keys(report.outcomes).length).toBeGreaterThan(2)
  })
})

describe('what once broke a law', () => {
  const regressions = readRegressions()

  it.each(regressions)('$target: $name', async ({ target: name, input }) => {
    const target = TARGETS.find((candidate) => candidate.name === name)
    expect(target).toBeDefined()
    await target?.use((own) => checkOnce(own, own.fromJson(input)))
  })
})

describe('the fuzzing itself', () => {
  const isOver = (inputs: number) => inputs >= 20_000

  it('tries the same inputs for the same seed, and others for another', async () => {
    const short = (inputs: number) => inputs >= 500
    const digestOf = async (seed: number) =>
      Promise.all(TARGETS.slice(0, 4).map((target) => target.use((own) => fuzz(own, { seed, isOver: short })))).then(
        (reports) => reports.map(({ digest }) => digest),
      )
    const [first, again, other] = [await digestOf(1), await digestOf(1), await digestOf(2)]
    expect(again).toEqual(first)
    expect(first.filter((digest) => other.includes(digest))).toEqual([])
  })

  it('finds a mistake in bytes and makes the input small', async () => {
    const broken = bytesTarget({
      name: 'broken',
      about: '',
      sources: [],
      seeds: [new Uint8Array(40).fill(7)],
      check(bytes) {
        hold(!bytes.subarray(1).includes(0xff), 'no byte behind the first is 255')
        return bytes.includes(0x80) ? 'high' : 'low'
      },
    })
    const { findings } = await fuzz(broken, { seed: 1, isOver })
    expect(findings.map(({ problem, input }) => [problem, input])).toEqual([
      ['Error: no byte behind the first is 255', '00ff'],
    ])
  })

  it('finds a mistake in values and makes the input small', async () => {
    const broken = valueTarget({
      name: 'broken',
      about: '',
      sources: [],
      seeds: [{ list: [{ name: 'a', port: 80 }], more: { x: 'y' } }],
      check(value) {
        hold(!JSON.stringify(value).includes('"port":null'), 'a port is never null')
        return 'fine'
      },
    })
    const { findings } = await fuzz(broken, { seed: 1, isOver })
    expect(findings.map(({ input }) => JSON.stringify(input))).toEqual([
      expect.stringMatching(/^.{0,30}"port":null.{0,3}$/),
    ])
  })
})
