/** `npm run soak`: many connections with changes, renewals and kills among them. See docs/soak.md. */
import { randomInt } from 'node:crypto'
import { chmodSync } from 'node:fs'
import type { Lab } from '../../lab/lab.ts'
import { createRun, stopOnSignals } from '../../lab/run.ts'
import { createField } from './field.ts'
import { HELP, OptionError, parseOptions, type SoakOptions } from './options.ts'
import { toJson, toText } from './report.ts'
import { runSoak, type SoakResults } from './run.ts'

const say = (line: string): void => void process.stderr.write(`soak: ${line}\n`)

/** Makes the field, runs, and leaves nothing behind, whichever way it ends. */
async function run(options: SoakOptions): Promise<SoakResults> {
  // Containers have a /tmp of their own; what sidecars run from must be visible in them.
  process.env.TMPDIR = '/var/tmp'
  const scratch = createRun()
  chmodSync(scratch.directory, 0o755)
  let lab: Lab | undefined
  const stop = async (): Promise<void> => {
    await lab?.stop()
    await scratch.stop()
  }
  stopOnSignals(stop)
  try {
    const keep = (made: Lab): void => {
      lab = made
    }
    const field = await createField(scratch.directory, keep, say)
    say(`${options.connections} connections, seed ${options.seed}`)
    return await runSoak(field, options, say)
  } finally {
    await stop()
  }
}

async function main(args: readonly string[]): Promise<number> {
  try {
    const options = parseOptions(args, randomInt(2 ** 31))
    if (options === undefined) {
      process.stdout.write(HELP)
      return 0
    }
    if (process.getuid?.() !== 0) {
      throw new OptionError('needs root: it makes network namespaces and rules; run it again with sudo')
    }
    const results = await run(options)
    process.stdout.write(options.json ? `${JSON.stringify(toJson(results))}\n` : toText(results))
    for (const reason of results.reasons) say(reason)
    return results.reasons.length === 0 ? 0 : 1
  } catch (error) {
    say(error instanceof Error ? error.message : String(error))
    return error instanceof OptionError ? 2 : 1
  }
}

process.exitCode = await main(process.argv.slice(2))
