/** What `synguard explain` says is what sidecars then do: every kind of end to every guarded and other Pod, by each protocol. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Namespace, V1Service } from '@kubernetes/client-node'
import { judgeWays } from '../../../cli/explain/answer.ts'
import { parseQuery } from '../../../cli/explain/query.ts'
import { findSource, findWays } from '../../../cli/explain/ways.ts'
import type { Agent } from '../../../lab/agent-client.ts'
import { isReached } from '../../../lab/agent-protocol.ts'
import { createLab, type Lab } from '../../../lab/lab.ts'
import { LAB_ADDRESSES } from '../../../lab/network.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import type { NetworkPolicy } from '../../../policy/types.ts'
import { isGuarded } from '../../../webhook/admission/pod.ts'
import { createDirectory } from '../../../webhook/directory/directory.ts'
import { createMemoryCluster } from '../../../webhook/memory-cluster.ts'

const PORTS = [
  ['8080', 'TCP'],
  ['8081', 'TCP'],
  ['5353', 'UDP'],
] as const
const NODE = 'node'
const EXTERNAL = 'external'

let lab: Lab
const pods = new Map<string, RunningPod>()
const cluster = createMemoryCluster({ now: () => 0 })
const policies: NetworkPolicy[] = []

function putPolicy(name: string, spec: object): void {
  const object = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: 'guarded' },
    spec,
  }
  lab.putPolicy('guarded', name, object)
  policies.push(parseNetworkPolicy(object, name))
}

async function putNamespace(name: string, labels: Record<string, string>): Promise<void> {
  const namespace: V1Namespace = { metadata: { name, labels } }
  await lab.putNamespace(namespace)
  cluster.put('Namespace', { metadata: { name, labels: { 'kubernetes.io/metadata.name': name, ...labels } } })
}

async function runPod(namespace: string, name: string, annotations: Record<string, string> = {}): Promise<void> {
  const ports = PORTS.map(([port, protocol]) => ({ containerPort: Number(port), protocol }))
  const readinessProbe = { tcpSocket: { port: 8081 } }
  const labels = { app: name, ...(name.endsWith('friend') && { friend: 'yes' }) }
  const spec = { containers: [{ name: 'app', image: 'app', ports, readinessProbe }] }
  const metadata = { namespace, name, labels, annotations }
  const running = await lab.runPod(await lab.admitPod({ apiVersion: 'v1', kind: 'Pod', metadata, spec }))
  pods.set(`${namespace}/${name}`, running)
  // As its kubelet shows it now: it was handed over before it was ready.
  const ready = { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] }
  cluster.put('Pod', { ...running.pod, status: { ...running.pod.status, ...ready } })
}

beforeAll(async () => {
  lab = await createLab()
  await putNamespace('guarded', { 'synguard.io/inject': 'enabled', team: 'guarded' })
  await putNamespace('plain', { team: 'plain' })
  const address = LAB_ADDRESSES.node[0] ?? ''
  cluster.put('Node', { metadata: { name: 'node' }, status: { addresses: [{ type: 'InternalIP', address }] } })
  const friends = { namespaceSelector: {}, podSelector: { matchLabels: { friend: 'yes' } } }
  const outside = { ipBlock: { cidr: '203.0.113.0/24' } }
  putPolicy('server', {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [friends] }, { from: [outside], ports: [{ port: 8080 }] }],
  })
  putPolicy('strict', { podSelector: { matchLabels: { app: 'strict' } }, ingress: [{ from: [friends, outside] }] })
  putPolicy('client', {
    podSelector: { matchLabels: { app: 'friend' } },
    policyTypes: ['Egress'],
    egress: [
      { to: [{ podSelector: {} }], ports: [{ port: 8080 }, { port: 5353, protocol: 'UDP' }] },
      { to: [outside] },
    ],
  })
  await Promise.all([
    runPod('guarded', 'server'),
    runPod('guarded', 'strict', { 'synguard.io/peers-without-identity': 'deny' }),
    runPod('guarded', 'open'),
    runPod('guarded', 'friend'),
    runPod('guarded', 'stranger'),
    runPod('plain', 'plain-friend'),
    runPod('plain', 'plain-stranger'),
  ])
  await putService('guarded', 'server')
  await putService('plain', 'plain-friend')
  await putService('guarded', 'friend', { type: 'NodePort', externalTrafficPolicy: 'Cluster' }, 30_080)
  await putService('plain', 'plain-stranger', { type: 'NodePort', externalTrafficPolicy: 'Cluster' }, 30_081)
  await putService('guarded', 'open', { type: 'NodePort', externalTrafficPolicy: 'Local' }, 30_082)
}, 120_000)
afterAll(async () => await lab?.stop())

const services: V1Service[] = []

/** A Service over the Pod of its name, of TCP and UDP. */
async function putService(
  namespace: string,
  name: string,
  spec: Partial<V1Service['spec']> = {},
  nodePort?: number,
): Promise<void> {
  const ports = [
    { name: 'tcp', port: 80, targetPort: 8080, ...(nodePort !== undefined && { nodePort }) },
    { name: 'udp', port: 53, targetPort: 5353, protocol: 'UDP' },
  ]
  const service = { metadata: { namespace, name }, spec: { selector: { app: name }, ports, ...spec } }
  const stored = await lab.putService(service)
  cluster.put('Service', stored)
  services.push(stored)
}

/** As the command answers it, from the same objects. */
function explained(from: string, to: string, port: string, protocol: string): boolean {
  const objects = { cluster, directory: createDirectory({ cluster, isGuarded }), unseen: [] }
  const addresses: Record<string, string | undefined> = {
    [NODE]: LAB_ADDRESSES.node[0],
    [EXTERNAL]: LAB_ADDRESSES.external[0],
  }
  const endOf = (name: string) => addresses[name] ?? (pods.has(name) ? name.replace('/', '/pod/') : name)
  const query = parseQuery({ from: endOf(from), to: endOf(to), port, protocol })
  const source = findSource(objects, query)
  const rules = { policies, modes: new Map(), voids: new Map(), notes: [] }
  return judgeWays(objects, rules, query, source, findWays(objects, query, source)).allowed
}

function agentOf(name: string): Agent {
  const agent = name === NODE ? lab.node : name === EXTERNAL ? lab.external : pods.get(name)?.agent
  if (agent === undefined) throw new Error(`no ${name}`)
  return agent
}

async function reached(from: string, address: string, port: string, protocol: 'TCP' | 'UDP'): Promise<boolean> {
  const target = { protocol, address, port: Number(port) }
  return isReached(await agentOf(from).ask({ do: 'reach', target, timeoutMs: 4_000 }))
}

const addressOf = (pod: string) => pods.get(pod)?.network.addresses[0] ?? ''

describe('synguard explain', () => {
  it('agrees with the network about every connection', async () => {
    const targets = [...pods.keys()]
    const lines = async (from: string): Promise<[string, boolean, boolean][]> => {
      const found: [string, boolean, boolean][] = []
      for (const to of targets.filter((one) => one !== from)) {
        for (const [port, protocol] of PORTS) {
          const what = `${from} to ${to} ${protocol}/${port}`
          found.push([what, explained(from, to, port, protocol), await reached(from, addressOf(to), port, protocol)])
        }
      }
      return found
    }
    const all = (await Promise.all([...targets, NODE, EXTERNAL].map(lines))).flat()
    expect(all.filter(([, says, does]) => says !== does)).toEqual([])
    const allowed = all.filter(([, says]) => says).length
    // Every kind of decision had its share.
    expect([all.length, allowed > 40, all.length - allowed > 25]).toEqual([168, true, true])
  }, 120_000)

  it('agrees with it about every Service, by its cluster address and by node ports', async () => {
    const targets = services.flatMap(({ metadata, spec }) => {
      const name = `${metadata?.namespace}/svc/${metadata?.name}`
      const address = spec?.clusterIPs?.[0] ?? spec?.clusterIP ?? ''
      const node = LAB_ADDRESSES.node[0]
      const nodePorts = (spec?.ports ?? []).flatMap(({ nodePort }) =>
        nodePort === undefined ? [] : [String(nodePort)],
      )
      return [
        [name, address, '80', 'TCP'] as const,
        [name, address, '53', 'UDP'] as const,
        ...nodePorts.map((port) => [node, node, port, 'TCP'] as const),
      ]
    })
    const lines = async (from: string): Promise<[string, boolean, boolean][]> => {
      const found: [string, boolean, boolean][] = []
      for (const [to, address, port, protocol] of targets) {
        const what = `${from} to ${to} ${protocol}/${port}`
        found.push([what, explained(from, to, port, protocol), await reached(from, address, port, protocol)])
      }
      return found
    }
    const all = (await Promise.all([...pods.keys()].map(lines))).flat()
    expect(all.filter(([, says, does]) => says !== does)).toEqual([])
    const allowed = all.filter(([, says]) => says).length
    expect([all.length, allowed > 40, all.length - allowed > 12]).toEqual([91, true, true])
  }, 120_000)
})
