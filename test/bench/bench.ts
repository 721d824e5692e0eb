/** `npm run bench`: what Synguard costs, beside plain TCP, NFQUEUE alone and mutual TLS. See docs/performance.md. */
import { createField, type Field } from './field.ts'
import { type FirstContact, measureFirstContact } from './first-contact.ts'
import { measureRound, type Round, warmUp } from './measure.ts'
import { type BenchOptions, HELP, parseOptions } from './options.ts'
import { residentMegabytes } from './process-cost.ts'
import { toJson, toText } from './report.ts'
import { failedConnections, type Results, summarize } from './results.ts'
import { inScratch, runTool } from './tool.ts'

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

process.exitCode = await runTool(say, async () => {
  const options = parseOptions(process.argv.slice(2))
  if (options === undefined) {
    process.stdout.write(HELP)
    return 0
  }
  const results = await inScratch(
    async (folder, keep) => await measure(await createField(options.variants, folder, keep, say), options),
  )
  // Beside the object the table is for whoever watches.
  if (options.json) process.stderr.write(toText(results))
  process.stdout.write(options.json ? `${JSON.stringify(toJson(results))}\n` : toText(results))
  return failedConnections(results) === 0 ? 0 : 1
})
