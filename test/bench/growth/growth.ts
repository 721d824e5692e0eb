/** `npm run bench:growth`: what Synguard costs as policies, peers and connections grow. See docs/performance/growth.md. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, release } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Lab } from '../../../lab/lab.ts'
import { createRun, stopOnSignals } from '../../../lab/run.ts'
import { CHECKOUT } from '../../../lab/sandbox.ts'
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

/** The options; undefined where help is asked for. Throws TypeError for a wrong one. */
function parseOptions(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean' },
      curves: { type: 'string', default: CURVES.join(',') },
      largest: { type: 'string', default: '100000' },
      out: { type: 'string', default: join(CHECKOUT, 'docs', 'performance') },
      draw: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  const curves = values.curves.split(',').map((name) => {
    const known = CURVES.find((curve) => curve === name)
    if (known === undefined) throw new TypeError(`--curves: "${name}" is none of ${CURVES.join(', ')}`)
    return known
  })
  const largest = Number(values.largest)
  if (!Number.isInteger(largest) || largest < 1)
    throw new TypeError(`--largest ${values.largest}: a whole number from 1 on`)
  return { curves, largest, out: values.out, draw: values.draw }
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

/** Measures one curve in a lab of its own, and leaves nothing of it behind, whichever way it ends. */
async function measure(curve: CurveName, { largest, out }: Options): Promise<void> {
  // Containers have a /tmp of their own; what sidecars run from must be visible in them.
  process.env.TMPDIR = '/var/tmp'
  const scratch = createRun()
  chmodSync(scratch.directory, 0o755)
  let lab: Lab | undefined
  let field: Field | undefined
  const stop = async (): Promise<void> => {
    await field?.stop()
    await lab?.stop()
    await scratch.stop()
  }
  stopOnSignals(stop)
  try {
    say(`${curve}: compiling, bundling`)
    field = await createField(scratch.directory, (made) => {
      lab = made
    })
    const sizes = SIZES[curve].filter((size) => size <= largest)
    const machine = { cores: availableParallelism(), linux: release(), node: process.version }
    const points: Points[CurveName][] = []
    mkdirSync(out, { recursive: true })
    await MEASURES[curve](field, sizes, (point) => {
      say(`${curve}: ${JSON.stringify(point, roundAll)}`)
      points.push(point)
      writeFileSync(join(out, `${curve}.json`), `${JSON.stringify({ machine, points }, roundAll, 2)}\n`)
    })
  } finally {
    await stop()
  }
}

async function main(args: readonly string[]): Promise<number> {
  try {
    const options = parseOptions(args)
    if (options === undefined) {
      process.stdout.write(HELP)
      return 0
    }
    for (const curve of options.curves) {
      if (!options.draw) await measure(curve, options)
      draw(curve, options.out)
    }
    return 0
  } catch (error) {
    say(error instanceof Error ? error.message : String(error))
    return error instanceof TypeError ? 2 : 1
  }
}

process.exitCode = await main(process.argv.slice(2))
