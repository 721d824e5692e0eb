import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

interface Definition {
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

/** Every metric of the webhook has this prefix; the names below are stable once released. */
export const WEBHOOK_METRIC_PREFIX = 'synguard_webhook_'

const REQUEST_BUCKETS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 6]

/** All metrics of the webhook by name without prefix. docs/metrics.md holds the same table; a test compares them. */
export const WEBHOOK_METRICS = {
  requests_total: counter('HTTPS requests answered, by endpoint and HTTP status.', 'endpoint', 'code'),
  request_seconds: histogram(
    'Time to answer a request, by endpoint; streams count until their first bytes.',
    REQUEST_BUCKETS,
    'endpoint',
  ),
  admissions_total: counter('Pods and ephemeral containers reviewed, dry runs too.', 'subject', 'outcome', 'code'),
  admission_seconds: histogram('Time of a review, from its parsed body to its answer.', REQUEST_BUCKETS, 'subject'),
  identities_total: counter('Identities issued (result ok) and refused (result is the error code).', 'result'),
  token_reviews_total: counter('Tokens that the API server reviewed for the issuer.', 'result'),
  token_review_seconds: histogram('Time of the API server to review a token.', REQUEST_BUCKETS),
  streams: gauge('Open streams of sidecars.'),
  voids: gauge('Pods whose identities are void, by cause; a Pod counts under each of its causes.', 'cause'),
  void_entries_invalid: gauge('Entries of the ConfigMap of voids that say nothing; the log names them.'),
  voids_dropped_total: counter('Voids forgotten early, as the list was full.'),
  events_total: counter('Events written, new or counted anew, by reason.', 'reason'),
  events_dropped_total: counter('Events not written: too many, or refused by the API server.', 'reason'),
  api_requests_total: counter('Requests to the API server, by HTTP status or error code.', 'verb', 'resource', 'code'),
  api_request_seconds: histogram('Time of a request to the API server.', REQUEST_BUCKETS, 'verb', 'resource'),
  watch_lists_total: counter('Times that a kind was listed in full.', 'resource'),
  watches_total: counter('Watches opened: the first, and every one that follows another.', 'resource'),
  watch_failures_total: counter('Lists and watches that failed, by HTTP status or error code.', 'resource', 'reason'),
  watch_events_total: counter('Events of watches, bookmarks too.', 'resource'),
  keys: gauge('Keys by state, as this replica acts by them.', 'kind', 'state'),
  key_age_seconds: gauge('Time since the active key came into use.', 'kind'),
  keys_read_age_seconds: gauge('Time since this replica last read the keys; above 30 it signs nothing.', 'kind'),
  rotation_phase: gauge('1 for the phase that the rotation is in, else 0.', 'kind', 'phase'),
  rotation_phase_seconds: gauge('Time since the rotation came into its phase.', 'kind'),
  rotation_sidecars_missing: gauge('Sidecars that a rotation waits for; of the replica that holds the Lease.', 'kind'),
  rotation_writes_total: counter('Steps and answers to requests that were written to the keys.', 'kind', 'event'),
  rotation_refusals_total: counter('Requests of operators that were refused.', 'kind', 'code'),
  rotation_failures_total: counter(
    'Turns that failed: the keys or what belongs to them could not be read.',
    'kind',
    'code',
  ),
  certificate_expiry_timestamp_seconds: gauge(
    'When the certificates end: `serving` of this replica, `ca`.',
    'certificate',
  ),
  watch_age_seconds: gauge('Time since the API server last said something of this kind.', 'resource'),
} as const satisfies Record<string, Definition>

type Name = keyof typeof WEBHOOK_METRICS
type LabelsOf<N extends Name> = (typeof WEBHOOK_METRICS)[N]['labels'][number]
type NamesOf<T extends Definition['type']> = {
  [N in Name]: (typeof WEBHOOK_METRICS)[N]['type'] extends T ? N : never
}[Name]

export interface WebhookMetrics {
  readonly registry: Registry
  /** HTTPS requests answered; `endpoint` is one of the known paths or `other`, `code` the HTTP status. */
  readonly requests: Counter<'endpoint' | 'code'>
  readonly requestSeconds: Histogram<'endpoint'>
  readonly admissions: Counter<'subject' | 'outcome' | 'code'>
  readonly admissionSeconds: Histogram<'subject'>
  /** Identities issued, and requests refused by the error's code. */
  readonly identities: Counter<'result'>
  readonly tokenReviews: Counter<'result'>
  readonly tokenReviewSeconds: Histogram
  readonly events: Counter<'reason'>
  readonly eventsDropped: Counter<'reason'>
  readonly rotation: {
    readonly writes: Counter<'kind' | 'event'>
    readonly refusals: Counter<'kind' | 'code'>
    readonly failures: Counter<'kind' | 'code'>
  }
  readonly api: {
    readonly requests: Counter<'verb' | 'resource' | 'code'>
    readonly requestSeconds: Histogram<'verb' | 'resource'>
    readonly lists: Counter<'resource'>
    readonly watches: Counter<'resource'>
    readonly watchFailures: Counter<'resource' | 'reason'>
    readonly watchEvents: Counter<'resource'>
    /** performance.now() of the last word, by resource. */
    readonly heardAt: Map<string, number>
  }
  /** What is asked when somebody scrapes; each replaces an earlier one. */
  follow(sources: MetricSources): void
}

export interface MetricSources {
  readonly streams?: () => number
  readonly voids?: () => { readonly byCause: Readonly<Record<string, number>>; readonly dropped: number }
  readonly invalidVoids?: () => number
  readonly keys?: () => readonly KeyFigures[]
  /** When each certificate ends, in seconds since the epoch. */
  readonly certificates?: () => Readonly<Record<string, number>>
}

/** Of one kind of keys, as this replica acts by them; times in seconds. */
export interface KeyFigures {
  readonly kind: string
  readonly states: Readonly<Record<string, number>>
  readonly ageSeconds: number
  readonly readAgeSeconds: number
  readonly phases: Readonly<Record<string, number>>
  readonly phaseSeconds: number
  /** undefined where another replica steps. */
  readonly missing: number | undefined
}

/** The webhook's metrics in a registry of their own. */
export function createWebhookMetrics(): WebhookMetrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  let sources: MetricSources = {}
  const optionsOf = <N extends Name>(name: N) => ({
    name: WEBHOOK_METRIC_PREFIX + name,
    help: WEBHOOK_METRICS[name].help,
    labelNames: [...WEBHOOK_METRICS[name].labels] as LabelsOf<N>[],
    registers: [registry],
  })
  const count = <N extends NamesOf<'counter'>>(name: N) => new Counter<LabelsOf<N>>(optionsOf(name))
  const time = <N extends NamesOf<'histogram'>>(name: N) =>
    new Histogram<LabelsOf<N>>({ ...optionsOf(name), buckets: [...WEBHOOK_METRICS[name].buckets] })
  const ask = <N extends NamesOf<'gauge'>>(name: N, collect: (gauge: Gauge<LabelsOf<N>>) => void) =>
    new Gauge<LabelsOf<N>>({
      ...optionsOf(name),
      collect() {
        collect(this)
      },
    })

  const askKeys = <N extends NamesOf<'gauge'>>(name: N, set: (gauge: Gauge<LabelsOf<N>>, one: KeyFigures) => void) =>
    ask(name, (gauge) => {
      gauge.reset()
      for (const one of sources.keys?.() ?? []) set(gauge, one)
    })
  askKeys('keys', (gauge, { kind, states }) => {
    for (const [state, count] of Object.entries(states)) gauge.set({ kind, state }, count)
  })
  askKeys('key_age_seconds', (gauge, { kind, ageSeconds }) => gauge.set({ kind }, ageSeconds))
  askKeys('keys_read_age_seconds', (gauge, { kind, readAgeSeconds }) => gauge.set({ kind }, readAgeSeconds))
  askKeys('rotation_phase', (gauge, { kind, phases }) => {
    for (const [phase, value] of Object.entries(phases)) gauge.set({ kind, phase }, value)
  })
  askKeys('rotation_phase_seconds', (gauge, { kind, phaseSeconds }) => gauge.set({ kind }, phaseSeconds))
  askKeys('rotation_sidecars_missing', (gauge, { kind, missing }) => {
    if (missing !== undefined) gauge.set({ kind }, missing)
  })
  ask('certificate_expiry_timestamp_seconds', (gauge) => {
    for (const [certificate, at] of Object.entries(sources.certificates?.() ?? {})) gauge.set({ certificate }, at)
  })
  const heardAt = new Map<string, number>()
  ask('streams', (gauge) => gauge.set(sources.streams?.() ?? 0))
  ask('void_entries_invalid', (gauge) => gauge.set(sources.invalidVoids?.() ?? 0))
  ask('watch_age_seconds', (gauge) => {
    for (const [resource, at] of heardAt) gauge.set({ resource }, (performance.now() - at) / 1_000)
  })
  let droppedBefore = 0
  // Before the counter that it moves, so that both are of the same moment.
  ask('voids', (gauge) => {
    const voids = sources.voids?.()
    for (const [cause, pods] of Object.entries(voids?.byCause ?? {})) gauge.set({ cause }, pods)
    dropped.inc((voids?.dropped ?? droppedBefore) - droppedBefore)
    droppedBefore = voids?.dropped ?? droppedBefore
  })
  const dropped = count('voids_dropped_total')

  return {
    registry,
    requests: count('requests_total'),
    requestSeconds: time('request_seconds'),
    admissions: count('admissions_total'),
    admissionSeconds: time('admission_seconds'),
    identities: count('identities_total'),
    tokenReviews: count('token_reviews_total'),
    tokenReviewSeconds: time('token_review_seconds'),
    events: count('events_total'),
    eventsDropped: count('events_dropped_total'),
    rotation: {
      writes: count('rotation_writes_total'),
      refusals: count('rotation_refusals_total'),
      failures: count('rotation_failures_total'),
    },
    api: {
      requests: count('api_requests_total'),
      requestSeconds: time('api_request_seconds'),
      lists: count('watch_lists_total'),
      watches: count('watches_total'),
      watchFailures: count('watch_failures_total'),
      watchEvents: count('watch_events_total'),
      heardAt,
    },
    follow(next) {
      sources = { ...sources, ...next }
    },
  }
}

/** The list of docs/metrics.md, made from WEBHOOK_METRICS. */
export function formatWebhookMetricsList(): string {
  const lines = Object.entries(WEBHOOK_METRICS).map(([name, { type, help, labels }]) => {
    const shown = labels.map((label) => `\`${label}\``)
    const more = shown.length === 0 ? '' : `, ${shown.length > 1 ? 'labels' : 'label'} ${shown.join(', ')}`
    return `- \`${WEBHOOK_METRIC_PREFIX}${name}\`, ${type}${more}: ${help}`
  })
  return lines.join('\n')
}
