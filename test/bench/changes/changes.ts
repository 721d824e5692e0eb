/** `npm run bench:changes`: policies and labels that change under load. See docs/performance.md. */
import { spreadOf } from '../statistics.ts'
import { inScratch, parseFlags, runTool, wholeNumber } from '../tool.ts'
import { createField } from './field.ts'
import { type ChangeResults, runChanges, TARGET_MILLISECONDS, type Times } from './run.ts'

const HELP = `Removes and adds policies and changes labels while 1,000 connections stand and 500 a second are opened; needs root.

  npm run bench:changes [-- OPTIONS]

  --policies N   a policy is removed and added N times; default 100
  --labels N     a Pod's labels change N times, meanwhile; default 100
  --json         print one JSON object in place of the table
  --help         this text

Progress goes to standard error. Ends with 1 where a connection that policies allow is lost, or one that they deny is let in
or outlives ten times what a change may take.
`

const say = (line: string): void => void process.stderr.write(`changes: ${line}\n`)

function rowsOf(what: 'policies' | 'labels', times: Times): string[] {
  const target = TARGET_MILLISECONDS[what]
  const names = {
    ended: 'the last denied connection had ended, both ends',
    refused: 'a new connection was refused',
    allowed: 'a new connection was allowed again',
  } as const
  return (['ended', 'refused', 'allowed'] as const).map((name) => {
    const { median, minimum, maximum } = spreadOf(times[name])
    const over = times[name].filter((time) => time > target).length
    const figures = [median, minimum, maximum].map((time) => time.toFixed(0).padStart(6)).join(' ')
    return `  ${names[name].padEnd(50)} ${figures}   ${over} of ${times[name].length} over ${target}`
  })
}

function toText({ policies, labels, held, paced, streams, reasons }: ChangeResults): string {
  return [
    `${'milliseconds from the write until'.padEnd(52)} median  least   most`,
    `a policy removed, or added again`,
    ...rowsOf('policies', policies),
    `a Pod's labels changed, or changed back`,
    ...rowsOf('labels', labels),
    '',
    `connections that stay allowed: ${held.open} stood throughout, ${held.ended} ended`,
    `${paced.opened} new ones at ${paced.perSecond} a second: ${paced.succeeded} succeeded; p50 ${paced.p50} ms, p99 ${paced.p99} ms, slowest ${paced.slowest} ms, ${paced.stalls} over 1 s`,
    `${streams.open} streams: ${streams.exchanged} numbers came back, ${streams.wrong} wrong`,
    ...reasons.map((reason) => `BROKEN: ${reason}`),
    '',
  ].join('\n')
}

process.exitCode = await runTool(say, async () => {
  const flags = parseFlags(process.argv.slice(2), {
    json: { type: 'boolean' },
    policies: { type: 'string', default: '100' },
    labels: { type: 'string', default: '100' },
  })
  if (flags === undefined) {
    process.stdout.write(HELP)
    return 0
  }
  const options = { policies: wholeNumber(flags, 'policies', 1), labels: wholeNumber(flags, 'labels', 2), say }
  const results = await inScratch(async (folder, keep) => {
    const field = await createField(folder, keep)
    try {
      return await runChanges(field, options)
    } finally {
      await field.stop()
    }
  })
  process.stdout.write(flags.json === true ? `${JSON.stringify(results)}\n` : toText(results))
  return results.reasons.length === 0 ? 0 : 1
})
