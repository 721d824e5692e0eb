/** `npm run soak`: many connections with changes, renewals and kills among them. See docs/soak.md. */
import { randomInt } from 'node:crypto'
import { inScratch, runTool } from '../bench/tool.ts'
import { createField } from './field.ts'
import { HELP, parseOptions } from './options.ts'
import { toJson, toText } from './report.ts'
import { runSoak } from './run.ts'

const say = (line: string): void => void process.stderr.write(`soak: ${line}\n`)

process.exitCode = await runTool(say, async () => {
  const options = parseOptions(process.argv.slice(2), randomInt(2 ** 31))
  if (options === undefined) {
    process.stdout.write(HELP)
    return 0
  }
  const results = await inScratch(async (folder, keep) => {
    const field = await createField(folder, keep, say)
    say(`${options.connections} connections, seed ${options.seed}`)
    return await runSoak(field, options, say)
  })
  process.stdout.write(options.json ? `${JSON.stringify(toJson(results))}\n` : toText(results))
  for (const reason of results.reasons) say(reason)
  return results.reasons.length === 0 ? 0 : 1
})
