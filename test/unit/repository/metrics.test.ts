import { describe, expect, it } from '@jest/globals'
import {
  createWebhookMetrics,
  formatWebhookMetricsList,
  WEBHOOK_METRIC_PREFIX,
  WEBHOOK_METRICS,
} from '../../../webhook/metrics.ts'
import { readText } from './checkout.ts'

describe("docs/metrics.md, the webhook's part", () => {
  it('has each metric with type, labels and meaning, and no other', () => {
    const lines = readText('docs/metrics.md').split('\n')
    expect(lines.filter((line) => /^- `synguard_webhook_\w+`, /.test(line))).toEqual(
      formatWebhookMetricsList().split('\n'),
    )
  })

  it('has what a webhook serves', async () => {
    const metrics = await createWebhookMetrics().registry.getMetricsAsJSON()
    const served = metrics.flatMap(({ name }) =>
      name.startsWith(WEBHOOK_METRIC_PREFIX) ? [name.slice(WEBHOOK_METRIC_PREFIX.length)] : [],
    )
    expect(served.sort()).toEqual(Object.keys(WEBHOOK_METRICS).sort())
  })
})
