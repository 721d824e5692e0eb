/** Results as a table for people and as one object for programs. */
import { failedConnections, queuedPerConnection, type RatioName, type Results, rssMegabytes } from './results.ts'
import type { Spread } from './statistics.ts'

/** Queued packets of the yardstick and of Synguard may differ by so much: a few overtake the last verdict. */
const ALIKE = 0.1

const round = (value: number, digits: number): number => Number(value.toFixed(digits))
const roundSpread = ({ median, minimum, maximum }: Spread, digits: number): Spread => ({
  median: round(median, digits),
  minimum: round(minimum, digits),
  maximum: round(maximum, digits),
})

/** Rounded to what a reader can use: no more than four digits, three decimals for ratios. */
function roundAll(value: unknown): unknown {
  if (typeof value === 'number') return round(value, Math.abs(value) < 10 ? 3 : 1)
  if (Array.isArray(value)) return value.map(roundAll)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, roundAll(inner)]))
}

/** What was not measured is null, so that a program finds every field. */
export function toJson(results: Results): object {
  const ratio = (name: RatioName): number | null => results.ratios[name]?.median ?? null
  return roundAll({
    latencyRatio: ratio('latencyRatio'),
    rateRatio: ratio('rateRatio'),
    p99Ratio: ratio('p99Ratio'),
    plainLatencyRatio: ratio('plainLatencyRatio'),
    mtlsLatencyRatio: ratio('mtlsLatencyRatio'),
    mtlsRateRatio: ratio('mtlsRateRatio'),
    bulkRatio: ratio('bulkRatio'),
    trackedBulkRatio: ratio('trackedBulkRatio'),
    queuedPerConnection: queuedPerConnection(results, 'synguard') ?? null,
    queuedPerConnectionAcceptOnly: queuedPerConnection(results, 'accept-only') ?? null,
    firstContactMicroseconds: results.firstContact?.first.median ?? null,
    newPodMicroseconds: results.firstContact?.fresh.median ?? null,
    rssMegabytes: rssMegabytes(results, 'synguard') ?? null,
    failedConnections: failedConnections(results),
    rounds: results.rounds,
    spreads: results.ratios,
    firstContact: results.firstContact ?? null,
    variants: results.variants,
  }) as object
}

/** Columns by two spaces; the first to the left, the others to the right. */
function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
  return rows.map(line).join('\n')
}

const text = (value: number, digits = 0): string => (Number.isFinite(value) ? value.toFixed(digits) : '-')

function variantRows({ variants }: Results): string[][] {
  return variants.map(({ name, parallel1, parallel64, bulkGigabits, rssMegabytes: rss }) => {
    const { client, server } = parallel64.processorMicroseconds
    return [
      name,
      text(parallel1.echoP50Microseconds.median),
      text(parallel1.echoP99Microseconds.median),
      text(parallel64.connectionsPerSecond.median),
      text(parallel64.echoP99Microseconds.median),
      `${text(parallel1.queuedPerConnection, 2)} ${text(parallel64.queuedPerConnection, 2)}`,
      rss === undefined ? '-' : `${text(client)} ${text(server)}`,
      rss === undefined ? '-' : `${text(rss.client, 1)} ${text(rss.server, 1)}`,
      text(bulkGigabits.median, 1),
      String(parallel1.stalls + parallel64.stalls),
    ]
  })
}

const RATIO_TEXTS: Readonly<Record<RatioName, string>> = {
  latencyRatio: 'latency, parallel 1, p50, over accept-only',
  p99Ratio: 'latency, parallel 1, p99, over accept-only',
  rateRatio: 'rate, parallel 64, over accept-only',
  p99RatioParallel64: 'latency, parallel 64, p99, over accept-only',
  plainLatencyRatio: 'latency, parallel 1, p50, over plain',
  plainRateRatio: 'rate, parallel 64, over plain',
  mtlsLatencyRatio: 'latency, parallel 1, p50, over mtls',
  mtlsRateRatio: 'rate, parallel 64, over mtls',
  bulkRatio: 'bulk over plain',
  trackedBulkRatio: 'bulk over tracked',
}

function ratioRows({ ratios }: Results): string[][] {
  return Object.entries(RATIO_TEXTS).flatMap(([name, words]) => {
    const spread = ratios[name as RatioName]
    if (spread === undefined) return []
    const { median, minimum, maximum } = roundSpread(spread, 3)
    return [[words, text(median, 3), text(minimum, 3), text(maximum, 3)]]
  })
}

export function toText(results: Results): string {
  const parts = [
    formatTable([
      ['', 'p50 us', 'p99 us', 'conn/s', 'p99 us', 'queued', 'cpu us', 'RSS MB', 'Gbit/s', 'stalls'],
      ['', 'par. 1', 'par. 1', 'par. 64', 'par. 64', 'par. 1 64', 'cl. srv.', 'cl. srv.', 'bulk', '> 1 s'],
      ...variantRows(results),
    ]),
    `Medians of ${results.rounds} rounds. cpu: processor time of each sidecar a connection at parallel 64.`,
  ]
  const [ours, yardstick] = [queuedPerConnection(results, 'synguard'), queuedPerConnection(results, 'accept-only')]
  if (ours !== undefined && yardstick !== undefined) {
    const difference = Math.abs(ours / yardstick - 1)
    const counts = `synguard queued ${text(ours, 2)} packets a connection, accept-only ${text(yardstick, 2)}`
    parts.push(
      `${counts}: ${difference <= ALIKE ? 'alike within a tenth' : 'NOT the same packets, compare with care'}.`,
    )
  }
  const ratios = ratioRows(results)
  if (ratios.length > 0) {
    parts.push('', formatTable([["Synguard's ratios, round by round", 'median', 'min', 'max'], ...ratios]))
  }
  if (results.firstContact !== undefined) {
    const { fresh, first, next, count } = results.firstContact
    const words = ({ median, minimum, maximum }: Spread): string[] => [text(median), text(minimum), text(maximum)]
    parts.push(
      '',
      formatTable([
        [`First contact, us to the echo, ${count} Pods`, 'median', 'min', 'max'],
        ['a pair that never met, both sidecars in use', ...words(first)],
        ['a new Pod, its very first connection', ...words(fresh)],
        ['a known pair, also one connection by a new program', ...words(next)],
      ]),
    )
  }
  const failed = failedConnections(results)
  if (failed > 0) parts.push('', `${failed} connections FAILED`)
  return `${parts.join('\n')}\n`
}
