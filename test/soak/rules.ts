/** The rules that a soak holds. Pure: what was seen in, the reasons why it is not good out. */
import { median } from '../bench/statistics.ts'
import type { Account } from './account.ts'
import type { Sample } from './samples.ts'
import type { TransferReport } from './transfers.ts'

/** What was seen. */
export interface Observed {
  readonly connections: number
  readonly guarded: Account
  readonly plain: Account
  readonly transfers: TransferReport
  readonly transfersStarted: number
  readonly samples: readonly Sample[]
  /** Counters over all sidecars. */
  readonly counters: ReadonlyMap<string, number>
  readonly renewals: number
  readonly bounds: Bounds
  /** What was told while it ran. */
  readonly problems: readonly string[]
}

/** What follows from how the soak was set up. */
export interface Bounds {
  /** Rows that differ: Pods by their sets of labels, each once more for each port behind a Service. */
  readonly identityRows: number
  /** WITs that can be valid at a time. */
  readonly knownPeers: number
  /** Every identity is renewed at least this often in all. */
  readonly renewals: number
}

/** Before so many connections, or as much of them all, code gets compiled and heaps reach their size. */
const WARM_UP = { connections: 100_000, share: 0.2 } as const
/** Above noise: in 1,000,000 connections, some 300,000 a sidecar, 50 bytes kept of each would show. */
const RSS_GROWTH = { factor: 1.1, megabytes: 5 } as const
/** A listing of descriptors may catch a request of the health server, a file that is just being read, the issuer's. */
const DESCRIPTOR_GROWTH = 8
/** The file is written anew when most of it is old; between that it may grow. */
const STATE_BYTES_OF_A_ROW = 4_096
/**
 * Stalls beside those of plain TCP: one in so many connections, and a few batches that met a control plane without a
 * processor, as where every sidecar of a small machine judges its connections again at once. They are counted first of
 * all: this bound is for gross breakage.
 */
const STALLS = { share: 300, least: 200 } as const
const SHOWN = 10

type Figure = 'rssMegabytes' | 'descriptors'

/**
 * The median of a figure in the first third after the warm-up and in the last. Undefined where that would say nothing:
 * for a sidecar that was killed, whose process warms up each time, and for less than three samples.
 */
export function compareThirds(samples: readonly Sample[], figure: Figure): { first: number; last: number } | undefined {
  if (samples.some(({ restarts }) => restarts > 0)) return undefined
  const warmAt = Math.max(WARM_UP.connections, (samples.at(-1)?.connections ?? 0) * WARM_UP.share)
  const warm = samples.filter(({ connections }) => connections >= warmAt).map((sample) => sample[figure])
  const third = Math.floor(warm.length / 3)
  if (third < 1) return undefined
  return { first: median(warm.slice(0, third)), last: median(warm.slice(-third)) }
}

function bySidecar(samples: readonly Sample[]): Map<string, Sample[]> {
  return Map.groupBy(samples, ({ pod }) => pod)
}

function growth({ samples, bounds }: Observed): string[] {
  const reasons: string[] = []
  for (const [pod, own] of bySidecar(samples)) {
    const rss = compareThirds(own, 'rssMegabytes')
    if (rss !== undefined && rss.last > rss.first * RSS_GROWTH.factor + RSS_GROWTH.megabytes) {
      reasons.push(`${pod}: the sidecar grew from ${rss.first.toFixed(1)} to ${rss.last.toFixed(1)} MB`)
    }
    const descriptors = compareThirds(own, 'descriptors')
    if (descriptors !== undefined && descriptors.last > descriptors.first + DESCRIPTOR_GROWTH) {
      reasons.push(`${pod}: the sidecar's open files grew from ${descriptors.first} to ${descriptors.last}`)
    }
    const most = (pick: (sample: Sample) => number) => Math.max(...own.map(pick))
    const limits = [
      ['rows in the identity table', most(({ identityRows }) => identityRows), bounds.identityRows],
      ['known peers', most(({ knownPeers }) => knownPeers), bounds.knownPeers],
      ['bytes in the identity table', most(({ stateBytes }) => stateBytes), bounds.identityRows * STATE_BYTES_OF_A_ROW],
    ] as const
    for (const [what, seen, limit] of limits) {
      if (seen > limit) reasons.push(`${pod}: ${seen} ${what}, at most ${limit} are of use`)
    }
  }
  return reasons
}

function transferReasons({ transfers, transfersStarted }: Observed): string[] {
  const { whole, broken, sentBytes, echoedBytes, wrongBytes } = transfers
  const reasons: string[] = []
  if (broken > 0 || whole !== transfersStarted) {
    reasons.push(`${transfersStarted - whole} of ${transfersStarted} long-lived transfers did not last`)
  }
  if (sentBytes !== echoedBytes) reasons.push(`${sentBytes - echoedBytes} bytes of long-lived transfers were lost`)
  if (wrongBytes > 0) reasons.push(`${wrongBytes} bytes of long-lived transfers came back altered`)
  if (echoedBytes === 0) reasons.push('the long-lived transfers carried nothing')
  return reasons
}

function connectionReasons({ connections, guarded, plain }: Observed): string[] {
  const reasons: string[] = []
  const { none: unexplained } = guarded.failures
  if (unexplained.length > 0) {
    const shown = unexplained
      .slice(0, SHOWN)
      .map(({ event, client, path, parallel, begunAtMs, microseconds, error }) => {
        const when = new Date(begunAtMs).toISOString().slice(11, 23)
        return `${event} of ${client} to ${path}, parallel ${parallel}, at ${when} after ${Math.round(microseconds / 1000)} ms: ${error}`
      })
    reasons.push(
      `${unexplained.length} connections failed and nothing explains it:`,
      ...shown.map((line) => `  ${line}`),
    )
  }
  const [stalls, plainStalls] = [guarded.stalls.none.length, plain.stalls.none.length]
  if (stalls > plainStalls + Math.max(connections / STALLS.share, STALLS.least)) {
    reasons.push(
      `${stalls} connections took over a second without a kill or a denial; ${plainStalls} of plain TCP's did`,
    )
  }
  return reasons
}

/** Why the soak is not good: one line each, none where every rule holds. */
export function brokenRules(observed: Observed): string[] {
  const { counters, renewals, bounds, problems } = observed
  const reasons = [...problems, ...connectionReasons(observed), ...transferReasons(observed), ...growth(observed)]
  for (const name of ['worker_restarts_total', 'rules_mismatch_total', 'policy_errors_total']) {
    const count = [...counters].reduce((sum, [key, value]) => (key.startsWith(name) ? sum + value : sum), 0)
    if (count > 0) reasons.push(`${name} is ${count}`)
  }
  if (renewals < bounds.renewals) reasons.push(`${renewals} renewals of identities, not the ${bounds.renewals} due`)
  return reasons
}
