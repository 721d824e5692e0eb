/** `npm run fuzz`: fuzzes the decoders as long as one likes, guided by coverage. Exit code 1 where a law was broken. */
import { parseArgs } from 'node:util'
import { openCoverage } from './coverage.ts'
import { type FuzzReport, fuzz } from './engine.ts'
import { writeFinding } from './regressions.ts'

const HELP = `npm run fuzz -- [--target NAME]... [--seconds N] [--inputs N] [--seed N] [--blind]

  --target NAME   only this target; may be given several times (default: all, one after the other)
  --seconds N     time for each target (default 60)
  --inputs N      stop a target after about N inputs, whatever time is left
  --seed N        the same seed gives the same inputs (default: from the clock, printed)
  --blind         without coverage as a guide, to see what it is worth

A finding is made smaller and written to test/fuzz/found/. To keep it, move it to
test/fuzz/regressions/<target>/<name>.json: npm test then tries it each time.

Targets:
`

const { values } = parseArgs({
  options: {
    target: { type: 'string', multiple: true },
    seconds: { type: 'string', default: '60' },
    inputs: { type: 'string' },
    seed: { type: 'string' },
    blind: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

function positive(name: string, text: string): number {
  const value = Number(text)
  if (!Number.isFinite(value) || value <= 0) throw new Error(`--${name} must be a number above zero, not ${text}`)
  return value
}

const seconds = positive('seconds', values.seconds)
const limit = values.inputs === undefined ? Number.POSITIVE_INFINITY : positive('inputs', values.inputs)
const seed = values.seed === undefined ? Date.now() % 2 ** 32 : positive('seed', values.seed)

// Before the product is loaded: V8 counts blocks only in functions that it compiles from here on.
let sources: readonly string[] = []
const coverage = openCoverage(() => sources)
const { TARGETS } = await import('./targets.ts')

const chosen = TARGETS.filter(({ name }) => values.target === undefined || values.target.includes(name))
const unknown = (values.target ?? []).filter((name) => !TARGETS.some((target) => target.name === name))
if (values.help || unknown.length > 0) {
  const lines = TARGETS.map(({ name, about }) => `  ${name.padEnd(16)} ${about}\n`)
  process.stdout.write(`${unknown.map((name) => `no target ${name}\n`).join('')}${HELP}${lines.join('')}`)
  process.exit(unknown.length > 0 ? 2 : 0)
}

function print(name: string, report: FuzzReport, elapsedSeconds: number): void {
  const { covered, total } = coverage.summary()
  const percent = ((100 * covered) / Math.max(total, 1)).toFixed(1)
  const rate = Math.round(report.inputs / elapsedSeconds)
  process.stdout.write(
    `${name}: ${report.inputs} inputs, ${rate}/s, corpus ${report.corpus}, ${Object.keys(report.outcomes).length} outcomes, ` +
      `${percent}% of its functions' code (${covered} characters), inputs' digest ${report.digest}, ` +
      `findings ${report.findings.length}\n`,
  )
  for (const [index, finding] of report.findings.entries()) {
    const path = writeFinding(finding, index + 1)
    process.stdout.write(`  ${finding.problem}\n  ${path}\n${finding.stack.replaceAll(/^/gm, '    ')}\n`)
  }
}

process.stdout.write(`seed ${seed}, ${seconds} s for each of ${chosen.length} targets\n`)
let findings = 0
for (const target of chosen) {
  sources = target.sources
  coverage.reset()
  const started = performance.now()
  const isOver = (inputs: number) => inputs >= limit || performance.now() - started > seconds * 1_000
  const guide = values.blind ? {} : { coverage }
  const report = await target.use((own) => fuzz(own, { seed, isOver, ...guide }))
  coverage.look()
  print(target.name, report, (performance.now() - started) / 1_000)
  findings += report.findings.length
}
coverage.close()
process.exitCode = findings > 0 ? 1 : 0
