import { describe, expect, it } from '@jest/globals'
import { createWebhookMetrics } from '../../../webhook/metrics.ts'
import { readText } from './checkout.ts'

describe("docs/metrics.md, the webhook's part", () => {
  it('has each metric with type, labels and meaning, and no other', async () => {
    const { registry } = createWebhookMetrics(() => 0)
    const metrics = (await registry.getMetricsAsJSON()).filter(({ name }) => name.startsWith('synguard_'))
    const lines = metrics.map(({ name, help, type }) => {
      const known = registry.getSingleMetric(name) as unknown as { labelNames: string[] }
      const names = known.labelNames.map((label) => `\`${label}\``)
      const labels = names.length === 0 ? '' : `, ${names.length > 1 ? 'labels' : 'label'} ${names.join(' and ')}`
      return `- \`${name}\`, ${type}${labels}: ${help}`
    })
    expect(lines.length).toBeGreaterThan(0)
    expect(
      readText('docs/metrics.md')
        .split('\n')
        .filter((line) => line.startsWith('- `synguard_webhook_')),
    ).toEqual(lines)
  })
})
