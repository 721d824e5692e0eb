import { parseArgs } from 'node:util'

/** In the order in which tables show them. */
export const VARIANTS = ['plain', 'accept-only', 'synguard', 'mtls'] as const
export type VariantName = (typeof VARIANTS)[number]

export interface BenchOptions {
  readonly variants: readonly VariantName[]
  readonly rounds: number
  /** At parallel 64, for each variant and round; a quarter of it at parallel 1. The mutual-TLS pair gets an eighth. */
  readonly connections: number
  readonly firstContacts: number
  readonly json: boolean
}

export const HELP = `Measures connection set-up and bulk transfer, rounds interleaved in one run, of:
  plain        two Pods that nobody guards
  accept-only  Synguard's rules with a program in C that accepts every packet: what NFQUEUE itself costs
  synguard     two guarded Pods, run from the bundle
  mtls         a pair of mutual-TLS sidecars (HAProxy, P-256, one thread each)

  npm run bench [-- OPTIONS]

  --json                print one JSON object; the table goes to standard error
  --rounds N            default 7
  --connections N       for each variant and round at parallel 64, default 8000; a quarter of it at parallel 1
  --first-contacts N    Pods that the server never met, default 20
  --variants LIST       of the names above, comma separated; default all
  --help                this text

Progress goes to standard error. Ends with 0; 1 where a connection failed; 2 without root or for a wrong option.
`

/** A wrong option: the message names it. */
export class OptionError extends Error {}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < least)
    throw new OptionError(`--${name} ${text}: a whole number from ${least} on`)
  return value
}

function parseVariants(text: string): readonly VariantName[] {
  const asked = text.split(',')
  const unknown = asked.find((name) => !VARIANTS.some((known) => known === name))
  if (unknown !== undefined) throw new OptionError(`--variants: "${unknown}" is none of ${VARIANTS.join(', ')}`)
  return VARIANTS.filter((name) => asked.includes(name))
}

/** The options of a command line; `undefined` where it asks for help. Throws OptionError. */
export function parseOptions(args: readonly string[]): BenchOptions | undefined {
  let values: Readonly<Record<string, string | boolean | undefined>>
  try {
    values = parseArgs({
      args: [...args],
      options: {
        help: { type: 'boolean' },
        json: { type: 'boolean' },
        rounds: { type: 'string', default: '7' },
        connections: { type: 'string', default: '8000' },
        'first-contacts': { type: 'string', default: '20' },
        variants: { type: 'string', default: VARIANTS.join(',') },
      },
    }).values
  } catch (error) {
    throw new OptionError(error instanceof Error ? error.message : String(error))
  }
  if (values.help === true) return undefined
  return {
    variants: parseVariants(String(values.variants)),
    rounds: wholeNumber('rounds', String(values.rounds), 1),
    connections: wholeNumber('connections', String(values.connections), 64),
    firstContacts: wholeNumber('first-contacts', String(values['first-contacts']), 0),
    json: values.json === true,
  }
}
