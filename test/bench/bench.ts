/** `npm run bench`: what Synguard costs, beside plain TCP, NFQUEUE alone and mutual TLS. See docs/performance.md. */
import { chmodSync } from 'node:fs'
import type { Lab } from '../../lab/lab.ts'
import { createRun, stopOnSignals } from '../../lab/run.ts'
import { createField, type Field } from './field.ts'
import { type FirstContact, measureFirstContact } from './first-contact.ts'
import { measureRound, type Round, warmUp } from './measure.ts'
import { type BenchOptions, HELP, OptionError, parseOptions } from './options.ts'
import { residentMegabytes } from './process-cost.ts'
import { toJson, toText } from './report.ts'
import { failedConnections, type Results, summarize } from './results.ts'

const say = (line: string): void => void process.stderr.write(`bench: ${line}\n`)

async function measureFirstContacts(field: Field, count: number): Promise<FirstContact[]> {
  const variant = field.variants.find(({ name }) => name === 'synguard')
  const contacts: FirstContact[] = []
  if (variant === undefined || field.trainer === undefined || count === 0) return contacts
  say(`first contacts of ${count} new Pods`)
  for (let index = 0; index < count; index++)
    contacts.push(await measureFirstContact(field, variant, field.trainer, index))
  return contacts
}

async function measure(field: Field, options: BenchOptions): Promise<Results> {
  say('warming up')
  await warmUp(field, options)
  const rounds: Round[] = []
  for (let round = 0; round < options.rounds; round++) {
    say(`round ${round + 1} of ${options.rounds}`)
    rounds.push(await measureRound(field, options, round))
  }
  const rss = new Map(
    field.variants.flatMap(({ name, sidecars }) =>
      sidecars === undefined
        ? []
        : [[name, { client: residentMegabytes(sidecars.client), server: residentMegabytes(sidecars.server) }] as const],
    ),
  )
  return summarize(rounds, await measureFirstContacts(field, options.firstContacts), rss)
}

/** Makes the field, measures, and leaves nothing behind, whichever way it ends. */
async function run(options: BenchOptions): Promise<Results> {
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
    return await measure(await createField(options.variants, scratch.directory, keep, say), options)
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
    if (process.getuid?.() !== 0) {
      throw new OptionError('needs root: it makes network namespaces and rules; run it again with sudo')
    }
    const results = await run(options)
    // Beside the object the table is for whoever watches.
    if (options.json) process.stderr.write(toText(results))
    process.stdout.write(options.json ? `${JSON.stringify(toJson(results))}\n` : toText(results))
    return failedConnections(results) === 0 ? 0 : 1
  } catch (error) {
    say(error instanceof Error ? error.message : String(error))
    return error instanceof OptionError ? 2 : 1
  }
}

process.exitCode = await main(process.argv.slice(2))
