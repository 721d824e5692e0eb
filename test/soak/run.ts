/** The soak itself: parts of load with disturbances among them, a sample after each. */
import { SKEW_SECONDS } from '../../certs/limits.ts'
import { createRandom } from '../fuzz/random.ts'
import { type Account, accountFor } from './account.ts'
import { createDisturbances, type Disturbances } from './disturbances.ts'
import { type Field, VICTIMS, WIT_LIFETIME_SECONDS } from './field.ts'
import { createLoadResults, type LoadResults, runLoad } from './load-actors.ts'
import type { SoakOptions } from './options.ts'
import { type Bounds, brokenRules } from './rules.ts'
import { createTotals, type Metrics, type Sample, sumOf, type Totals, takeSample } from './samples.ts'
import type { TransferReport } from './transfers.ts'

export interface SoakResults {
  readonly seed: number
  readonly seconds: number
  readonly load: LoadResults
  readonly guarded: Account
  readonly plain: Account
  readonly transfers: TransferReport
  readonly disturbances: Disturbances
  readonly renewals: number
  readonly samples: readonly Sample[]
  readonly counters: ReadonlyMap<string, number>
  /** Why a rule is broken; empty where all hold. */
  readonly reasons: readonly string[]
}

/** A short soak has fewer, enough for each disturbance: each takes some seconds, however few its connections are. */
const partsOf = (connections: number): number => (connections < 100_000 ? 4 : 10)
/** One disturbance for so many connections of a part, at least one. */
const CONNECTIONS_OF_A_DISTURBANCE = 25_000
/** A worker tells its counters once a second. */
const COUNTERS_MILLISECONDS = 1_500
/** Sets of labels that a Pod may have: `labelled` has two, `steady` one for each note and one without. */
const LABEL_SETS = 6 + 1 + 3
/** A row without a port, and one for each port of the Service. */
const ROWS_OF_A_SET = 3
/** Renewals spread by a tenth around half of the lifetime; one that is asked for comes out of turn. */
const EARLIEST_RENEWAL = 0.4

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

async function sampleAll(field: Field, totals: Totals, part: number, connections: number): Promise<Sample[]> {
  await pause(COUNTERS_MILLISECONDS)
  return await Promise.all(
    [...field.guarded.values()].map(async (pod) => await takeSample(pod, part, connections, await totals.read(pod))),
  )
}

function boundsOf(field: Field, seconds: number, disturbances: Disturbances): Bounds {
  const pods = field.guarded.size
  const valid = Math.ceil((WIT_LIFETIME_SECONDS + SKEW_SECONDS) / (WIT_LIFETIME_SECONDS * EARLIEST_RENEWAL))
  const outOfTurn = 2 * disturbances.denials.length + disturbances.notes + disturbances.kills.length
  return {
    identityRows: LABEL_SETS * ROWS_OF_A_SET,
    knownPeers: pods * valid + outOfTurn,
    renewals: pods * Math.floor(seconds / WIT_LIFETIME_SECONDS),
  }
}

/** Runs the soak in a field that stands; `say` hears of its progress. */
export async function runSoak(field: Field, options: SoakOptions, say: (line: string) => void): Promise<SoakResults> {
  const random = createRandom(options.seed)
  const totals = createTotals()
  const disturbances = createDisturbances(field, totals, random)
  const load = createLoadResults()
  const samples: Sample[] = []
  const begun = Date.now()
  const isLate = () => options.seconds !== undefined && Date.now() - begun > options.seconds * 1000
  const parts = partsOf(options.connections)
  const perPart = Math.ceil(options.connections / parts)
  await field.startTransfers()
  const transfersStarted = (await field.transfers('report')).whole

  for (let part = 1; part <= parts && !isLate(); part++) {
    let isOver = false
    const disturb = async () => {
      try {
        const count = Math.max(Math.round(perPart / CONNECTIONS_OF_A_DISTURBANCE), 1)
        for (let done = 0; done < count && !isLate(); done++) await disturbances.next()
      } finally {
        isOver = true
      }
    }
    await Promise.all([disturb(), runLoad(field, disturbances, load, random, perPart, () => isOver, isLate)])
    const taken = await sampleAll(field, totals, part, load.guarded.attempted)
    samples.push(...taken)
    say(progressLine(`part ${part} of ${parts}`, load, (Date.now() - begun) / 1000, taken))
  }

  const seconds = (Date.now() - begun) / 1000
  const transfers = await field.transfers('finish')
  const counters = totals.sums()
  const starts = field.guarded.size + disturbances.kills.length
  const renewals = sumOf(counters as Metrics, 'identity_renewals_total', 'result="ok"') - starts
  const guarded = accountFor(load.guarded.incidents, disturbances.kills, disturbances.denials)
  const plain = accountFor(load.plain.incidents, [], [])
  const observed = {
    ...{
      connections: load.guarded.attempted,
      guarded,
      plain,
      transfers,
      transfersStarted,
      samples,
      counters,
      renewals,
    },
    bounds: boundsOf(field, seconds, disturbances),
    problems: [...disturbances.problems, ...load.openedThoughDenied],
  }
  const { seed } = options
  const reasons = brokenRules(observed)
  return { seed, seconds, load, guarded, plain, transfers, disturbances, renewals, samples, counters, reasons }
}

function progressLine(
  part: string,
  { guarded, plain }: LoadResults,
  seconds: number,
  taken: readonly Sample[],
): string {
  const words = ({ attempted, incidents }: LoadResults['plain']) => {
    const stalls = incidents.filter(({ event }) => event === 'stall').length
    return `${attempted} (${incidents.length - stalls} refused or failed, ${stalls} over 1 s)`
  }
  const rss = taken
    .filter(({ pod }) => !VICTIMS.some((name) => name === pod))
    .map(({ pod, rssMegabytes }) => `${pod} ${rssMegabytes.toFixed(0)}`)
  return `${part}, ${seconds.toFixed(0)} s: ${words(guarded)}; plain ${words(plain)}; RSS MB ${rss.join(', ')}`
}
