import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

export interface WebhookMetrics {
  readonly registry: Registry
  /** HTTPS requests answered; `endpoint` is one of the known paths or `other`, `code` the HTTP status. */
  readonly requests: Counter<'endpoint' | 'code'>
  readonly requestSeconds: Histogram<'endpoint'>
  /** Identities issued, and requests refused by the error's code. */
  readonly identities: Counter<'result'>
  readonly streams: Gauge
}

/** The webhook's metrics in a registry of their own. `streams` counts the open streams when scraped. */
export function createWebhookMetrics(streams: () => number): WebhookMetrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  return {
    registry,
    requests: new Counter({
      name: 'synguard_webhook_requests_total',
      help: 'HTTPS requests answered, by endpoint and HTTP status.',
      labelNames: ['endpoint', 'code'],
      registers: [registry],
    }),
    requestSeconds: new Histogram({
      name: 'synguard_webhook_request_seconds',
      help: 'Time to answer a request, by endpoint; streams count until their first bytes.',
      labelNames: ['endpoint'],
      buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 6],
      registers: [registry],
    }),
    identities: new Counter({
      name: 'synguard_webhook_identities_total',
      help: 'Identities issued (result ok) and refused (result is the error code).',
      labelNames: ['result'],
      registers: [registry],
    }),
    streams: new Gauge({
      name: 'synguard_webhook_streams',
      help: 'Open streams of sidecars.',
      registers: [registry],
      collect() {
        this.set(streams())
      },
    }),
  }
}
