/** The loop: choose an input, change it, hold the target's laws on it, keep it where it reached something new. */
import { createHash } from 'node:crypto'
import type { Coverage, Place } from './coverage.ts'
import { createRandom, type Random } from './random.ts'
import type { Target } from './target.ts'
import type { Json } from './values.ts'

export interface FuzzOptions {
  readonly seed: number
  /** When to stop; asked once a batch. */
  readonly isOver: (inputs: number) => boolean
  /** Without it the seeds stay the corpus, but for inputs with a new outcome. */
  readonly coverage?: Coverage
}

export interface Finding {
  readonly target: string
  /** What went wrong: the exception's first line. */
  readonly problem: string
  readonly stack: string
  readonly input: Json
}

export interface FuzzReport {
  readonly inputs: number
  readonly corpus: number
  /** How often each outcome came. */
  readonly outcomes: Readonly<Record<string, number>>
  readonly findings: readonly Finding[]
  /** SHA-256 over all inputs: equal where two runs tried the same. */
  readonly digest: string
}

/** Of the process's CPU, so that a busy machine is no finding: ten times what the largest input takes. */
const DEADLINE_SECONDS = 5
const FINDINGS = 20
const SHRINK_CHECKS = 1_500
const SHRINK_MS = 20_000

/** The outcome of one input. Throws where a law is broken, or where it takes longer than the deadline, twice. */
export async function checkOnce<Input>(target: Target<Input>, input: Input): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const before = process.cpuUsage()
    const result = target.check(input)
    const outcome = typeof result === 'string' ? result : await result
    const { user, system } = process.cpuUsage(before)
    if (user + system < DEADLINE_SECONDS * 1e6) return outcome
    // The collector may have had to clear up after others; an input that is slow is so again.
    if (attempt === 2) throw new Error(`takes longer than ${DEADLINE_SECONDS} s of CPU`)
  }
}

function problemOf(error: unknown): string {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return (text.split('\n')[0] ?? '').slice(0, 200)
}

/** Numbers and quoted parts differ from input to input of one mistake. */
function kindOf(problem: string): string {
  return problem.replaceAll(/"[^"]*"|'[^']*'|\d+/g, '#').slice(0, 80)
}

async function minimise<Input>(target: Target<Input>, input: Input, kind: string): Promise<Input> {
  let smallest = input
  let checks = 0
  const started = performance.now()
  for (let improved = true; improved; ) {
    improved = false
    for (const smaller of target.shrink(smallest)) {
      if (++checks > SHRINK_CHECKS || performance.now() - started > SHRINK_MS) return smallest
      const problem = await checkOnce(target, smaller).then(() => undefined, problemOf)
      if (problem === undefined || kindOf(problem) !== kind) continue
      smallest = smaller
      improved = true
      break
    }
  }
  return smallest
}

/** Fuzzes one target until it is over. Never throws for what the target does. */
export async function fuzz<Input>(target: Target<Input>, options: FuzzOptions): Promise<FuzzReport> {
  const { coverage, isOver } = options
  const random = createRandom(options.seed)
  const corpus: Input[] = [...target.seeds]
  const findings: Finding[] = []
  const kinds = new Set<string>()
  const outcomes: Record<string, number> = {}
  const digest = createHash('sha256')
  let inputs = 0

  /** Whether the input had an outcome that no other had. */
  async function attempt(input: Input): Promise<boolean> {
    inputs++
    digest.update(JSON.stringify(target.toJson(input)))
    let outcome: string
    try {
      outcome = await checkOnce(target, input)
    } catch (error) {
      const kind = kindOf(problemOf(error))
      if (!kinds.has(kind)) {
        kinds.add(kind)
        const smallest = await minimise(target, input, kind)
        const thrown = await checkOnce(target, smallest).then(
          () => error,
          (again: unknown) => again,
        )
        const stack = thrown instanceof Error ? (thrown.stack ?? '') : ''
        findings.push({ target: target.name, problem: problemOf(thrown), stack, input: target.toJson(smallest) })
      }
      outcome = 'finding'
    }
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    return outcomes[outcome] === 1
  }

  /** Finds the inputs of a batch that ran the new places, by running its halves again, and keeps one for each. */
  async function keepNew(batch: readonly Input[], places: readonly Place[]): Promise<void> {
    const [only, second] = batch
    if (coverage === undefined || only === undefined || places.length === 0) return
    if (second === undefined) return void corpus.push(only)
    const half = batch.slice(0, batch.length >> 1)
    for (const input of half) await checkOnce(target, input).catch(() => undefined)
    const early = coverage.ran(places)
    await keepNew(half, early)
    const rest = places.filter((place) => !early.includes(place))
    await keepNew(batch.slice(half.length), rest)
  }

  for (const seed of target.seeds) await attempt(seed)
  coverage?.look()
  while (!isOver(inputs) && findings.length < FINDINGS) {
    const batch = Array.from({ length: target.batch }, () => nextInput(target, corpus, random))
    for (const input of batch) if (await attempt(input)) corpus.push(input)
    if (coverage !== undefined) await keepNew(batch, coverage.look())
  }
  return { inputs, corpus: corpus.length, outcomes, findings, digest: digest.digest('hex').slice(0, 16) }
}

/** A change, often several, of an input of the corpus; later ones, which reached further, are taken more often. */
function nextInput<Input>(target: Target<Input>, corpus: readonly Input[], random: Random): Input {
  const recent = Math.min(corpus.length, 24)
  let input = random.oneIn(3) ? (corpus[corpus.length - 1 - random.below(recent)] as Input) : random.pick(corpus)
  for (let changes = 1 + random.below(1 << random.below(4)); changes > 0; changes--) {
    input = target.mutate(input, random, random.pick(corpus))
  }
  return input
}
