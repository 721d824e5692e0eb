/** A small cluster for `synguard explain`, and what it answers there. */
import type { V1EndpointSlice, V1Namespace, V1Node, V1Pod, V1Service } from '@kubernetes/client-node'
import { type Answer, judgeWays } from '../../../../cli/explain/answer.ts'
import { parseQuery } from '../../../../cli/explain/query.ts'
import type { Rules } from '../../../../cli/explain/rules.ts'
import { findSource, findWays } from '../../../../cli/explain/ways.ts'
import { parseNetworkPolicy } from '../../../../policy/parse.ts'
import { isGuarded } from '../../../../webhook/admission/pod.ts'
import { createDirectory } from '../../../../webhook/directory/directory.ts'
import { createMemoryCluster } from '../../../../webhook/memory-cluster.ts'
import { guardedPod, NAMESPACE_LABELS, type PodChanges, plainPod } from '../../webhook/fixtures.ts'

export const NODE = '10.0.0.1'
export const OTHER_NODE = '10.0.0.2'
const SIDECAR_READY = { initContainerStatuses: [{ name: 'synguard-sidecar', ready: true }] }

/** As a kubelet on the first node shows it. */
export function running(pod: V1Pod, node = NODE): V1Pod {
  return { ...pod, status: { ...pod.status, ...SIDECAR_READY, hostIPs: [{ ip: node }] } } as V1Pod
}
export const guarded = (name: string, address: string, changes: PodChanges = {}, node = NODE) =>
  running(guardedPod({ name, addresses: [address], labels: { app: name }, ...changes }), node)
export const unguarded = (name: string, address: string, changes: PodChanges = {}) =>
  running(plainPod({ name, addresses: [address], labels: { app: name }, ...changes }))

export const CLIENT = guarded('client', '10.244.0.2')
export const WEB = guarded('web', '10.244.0.3')
export const PLAIN = unguarded('plain', '10.244.0.4')
export const HOST = unguarded('host', NODE, { hostNetwork: true })

export interface Stage {
  readonly pods?: readonly V1Pod[]
  readonly services?: readonly V1Service[]
  readonly slices?: readonly V1EndpointSlice[]
  readonly annotations?: Record<string, string>
  readonly policies?: readonly object[]
  readonly modes?: Rules['modes']
  readonly voids?: Rules['voids']
}

export function answerTo(stage: Stage, from: string, to: string, port: string, protocol = 'TCP'): Answer {
  const cluster = createMemoryCluster({ now: () => 0 })
  const { annotations = {} } = stage
  const namespace: V1Namespace = { metadata: { name: 'shop', labels: NAMESPACE_LABELS, annotations } }
  cluster.put('Namespace', namespace)
  for (const [name, address] of [
    ['node-1', NODE],
    ['node-2', OTHER_NODE],
  ] as const) {
    cluster.put('Node', { metadata: { name }, status: { addresses: [{ type: 'InternalIP', address }] } } as V1Node)
  }
  for (const pod of stage.pods ?? [CLIENT, WEB, PLAIN, HOST]) cluster.put('Pod', pod)
  for (const service of stage.services ?? []) cluster.put('Service', service)
  for (const slice of stage.slices ?? []) cluster.put('EndpointSlice', slice)
  const objects = { cluster, directory: createDirectory({ cluster, isGuarded }), unseen: [] }
  const policies = (stage.policies ?? []).map((policy) => parseNetworkPolicy(policy, 'test'))
  const rules = { policies, modes: stage.modes ?? new Map(), voids: stage.voids ?? new Map(), notes: [] }
  const query = parseQuery({ from, to, port, protocol })
  const source = findSource(objects, query)
  return judgeWays(objects, rules, query, source, findWays(objects, query, source))
}

let serial = 0
/** Names of policies begin anew. */
export function resetNames(): void {
  serial = 0
}

export const policy = (spec: object) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { namespace: 'shop', name: `p${++serial}` },
  spec,
})
export const ofApp = (app: string) => ({ matchLabels: { app } })
export const admit = (app: string, ...from: readonly object[]) =>
  policy({ podSelector: ofApp(app), ingress: from.length === 0 ? [] : [{ from }] })
export const admitEgress = (app: string, ...to: readonly object[]) =>
  policy({ podSelector: ofApp(app), policyTypes: ['Egress'], egress: to.length === 0 ? [] : [{ to }] })
export const labelled = (app: string) => ({ podSelector: ofApp(app) })
export const block = (cidr: string) => ({ ipBlock: { cidr } })

export function service(name: string, changes: Partial<V1Service['spec']> = {}): V1Service {
  return {
    metadata: { name, namespace: 'shop' },
    spec: { clusterIPs: ['10.96.0.10'], selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }], ...changes },
  }
}
