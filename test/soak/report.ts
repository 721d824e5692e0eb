/** Results as tables for people and as one object for programs. */

import { compareThirds } from './rules.ts'
import type { SoakResults } from './run.ts'
import { sumOf } from './samples.ts'

const COUNTERS = [
  'connections_released_total',
  'connections_refused_total',
  'packets_dropped_total',
  'syn_ack_repeats_total',
  'raw_send_failures_total',
  'verdict_failures_total',
  'queue_overflow_total',
  'wit_verifications_total',
  'revoked_flows_total',
  'identity_renewals_total',
  'worker_restarts_total',
  'rules_mismatch_total',
]

function figuresOf(results: SoakResults) {
  const { load, guarded, plain, disturbances, transfers } = results
  const changes = (how: string) => 2 * disturbances.denials.filter((denial) => denial.how === how).length
  return {
    seed: results.seed,
    seconds: Math.round(results.seconds),
    connections: load.guarded.attempted,
    succeeded: load.guarded.succeeded,
    byParallel: load.guarded.byParallel,
    plainConnections: load.plain.attempted,
    failures: {
      besideKill: guarded.failures.kill.length,
      refusedWhileDenied: guarded.failures.denial.length,
      unexplained: guarded.failures.none.length,
      plain: plain.failures.none.length,
    },
    stalls: {
      besideKill: guarded.stalls.kill.length,
      whileDenied: guarded.stalls.denial.length,
      unexplained: guarded.stalls.none.length,
      plain: plain.stalls.none.length,
    },
    policyChanges: changes('ingress') + changes('egress'),
    labelChanges: changes('labels') + disturbances.notes,
    kills: disturbances.kills.length,
    renewals: results.renewals,
    transfers,
  }
}

function memoryOf({ samples }: SoakResults) {
  return [...Map.groupBy(samples, ({ pod }) => pod)].map(([pod, own]) => ({
    pod,
    restarts: own.at(-1)?.restarts ?? 0,
    rssMegabytes: own.map(({ rssMegabytes }) => Number(rssMegabytes.toFixed(1))),
    thirds: compareThirds(own, 'rssMegabytes') ?? null,
    descriptors: own.map(({ descriptors }) => descriptors),
    identityRows: own.map(({ identityRows }) => identityRows),
    knownPeers: own.map(({ knownPeers }) => knownPeers),
    stateBytes: own.map(({ stateBytes }) => stateBytes),
    conntrackEntries: own.map(({ conntrackEntries }) => conntrackEntries),
  }))
}

export function toJson(results: SoakResults): object {
  const { guarded, plain, counters, disturbances } = results
  return {
    ...figuresOf(results),
    sidecars: memoryOf(results),
    counters: Object.fromEntries([...counters].filter(([, value]) => value > 0)),
    incidents: {
      failuresBesideKill: guarded.failures.kill,
      failures: guarded.failures.none,
      stalls: guarded.stalls.none,
      plainFailures: plain.failures.none,
      plainStalls: plain.stalls.none,
    },
    killed: disturbances.kills,
    denied: disturbances.denials,
    reasons: results.reasons,
  }
}

/** Columns by two spaces; the first to the left, the others to the right. */
function formatTable(rows: readonly (readonly (string | number)[])[]): string {
  const cells = rows.map((row) => row.map(String))
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)))
  const line = (row: readonly string[]) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
  return cells.map((row) => line(row).join('  ').trimEnd()).join('\n')
}

function sidecarRows(results: SoakResults): (string | number)[][] {
  return memoryOf(results).map((sidecar) => {
    const { pod, restarts, rssMegabytes, descriptors, identityRows, knownPeers, stateBytes, conntrackEntries } = sidecar
    const ends = (values: readonly number[]) => `${values[0]} ${values.at(-1)}`
    const most = (values: readonly number[]) => Math.max(...values)
    return [
      ...[pod, restarts, rssMegabytes.map((value) => value.toFixed(0)).join(' '), ends(descriptors)],
      ...[most(identityRows), most(knownPeers), ends(stateBytes), most(conntrackEntries)],
    ]
  })
}

/** Milliseconds; under load, with every other sidecar of the machine at the same work. */
function meanSwap({ counters }: SoakResults): string {
  const [sum, count] = [counters.get('policy_swap_seconds_sum') ?? 0, counters.get('policy_swap_seconds_count') ?? 0]
  return count === 0 ? '-' : ((sum / count) * 1000).toFixed(0)
}

export function toText(results: SoakResults): string {
  const figures = figuresOf(results)
  const { failures, stalls, transfers } = figures
  const megabytes = (transfers.echoedBytes / 1e6).toFixed(0)
  const counters = COUNTERS.map((name) => [name, sumOf(results.counters, name)])
  return [
    `${figures.connections} connections between guarded Pods in ${figures.seconds} s (seed ${figures.seed}): ` +
      Object.entries(figures.byParallel)
        .map(([parallel, count]) => `${count} at parallel ${parallel}`)
        .join(', '),
    `${figures.policyChanges} policy changes, ${figures.labelChanges} label changes, ${figures.renewals} identity renewals, ${figures.kills} sidecars killed`,
    '',
    formatTable([
      ['', 'connections', 'beside a kill', 'while denied', 'unexplained', 'plain TCP'],
      [
        'refused or failed',
        figures.connections,
        failures.besideKill,
        failures.refusedWhileDenied,
        failures.unexplained,
        failures.plain,
      ],
      ['took over 1 s', figures.connections, stalls.besideKill, stalls.whileDenied, stalls.unexplained, stalls.plain],
    ]),
    '',
    `${transfers.whole} transfers ran throughout: ${megabytes} MB came back, ${transfers.sentBytes - transfers.echoedBytes} bytes lost, ${transfers.wrongBytes} wrong`,
    '',
    formatTable([
      ['sidecar of', 'restarts', 'RSS MB after each part', 'files', 'rows', 'peers', 'table bytes', 'conntrack'],
      ...sidecarRows(results),
    ]),
    '',
    formatTable([['all sidecars', 'count'], ...counters]),
    `a change of policy was in force, with all connections judged again, after ${meanSwap(results)} ms on average`,
    '',
    ...(results.reasons.length === 0 ? ['every rule holds'] : ['BROKEN:', ...results.reasons]),
    '',
  ].join('\n')
}
