/**
 * Cases of the policy table over real sidecars: every Pod, guarded, and an address outside connect to each other, and what
 * the network does is what the table says. The engine alone runs the whole table (test/unit/policy/matrix.test.ts).
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { Labels, PodIdentity } from '../../../api/identity.ts'
import type { Agent } from '../../../lab/agent-client.ts'
import { isReached } from '../../../lab/agent-protocol.ts'
import { createLab, type Lab } from '../../../lab/lab.ts'
import { LAB_ADDRESSES } from '../../../lab/network.ts'
import { CASES, type Case, matricesOf, objectsOf, parseTraffic } from '../../unit/policy/cases.ts'
import { NAMESPACE_LABELS, PODS } from '../../unit/policy/cluster.ts'

const SAMPLE = CASES.filter((one) => one.lab === true)
const TRAFFIC = [...new Set(SAMPLE.flatMap((one) => Object.keys(matricesOf(one))))]
/** Ten times what a change of labels may take. */
const SETTLE_MILLISECONDS = 20_000
const REACH_MILLISECONDS = 3_000

interface End {
  readonly name: string
  readonly agent: Agent
  readonly addresses: readonly string[]
}

const nameOf = ({ namespace, name }: PodIdentity) => `${namespace}/${name}`

function transport(traffic: string): { protocol: 'TCP' | 'UDP'; port: number } {
  const { protocol, port } = parseTraffic(traffic)
  if (protocol !== 'TCP' && protocol !== 'UDP') throw new Error(`the lab has no ${traffic}`)
  return { protocol, port }
}

let lab: Lab
let ends: readonly End[]
/** `namespace/name` of what is written now. */
let written: readonly string[] = []
const settled: number[] = []

async function putNamespace(name: string, labels: Labels): Promise<void> {
  await lab.putNamespace({ metadata: { name, labels: { ...labels, 'synguard.io/inject': 'enabled' } } })
}

/** The Pod of the table with a server at every port that some case asks for; its named ports are the table's. */
async function runPod(pod: PodIdentity): Promise<End> {
  const named = pod.ports.map(({ name, port, protocol }) => ({
    name,
    containerPort: port,
    protocol: protocol as string,
  }))
  const others = TRAFFIC.map(transport)
    .filter(({ protocol, port }) => !named.some((one) => one.containerPort === port && one.protocol === protocol))
    .map(({ protocol, port }) => ({ containerPort: port, protocol }))
  const running = await lab.runPod(
    await lab.admitPod({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace: pod.namespace, name: pod.name, labels: { ...pod.labels } },
      spec: { containers: [{ name: 'app', image: 'app', ports: [...named, ...others] }] },
      status: { podIPs: pod.addresses.map((ip) => ({ ip })) },
    }),
  )
  return { name: nameOf(pod), agent: running.agent, addresses: pod.addresses }
}

beforeAll(async () => {
  const bundle = process.env.SYNGUARD_TEST_BUNDLE
  lab = await createLab(bundle === undefined ? {} : { bundle })
  await Promise.all(Object.entries(NAMESPACE_LABELS).map(([name, labels]) => putNamespace(name, labels)))
  const pods = await Promise.all(PODS.map(runPod))
  await lab.external.ask({ do: 'serve', ports: TRAFFIC.map(transport), name: 'out' })
  ends = [...pods, { name: 'out', agent: lab.external, addresses: LAB_ADDRESSES.external }]
}, 120_000)
afterAll(async () => {
  const [least = 0, most = 0] = [settled[0], settled.at(-1)]
  const median = settled[settled.length >> 1] ?? 0
  const count = settled.length
  process.stdout.write(
    `\n${count} policy cases in the lab: the network followed within ${median.toFixed(0)} ms (${least.toFixed(0)} to ${most.toFixed(0)})\n`,
  )
  await lab?.stop()
})

async function apply(one: Case): Promise<void> {
  const objects = objectsOf(one)
  const names = objects.map(({ metadata: { namespace, name } }) => `${namespace}/${name}`)
  for (const gone of written.filter((name) => !names.includes(name))) {
    const [namespace = '', name = ''] = gone.split('/')
    lab.putPolicy(namespace, name, undefined)
  }
  for (const object of objects) lab.putPolicy(object.metadata.namespace, object.metadata.name, object)
  written = names
  for (const pod of PODS) await lab.relabelPod(nameOf(pod), one.pods?.[nameOf(pod)] ?? pod.labels)
  for (const [name, labels] of Object.entries(NAMESPACE_LABELS)) {
    await putNamespace(name, one.namespaces?.[name] ?? labels)
  }
}

/** A line for each client, as in the table. */
async function tryAll(traffic: string, family: 4 | 6): Promise<string> {
  const { protocol, port } = transport(traffic)
  const lines = await Promise.all(
    ends.map(async (client) => {
      const cells: string[] = []
      for (const { addresses } of ends) {
        const address = addresses[family === 4 ? 0 : 1] ?? ''
        const reached = await client.agent.ask({
          do: 'reach',
          target: { protocol, address, port },
          timeoutMs: REACH_MILLISECONDS,
        })
        cells.push(isReached(reached) ? '+' : '-')
      }
      return `${client.name} ${cells.join(' ')}\n`
    }),
  )
  return lines.join('')
}

describe('NetworkPolicy over real sidecars', () => {
  it.each(SAMPLE)(
    '$rule',
    async (one) => {
      const expected = matricesOf(one)
      const tryEach = async () => {
        const found: Record<string, string> = {}
        for (const traffic of Object.keys(expected)) found[traffic] = await tryAll(traffic, one.family ?? 4)
        return found
      }
      const begun = performance.now()
      await apply(one)
      let found = await tryEach()
      while (!isSame(found, expected) && performance.now() - begun < SETTLE_MILLISECONDS) found = await tryEach()
      settled.push(performance.now() - begun)
      settled.sort((a, b) => a - b)
      expect(found).toEqual(expected)
      // What is right by chance, while a change is under way, does not stay.
      expect(await tryEach()).toEqual(expected)
    },
    60_000,
  )
})

const isSame = (one: object, other: object) => JSON.stringify(one) === JSON.stringify(other)
