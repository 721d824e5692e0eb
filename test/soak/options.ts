import { parseFlags, wholeNumber } from '../bench/tool.ts'

export interface SoakOptions {
  /** At least so many between guarded Pods, and as many between plain ones. */
  readonly connections: number
  /** No new load begins after this many seconds; undefined for no such bound. */
  readonly seconds: number | undefined
  readonly seed: number
  readonly json: boolean
}

export const HELP = `Loads guarded Pods with connections while policies and labels change, identities are renewed and sidecars are
killed, beside the same load between plain Pods. Says what failed without a reason, and whether anything grows.

  npm run soak [-- OPTIONS]

  --connections N   default 1000000
  --seconds N       begin nothing new after N seconds
  --seed N          which paths, sizes and victims are taken; default random, printed
  --json            print one JSON object in place of the tables
  --help            this text

Progress goes to standard error. Ends with 0; 1 where a rule is broken, with the reasons; 2 without root or for a wrong
option. docs/soak.md says what is done and which rules are held.
`

/** The options of a command line; `undefined` where it asks for help. Throws OptionError. */
export function parseOptions(args: readonly string[], randomSeed: number): SoakOptions | undefined {
  const flags = parseFlags(args, {
    json: { type: 'boolean' },
    connections: { type: 'string', default: '1000000' },
    seconds: { type: 'string' },
    seed: { type: 'string', default: String(randomSeed) },
  })
  return (
    flags && {
      connections: wholeNumber(flags, 'connections', 1_000),
      seconds: flags.seconds === undefined ? undefined : wholeNumber(flags, 'seconds', 1),
      seed: wholeNumber(flags, 'seed', 0),
      json: flags.json === true,
    }
  )
}
