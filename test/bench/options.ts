import { namesAmong, parseFlags, wholeNumber } from './tool.ts'

/** In the order in which tables show them. */
export const VARIANTS = ['plain', 'tracked', 'accept-only', 'synguard', 'mtls'] as const
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
  tracked      the same, with connection tracking in their network namespaces: what any stateful firewall there costs
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

/** The options of a command line; `undefined` where it asks for help. Throws OptionError. */
export function parseOptions(args: readonly string[]): BenchOptions | undefined {
  const flags = parseFlags(args, {
    json: { type: 'boolean' },
    rounds: { type: 'string', default: '7' },
    connections: { type: 'string', default: '8000' },
    'first-contacts': { type: 'string', default: '20' },
    variants: { type: 'string', default: VARIANTS.join(',') },
  })
  return (
    flags && {
      variants: namesAmong(flags, 'variants', VARIANTS),
      rounds: wholeNumber(flags, 'rounds', 1),
      connections: wholeNumber(flags, 'connections', 64),
      firstContacts: wholeNumber(flags, 'first-contacts', 0),
      json: flags.json === true,
    }
  )
}
