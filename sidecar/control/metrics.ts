import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** One metric: its type, its help text (also the text in docs/metrics.md) and its labels in order. */
export interface MetricDefinition {
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly labels: readonly string[]
  readonly buckets?: readonly number[]
}

function counter<const L extends readonly string[]>(help: string, ...labels: L) {
  return { type: 'counter', help, labels } as const
}
function gauge<const L extends readonly string[]>(help: string, ...labels: L) {
  return { type: 'gauge', help, labels } as const
}
function histogram<const L extends readonly string[]>(help: string, buckets: readonly number[], ...labels: L) {
  return { type: 'histogram', help, labels, buckets } as const
}

/** Every metric has this prefix; the names below are stable once released. */
export const METRIC_PREFIX = 'synguard_'

const SWAP_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5]

/** All metrics of the sidecar by name without prefix. docs/metrics.md holds the same table; a test compares them. */
export const METRICS = {
  connections_released_total: counter(
    'Connections handed to the kernel after a decision to allow.',
    'direction',
    'peer',
  ),
  connections_refused_total: counter('Connections refused, by reason.', 'direction', 'reason'),
  would_deny_total: counter(
    'Connections released in audit mode that enforce mode would refuse.',
    'direction',
    'reason',
  ),
  packets_queued_total: counter('Packets that the kernel queued for a verdict.', 'queue', 'packet'),
  verdicts_total: counter('Verdicts given to the kernel.', 'verdict'),
  packets_dropped_total: counter('Packets dropped in silence, by reason.', 'reason'),
  syn_ack_repeats_total: counter('SYN-ACKs that the sidecar repeated itself because a proof was missing.'),
  raw_send_failures_total: counter('Packets of the sidecar itself that the kernel did not take.'),
  verdict_failures_total: counter('Verdicts that the kernel did not take: the packet was gone already.'),
  wit_verifications_total: counter(
    'Identity tokens of peers that were verified; result is ok or an error code.',
    'result',
  ),
  revoked_flows_total: counter('Running connections ended by a change of policy or identity.', 'direction', 'cause'),
  queue_overflow_total: counter('Packets lost because the queues or their socket were full.'),
  worker_restarts_total: counter('Times that the data path worker died and was started again.'),
  rules_mismatch_total: counter('Checks that found the iptables rules changed by someone else.'),
  issuer_requests_total: counter('Requests to the issuer; code is the HTTP status or error.', 'endpoint', 'code'),
  identity_renewals_total: counter('Identities obtained from the issuer, or attempts that failed.', 'result'),
  stream_messages_total: counter('Messages of the issuer stream.', 'type'),
  policy_errors_total: counter(
    'Policy sources that could not be read or parsed; the last good policies stand.',
    'code',
  ),
  held_packets: gauge('Packets held while a peer is looked up or verified.'),
  half_open_connections: gauge('Connections in the ring between SYN and the reuse of their slot.'),
  known_peers: gauge('Verified WITs of peers that the packet path keeps.'),
  identity_table_rows: gauge('Peer identities in the table that connection marks point into.'),
  conntrack_entries: gauge("Entries in the kernel's table of connections of this Pod."),
  conntrack_maximum: gauge('Entries at which the kernel drops new connections.'),
  policy_count: gauge('NetworkPolicies of the namespace that stand.'),
  policies_synced: gauge('1 once the policies were read in full, else 0.'),
  policies_confirmed_timestamp_seconds: gauge(
    'When the API server, or the directory, last confirmed the policies that stand, in seconds since 1970.',
  ),
  policy_swap_seconds: histogram(
    'Time from a policy change to the end of the check of running connections.',
    SWAP_BUCKETS,
  ),
  identity_expiry_timestamp_seconds: gauge('When the own identity expires, in seconds since 1970.'),
  stream_connected: gauge('1 while the issuer stream is connected, else 0.'),
  memory_limit_bytes: gauge("Memory limit of the sidecar's container; 0 where it has none."),
  cpu_limit_cores: gauge("CPU limit of the sidecar's container, in cores; 0 where it has none."),
  mode: gauge('1 for the mode in force, 0 for the others.', 'mode'),
  ready: gauge('1 while every readiness condition holds, else 0.'),
  condition: gauge('1 while this readiness condition holds, else 0.', 'condition'),
} as const satisfies Record<string, MetricDefinition>

export type MetricName = keyof typeof METRICS
type LabelName<N extends MetricName> = (typeof METRICS)[N]['labels'][number]
type NamesOfType<T extends MetricDefinition['type']> = {
  [N in MetricName]: (typeof METRICS)[N]['type'] extends T ? N : never
}[MetricName]
type InstanceOf<N extends MetricName> =
  N extends NamesOfType<'counter'>
    ? Counter<LabelName<N>>
    : N extends NamesOfType<'gauge'>
      ? Gauge<LabelName<N>>
      : Histogram<LabelName<N>>

/** One value for each label of the metric, in their order. */
type ValueOfEach<L extends readonly string[]> = { readonly [K in keyof L]: string }
type LabelValues<N extends MetricName> = ValueOfEach<(typeof METRICS)[N]['labels']>

/** A worker's counters and gauges at one moment: sampleKey() to a number. Plain, so that it can be posted between threads. */
export type Snapshot = Readonly<Record<string, number>>

/** The key in a Snapshot for one metric and its label values in order, for example `held_packets` or `verdicts_total|drop`. */
export function sampleKey<N extends NamesOfType<'counter' | 'gauge'>>(name: N, ...labels: LabelValues<N>): string {
  return labels.length === 0 ? name : `${name}|${labels.join('|')}`
}

export interface Metrics {
  readonly registry: Registry
  readonly byName: { readonly [N in MetricName]: InstanceOf<N> }
  /**
   * Takes over a worker's snapshot: gauges are set, counters grow by what came since that source's last snapshot (a
   * value below the last one is a restarted worker's). Returns the keys that name no metric, for the log.
   */
  setFromSnapshot(snapshot: Snapshot, source?: string): readonly string[]
}

function createMetric(name: string, definition: MetricDefinition, registry: Registry): Counter | Gauge | Histogram {
  const { help, labels } = definition
  const options = { name: METRIC_PREFIX + name, help, labelNames: [...labels], registers: [registry] }
  if (definition.type === 'counter') return new Counter(options)
  if (definition.type === 'gauge') return new Gauge(options)
  return new Histogram({ ...options, buckets: [...(definition.buckets ?? [])] })
}

/** A registry of its own with all metrics of the sidecar. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  const created = new Map<string, Counter | Gauge | Histogram>()
  for (const [name, definition] of Object.entries(METRICS)) created.set(name, createMetric(name, definition, registry))
  const lastBySource = new Map<string, Map<string, number>>()

  function setFromSnapshot(snapshot: Snapshot, source = 'worker'): readonly string[] {
    const unknown: string[] = []
    const last = lastBySource.get(source) ?? new Map<string, number>()
    lastBySource.set(source, last)
    for (const [key, value] of Object.entries(snapshot)) {
      const [name = '', ...values] = key.split('|')
      const metric = created.get(name)
      const labels = (METRICS as Record<string, MetricDefinition>)[name]?.labels ?? []
      if (metric === undefined || metric instanceof Histogram || labels.length !== values.length || !(value >= 0)) {
        unknown.push(key)
        continue
      }
      const labelled = Object.fromEntries(labels.map((label, index) => [label, values[index] ?? '']))
      if (metric instanceof Gauge) {
        metric.set(labelled, value)
        continue
      }
      const before = last.get(key) ?? 0
      metric.inc(labelled, value >= before ? value - before : value)
      last.set(key, value)
    }
    return unknown
  }

  return { registry, byName: Object.fromEntries(created) as unknown as Metrics['byName'], setFromSnapshot }
}

/** The table of docs/metrics.md, made from METRICS. */
export function formatMetricsTable(): string {
  const rows = Object.entries(METRICS).map(
    ([name, { type, labels, help }]) =>
      `| \`${METRIC_PREFIX}${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help} |`,
  )
  return ['| metric | type | labels | meaning |', '|---|---|---|---|', ...rows].join('\n')
}
