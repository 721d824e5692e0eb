import { readFileSync } from 'node:fs'
import { describe, expect, it } from '@jest/globals'
import { createMetrics, formatMetricsTable, METRICS, sampleKey } from '../../../sidecar/control/metrics.ts'

async function value(metrics: ReturnType<typeof createMetrics>, line: string): Promise<number | undefined> {
  const text = await metrics.registry.metrics()
  const found = text.split('\n').find((candidate) => candidate.startsWith(`${line} `))
  return found === undefined ? undefined : Number(found.slice(line.length + 1))
}

describe('metrics', () => {
  it('are all in docs/metrics.md, with type, labels and meaning, and nothing else is there', () => {
    const docs = readFileSync(new URL('../../../docs/metrics.md', import.meta.url), 'utf8')
    const rows = docs.split('\n').filter((line) => line.startsWith('| `synguard_'))
    expect(rows).toEqual(formatMetricsTable().split('\n').slice(2))
  })

  it('are registered with the prefix', async () => {
    const { registry } = createMetrics()
    const names = (await registry.getMetricsAsJSON()).map((metric) => metric.name)
    expect(names).toEqual(Object.keys(METRICS).map((name) => `synguard_${name}`))
  })

  it('follow the naming rules of Prometheus: counters end in _total, times in _seconds', () => {
    const wrong = Object.entries(METRICS).filter(
      ([name, { type }]) => !/^[a-z][a-z_]*$/.test(name) || name.endsWith('_total') !== (type === 'counter'),
    )
    expect(wrong).toEqual([])
  })

  it('take a snapshot: gauges are set, counters grow by the difference', async () => {
    const metrics = createMetrics()
    const released = sampleKey('connections_released_total', 'ingress', 'identified')
    expect(released).toBe('connections_released_total|ingress|identified')
    expect(metrics.setFromSnapshot({ [released]: 5, [sampleKey('held_packets')]: 3 })).toEqual([])
    expect(metrics.setFromSnapshot({ [released]: 8, [sampleKey('held_packets')]: 0 })).toEqual([])
    expect(await value(metrics, 'synguard_connections_released_total{direction="ingress",peer="identified"}')).toBe(8)
    expect(await value(metrics, 'synguard_held_packets')).toBe(0)
  })

  it("add a restarted worker's counts, which begin at 0 again, to the old ones", async () => {
    const metrics = createMetrics()
    const key = sampleKey('verdicts_total', 'drop')
    for (const count of [10, 12, 3, 4]) metrics.setFromSnapshot({ [key]: count })
    expect(await value(metrics, 'synguard_verdicts_total{verdict="drop"}')).toBe(16)
  })

  it('name the keys of a snapshot that are no metric, and take the rest', async () => {
    const metrics = createMetrics()
    const bad = [
      'nothing',
      'verdicts_total',
      'verdicts_total|a|b',
      'policy_swap_seconds',
      '',
      '__proto__',
      'half_open_connections',
    ]
    const snapshot = Object.fromEntries(bad.map((key) => [key, key === 'half_open_connections' ? Number.NaN : 1]))
    Object.defineProperty(snapshot, '__proto__', { value: 1, enumerable: true })
    expect(metrics.setFromSnapshot({ ...snapshot, [sampleKey('known_peers')]: 7 })).toEqual(
      bad.filter((key) => Object.hasOwn(snapshot, key)),
    )
    expect(await value(metrics, 'synguard_known_peers')).toBe(7)
  })

  it('are typed: each is there by its name', async () => {
    const metrics = createMetrics()
    metrics.byName.issuer_requests_total.inc({ endpoint: '/v1/identity', code: '200' })
    metrics.byName.policy_swap_seconds.observe(0.002)
    expect(await value(metrics, 'synguard_issuer_requests_total{endpoint="/v1/identity",code="200"}')).toBe(1)
    expect(await value(metrics, 'synguard_policy_swap_seconds_count')).toBe(1)
  })
})
