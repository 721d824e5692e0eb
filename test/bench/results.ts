/** From samples to figures. Every ratio is Synguard's value over the other's, in the same round. */
import type { FirstContact } from './first-contact.ts'
import type { Parallel, Round } from './measure.ts'
import type { VariantName } from './options.ts'
import { ratioSpread, type Spread, spreadOf } from './statistics.ts'

/** One variant's figures at one degree of parallelism: medians of the rounds. */
export interface LoadSummary {
  readonly echoP50Microseconds: Spread
  readonly echoP99Microseconds: Spread
  readonly connectionsPerSecond: Spread
  /** Packets queued at both ends, a connection. */
  readonly queuedPerConnection: number
  /** Processor time of each sidecar, a connection. */
  readonly processorMicroseconds: { readonly client: number; readonly server: number }
  /** Connections that took longer than a second, and those that failed, in all rounds. */
  readonly stalls: number
  readonly failed: number
}

export interface VariantSummary {
  readonly name: VariantName
  readonly parallel1: LoadSummary
  readonly parallel64: LoadSummary
  readonly bulkGigabits: Spread
  /** Of each sidecar after the load, in units of 1,000,000 bytes. */
  readonly rssMegabytes?: { readonly client: number; readonly server: number }
}

const RATIOS = {
  latencyRatio: ['accept-only', 1, 'echoP50'],
  p99Ratio: ['accept-only', 1, 'echoP99'],
  rateRatio: ['accept-only', 64, 'perSecond'],
  p99RatioParallel64: ['accept-only', 64, 'echoP99'],
  plainLatencyRatio: ['plain', 1, 'echoP50'],
  plainRateRatio: ['plain', 64, 'perSecond'],
  mtlsLatencyRatio: ['mtls', 1, 'echoP50'],
  mtlsRateRatio: ['mtls', 64, 'perSecond'],
} as const satisfies Record<string, readonly [VariantName, Parallel, string]>

export type RatioName = keyof typeof RATIOS | 'bulkRatio' | 'trackedBulkRatio'

export interface Results {
  readonly rounds: number
  readonly variants: readonly VariantSummary[]
  /** Those whose variants were measured. */
  readonly ratios: Readonly<Partial<Record<RatioName, Spread>>>
  readonly firstContact?: { readonly [kind in keyof FirstContact]: Spread } & { readonly count: number }
}

function summarizeLoad(rounds: readonly Round[], name: VariantName, parallel: Parallel): LoadSummary {
  const samples = rounds.flatMap((round) => round.get(name)?.loads[parallel] ?? [])
  const sum = (of: (sample: (typeof samples)[number]) => number) =>
    samples.reduce((total, sample) => total + of(sample), 0)
  const connections = sum((sample) => sample.connections)
  return {
    echoP50Microseconds: spreadOf(samples.map((sample) => sample.echoP50)),
    echoP99Microseconds: spreadOf(samples.map((sample) => sample.echoP99)),
    connectionsPerSecond: spreadOf(samples.map((sample) => sample.perSecond)),
    queuedPerConnection: sum((sample) => sample.queued) / connections,
    processorMicroseconds: {
      client: sum((sample) => sample.processor.client) / connections,
      server: sum((sample) => sample.processor.server) / connections,
    },
    stalls: sum((sample) => sample.stalls),
    failed: sum((sample) => sample.connections - sample.succeeded),
  }
}

function ratiosOf(rounds: readonly Round[]): Results['ratios'] {
  const names = [...(rounds[0]?.keys() ?? [])]
  if (!names.includes('synguard')) return {}
  const load = (name: VariantName, parallel: Parallel, field: 'echoP50' | 'echoP99' | 'perSecond') =>
    rounds.map((round) => round.get(name)?.loads[parallel][field] ?? Number.NaN)
  const bulk = (name: VariantName) => rounds.map((round) => round.get(name)?.bulkGigabits ?? Number.NaN)
  const ratios: Partial<Record<RatioName, Spread>> = {}
  for (const [ratio, [other, parallel, field]] of Object.entries(RATIOS)) {
    if (!names.includes(other)) continue
    ratios[ratio as RatioName] = ratioSpread(load('synguard', parallel, field), load(other, parallel, field))
  }
  if (names.includes('plain')) ratios.bulkRatio = ratioSpread(bulk('synguard'), bulk('plain'))
  if (names.includes('tracked')) ratios.trackedBulkRatio = ratioSpread(bulk('synguard'), bulk('tracked'))
  return ratios
}

/** `rss`: of each sidecar after the last round, by variant. */
export function summarize(
  rounds: readonly Round[],
  firstContacts: readonly FirstContact[],
  rss: ReadonlyMap<VariantName, { readonly client: number; readonly server: number }>,
): Results {
  const names = [...(rounds[0]?.keys() ?? [])]
  return {
    rounds: rounds.length,
    variants: names.map((name) => {
      const rssMegabytes = rss.get(name)
      return {
        name,
        parallel1: summarizeLoad(rounds, name, 1),
        parallel64: summarizeLoad(rounds, name, 64),
        bulkGigabits: spreadOf(rounds.map((round) => round.get(name)?.bulkGigabits ?? Number.NaN)),
        ...(rssMegabytes && { rssMegabytes }),
      }
    }),
    ratios: ratiosOf(rounds),
    ...(firstContacts.length > 0 && {
      firstContact: {
        fresh: spreadOf(firstContacts.map(({ fresh }) => fresh)),
        first: spreadOf(firstContacts.map(({ first }) => first)),
        next: spreadOf(firstContacts.map(({ next }) => next)),
        count: firstContacts.length,
      },
    }),
  }
}

/** Connections that failed, of all variants and rounds. */
export function failedConnections({ variants }: Results): number {
  return variants.reduce((sum, { parallel1, parallel64 }) => sum + parallel1.failed + parallel64.failed, 0)
}

/** Queued packets a connection, both degrees of parallelism taken together by their mean. */
export function queuedPerConnection({ variants }: Results, name: VariantName): number | undefined {
  const found = variants.find((variant) => variant.name === name)
  return found && (found.parallel1.queuedPerConnection + found.parallel64.queuedPerConnection) / 2
}

/** The larger of the two sidecars' resident memory. */
export function rssMegabytes({ variants }: Results, name: VariantName): number | undefined {
  const found = variants.find((variant) => variant.name === name)?.rssMegabytes
  return found && Math.max(found.client, found.server)
}
