/**
 * What guarding costs in a cluster: time to Ready, memory, requests to the API server, admission. Prints the figures,
 * and as JSON into the file that SYNGUARD_FIGURES names.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import { awaitGuarded, cleanUp, install } from './installation.ts'
import { apply, getJson, kubectl, pause, startKubectl, until } from './kubectl.ts'
import { auditLogPath } from './node.ts'
import { GUARDED, namespace, podSpec, sleeper } from './objects.ts'

const AT = 'figures'
const FREE = 'figures-free'
const PODS = 10
/** Seconds that a guarded Pod may take longer, and milliseconds that an admission may take on average. */
const TARGET = { readySeconds: 2.5, admissionMs: 20 }
/** A busy machine fails no test: only what is out of all proportion does. */
const FACTOR = 10

const figures: Record<string, unknown> = {}

const pod = (at: string, name: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: at },
  spec: podSpec(sleeper()),
})

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return ((sorted[(sorted.length - 1) >> 1] ?? 0) + (sorted[sorted.length >> 1] ?? 0)) / 2
}
const rounded = (value: number) => Math.round(value * 100) / 100
const spread = (values: readonly number[]) => ({
  median: rounded(median(values)),
  least: rounded(Math.min(...values)),
  most: rounded(Math.max(...values)),
})

/** Seconds from the request for a Pod to each line that `wanted` finds in what its watch says. */
async function timePod(at: string, name: string): Promise<{ ready: number; created: number; startedAt: number }> {
  const watch = startKubectl([
    ...['-n', at, 'get', 'pods', '--watch-only', '--field-selector', `metadata.name=${name}`],
    ...['-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}{"\\n"}'],
  ])
  try {
    await pause(500)
    const startedAt = Date.now()
    await apply(pod(at, name))
    const created = Date.now()
    while (!watch.said().includes('True')) {
      if (Date.now() - startedAt > 120_000) throw new Error(`${at}/${name} does not get ready: ${watch.said()}`)
      await pause(10)
    }
    return { ready: (Date.now() - startedAt) / 1_000, created: (created - startedAt) / 1_000, startedAt }
  } finally {
    await watch.stop()
  }
}

/** Seconds from the request to what our containers logged. */
async function timeSteps(name: string, startedAt: number): Promise<Record<string, number>> {
  const lines = (await kubectl('-n', AT, 'logs', name, '--all-containers')).split('\n')
  const at = (text: string) => {
    const line = lines.find((one) => one.includes(text)) ?? '{}'
    return (Date.parse((JSON.parse(line) as { time: string }).time) - startedAt) / 1_000
  }
  return { rules: at('rules installed'), sidecar: at('sidecar started'), identity: at('identity obtained') }
}

interface Summary {
  pods: {
    podRef: { name: string; namespace: string }
    containers: { name: string; memory?: { workingSetBytes?: number; rssBytes?: number } }[]
  }[]
}

interface AuditEvent {
  readonly auditID: string
  readonly verb: string
  readonly objectRef?: { readonly resource: string }
  readonly user: { readonly extra?: Readonly<Record<string, readonly string[]>> }
}

describe('figures', () => {
  beforeAll(async () => {
    await install()
    await apply(namespace(AT, GUARDED), namespace(FREE))
    await awaitGuarded(AT)
    // The first Pods of a node find nothing in its caches.
    await timePod(AT, 'warm')
    await timePod(FREE, 'warm')
  })
  afterAll(async () => {
    await cleanUp([AT, FREE])
    const text = JSON.stringify(figures, null, 2)
    if (process.env.SYNGUARD_FIGURES !== undefined) writeFileSync(process.env.SYNGUARD_FIGURES, `${text}\n`)
    process.stderr.write(`${text}\n`)
  })

  it('time to Ready of guarded and other Pods, in turns', async () => {
    const guarded: number[] = []
    const free: number[] = []
    const steps: Record<string, number[]> = {}
    for (let index = 0; index < PODS; index++) {
      // The kubelet looks at containers once a second, and what it saw last is when the Pod before was Ready: without
      // a pause each Pod would meet the same moment of that second.
      await pause((index * 1000) / PODS)
      const one = await timePod(AT, `pod-${index}`)
      guarded.push(one.ready)
      const found = { created: one.created, ...(await timeSteps(`pod-${index}`, one.startedAt)) }
      for (const [name, seconds] of Object.entries(found)) {
        steps[name] ??= []
        steps[name].push(seconds)
      }
      free.push((await timePod(FREE, `pod-${index}`)).ready)
    }
    const longer = guarded.map((seconds, index) => seconds - (free[index] ?? 0))
    figures.readySeconds = {
      guarded: spread(guarded),
      unguarded: spread(free),
      longer: spread(longer),
      guardedSteps: Object.fromEntries(Object.entries(steps).map(([name, values]) => [name, spread(values)])),
    }
    expect(median(longer)).toBeLessThan(TARGET.readySeconds * FACTOR)
  }, 400_000)

  it('memory of each container, as the kubelet counts it', async () => {
    const path = '/api/v1/nodes/node1/proxy/stats/summary'
    const memory = await until('the kubelet to have counted', async () => {
      const { pods } = JSON.parse(await kubectl('get', '--raw', path)) as Summary
      const containers = pods.flatMap(({ podRef, containers: found }) =>
        [AT, 'synguard'].includes(podRef.namespace) ? found : [],
      )
      const of = (name: string, field: 'workingSetBytes' | 'rssBytes') =>
        containers.filter((one) => one.name === name).flatMap(({ memory: m }) => m?.[field] ?? [])
      const wanted = of('synguard-sidecar', 'workingSetBytes')
      if (wanted.length < PODS + 1) return undefined
      const megabytes = (values: number[]) => spread(values.map((value) => value / 1e6))
      return {
        sidecarWorkingSet: megabytes(wanted),
        sidecarAnonymous: megabytes(of('synguard-sidecar', 'rssBytes')),
        webhookWorkingSet: megabytes(of('webhook', 'workingSetBytes')),
        webhookAnonymous: megabytes(of('webhook', 'rssBytes')),
      }
    })
    figures.memoryMegabytes = memory
    const limit = (await getJson<V1Pod>('-n', AT, 'pod/pod-0')).spec?.initContainers?.[1]?.resources?.limits?.memory
    expect(limit).toBe('192Mi')
    expect(memory.sidecarWorkingSet.most).toBeLessThan(192)
  })

  it('requests of a sidecar to the API server: a list and a watch of policies and mode, and nothing more while nothing changes', async () => {
    const path = auditLogPath()
    if (!existsSync(path)) return
    const events = new Map<string, AuditEvent>()
    for (const line of readFileSync(path, 'utf8').split('\n')) {
      if (line === '') continue
      const event = JSON.parse(line) as AuditEvent
      events.set(event.auditID, event)
    }
    const counts = new Map<string, Record<string, number>>()
    for (const { verb, objectRef, user } of events.values()) {
      const [name = ''] = user.extra?.['authentication.kubernetes.io/pod-name'] ?? []
      const count = counts.get(name) ?? {}
      counts.set(name, count)
      const key = `${verb} ${objectRef?.resource}`
      count[key] = (count[key] ?? 0) + 1
    }
    const first = counts.get('pod-0') ?? {}
    figures.requestsOfOneSidecar = first
    figures.requestsOfAllSidecars = { sidecars: counts.size, requests: events.size }
    const resources = ['configmaps', 'networkpolicies']
    const verbs = ['list', 'watch']
    expect(Object.keys(first).sort()).toEqual(verbs.flatMap((verb) => resources.map((one) => `${verb} ${one}`)))
    for (const resource of resources) expect(first[`list ${resource}`]).toBe(1)
  })

  it("mean time of an admission, at the API server's own metric", async () => {
    const text = await kubectl('get', '--raw', '/metrics')
    const value = (suffix: string) =>
      text
        .split('\n')
        .filter((line) => line.startsWith(`apiserver_admission_webhook_admission_duration_seconds_${suffix}{`))
        .filter((line) => line.includes('name="pods.synguard.io"') && line.includes('operation="CREATE"'))
        .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
    const meanMs = (value('sum') / value('count')) * 1_000
    figures.admissionMs = { mean: rounded(meanMs), admissions: value('count') }
    expect(meanMs).toBeLessThan(TARGET.admissionMs * FACTOR)
  })
})
