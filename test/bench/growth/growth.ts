/** `npm run bench:growth`: what Synguard costs as policies, peers and connections grow. See docs/performance/growth.md. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, release } from 'node:os'
import { join } from 'node:path'
import { CHECKOUT } from '../../../lab/sandbox.ts'
import { inScratch, namesAmong, parseFlags, runTool, wholeNumber } from '../tool.ts'
import { createField, type Field } from './field.ts'
import { measurePeers } from './peers-curve.ts'
import { drawPlot } from './plot.ts'
import { CURVES, type CurveName, type Points, plotsOf } from './plots.ts'
import { measurePolicies } from './policies-curve.ts'
import { measureRevocation } from './revocation-curve.ts'

const HELP = `Measures how Synguard's cost grows, and draws it; needs root.

  npm run bench:growth [-- OPTIONS]

  --curves LIST   of ${CURVES.join(', ')}, comma separated; default all. Each takes one to five minutes.
  --largest N     leaves out the sizes above N
  --out FOLDER    where NAME.json and the plots go; default docs/performance
  --draw          measures nothing: draws the plots anew from FOLDER's NAME.json
  --help          this text
`

const SIZES: Readonly<Record<CurveName, readonly number[]>> = {
  policies: [1, 10, 100, 1_000, 10_000],
  peers: [2, 10, 100, 1_000, 10_000],
  revocation: [100, 1_000, 10_000, 100_000],
}

const say = (line: string): void => void process.stderr.write(`growth: ${line}\n`)

type Measure<Name extends CurveName> = (
  field: Field,
  sizes: readonly number[],
  onPoint: (point: Points[Name]) => void,
) => Promise<void>

const MEASURES: { readonly [Name in CurveName]: Measure<Name> } = {
  policies: measurePolicies,
  peers: measurePeers,
  revocation: measureRevocation,
}

interface Options {
  readonly curves: readonly CurveName[]
  readonly largest: number
  readonly out: string
  readonly draw: boolean
}

/** The options; undefined where help is asked for. Throws OptionError. */
function parseOptions(args: readonly string[]): Options | undefined {
  const flags = parseFlags(args, {
    curves: { type: 'string', default: CURVES.join(',') },
    largest: { type: 'string', default: '100000' },
    out: { type: 'string', default: join(CHECKOUT, 'docs', 'performance') },
    draw: { type: 'boolean', default: false },
  })
  return (
    flags && {
      curves: namesAmong(flags, 'curves', CURVES),
      largest: wholeNumber(flags, 'largest', 1),
      out: String(flags.out),
      draw: flags.draw === true,
    }
  )
}

/** Four digits are more than such measurements hold. */
function roundAll(_: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value
}

function draw(curve: CurveName, out: string): void {
  const { points } = JSON.parse(readFileSync(join(out, `${curve}.json`), 'utf8'))
  for (const [name, plot] of Object.entries(plotsOf(curve, points))) {
    writeFileSync(join(out, `${name}.svg`), drawPlot(plot))
  }
}

/** Measures one curve in a lab of its own. */
async function measure(curve: CurveName, { largest, out }: Options): Promise<void> {
  await inScratch(async (folder, keep) => {
    say(`${curve}: compiling, bundling`)
    const field = await createField(folder, keep)
    const sizes = SIZES[curve].filter((size) => size <= largest)
    const machine = { cores: availableParallelism(), linux: release(), node: process.version }
    const points: Points[CurveName][] = []
    mkdirSync(out, { recursive: true })
    try {
      await MEASURES[curve](field, sizes, (point) => {
        say(`${curve}: ${JSON.stringify(point, roundAll)}`)
        points.push(point)
        writeFileSync(join(out, `${curve}.json`), `${JSON.stringify({ machine, points }, roundAll, 2)}\n`)
      })
    } finally {
      await field.stop()
    }
  })
}

process.exitCode = await runTool(say, async () => {
  const options = parseOptions(process.argv.slice(2))
  if (options === undefined) {
    process.stdout.write(HELP)
    return 0
  }
  for (const curve of options.curves) {
    if (!options.draw) await measure(curve, options)
    draw(curve, options.out)
  }
  return 0
})
