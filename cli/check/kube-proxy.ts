import type { V1ConfigMap, V1Node, V1Pod } from '@kubernetes/client-node'
import { parse } from 'yaml'
import type { ApiClient } from '../../kubernetes/client.ts'
import { type KubeProxyFacts, known, type Seen, seen, unseen } from './facts.ts'
import { lookAt, lookThrough } from './look.ts'

const SYSTEM = '/api/v1/namespaces/kube-system'
/** kubeadm and kind; EKS. */
const CONFIG_MAPS = ['kube-proxy', 'kube-proxy-config']
/** DaemonSets; GKE's static Pods. */
const POD_LABELS = ['k8s-app=kube-proxy', 'component=kube-proxy']
/** k3s and RKE2 run kube-proxy in their own process, and write their arguments here. */
const NODE_ARGUMENTS = ['k3s.io/node-args', 'rke2.io/node-args']

/** What is configured for kube-proxy, wherever the usual installers keep it. */
export async function gatherKubeProxy(
  client: ApiClient,
  nodes: Seen<readonly V1Node[]>,
): Promise<Seen<KubeProxyFacts>> {
  const configMaps = await Promise.all(
    CONFIG_MAPS.map((name) => lookAt<V1ConfigMap>(client, `${SYSTEM}/configmaps/${name}`)),
  )
  for (const configMap of configMaps) {
    const found = readConfigMap(known(configMap))
    if (found !== undefined) return seen(found)
  }
  const pods = await Promise.all(
    POD_LABELS.map((labelSelector) => lookThrough<V1Pod>(client, `${SYSTEM}/pods`, { labelSelector })),
  )
  const found = readPods(pods.flatMap((list) => known(list) ?? [])) ?? readNodes(known(nodes) ?? [])
  if (found !== undefined) return seen(found)
  const reasons = [...configMaps, ...pods].flatMap((fact) => (fact.seen ? [] : [fact.reason]))
  return unseen(reasons[0] ?? 'nothing in kube-system says how kube-proxy is configured')
}

/** The first KubeProxyConfiguration in a ConfigMap. */
export function readConfigMap(configMap: V1ConfigMap | undefined): KubeProxyFacts | undefined {
  for (const text of Object.values(configMap?.data ?? {})) {
    const fields = parseConfiguration(text)
    if (fields === undefined) continue
    const { mode, clusterCIDR, detectLocalMode } = fields
    const section = fields[mode === 'nftables' || mode === 'ipvs' ? mode : 'iptables'] as Fields | null | undefined
    // ipvs takes its masqueradeAll from the iptables section.
    const masqueradeAll = section?.masqueradeAll ?? (fields.iptables as Fields | null | undefined)?.masqueradeAll
    const byCidr = detectLocalMode === undefined || detectLocalMode === '' || detectLocalMode === 'ClusterCIDR'
    return {
      source: `ConfigMap kube-system/${configMap?.metadata?.name}`,
      masqueradeAll: masqueradeAll === true,
      clusterCidrs: byCidr ? splitCidrs(clusterCIDR) : [],
    }
  }
  return undefined
}

type Fields = Readonly<Record<string, unknown>>

function parseConfiguration(text: string): Fields | undefined {
  try {
    const value: unknown = parse(text)
    const fields = typeof value === 'object' && value !== null ? (value as Fields) : {}
    return fields.kind === 'KubeProxyConfiguration' ? fields : undefined
  } catch {
    // Beside its configuration the ConfigMap may hold anything.
    return undefined
  }
}

function splitCidrs(value: unknown): readonly string[] {
  return typeof value === 'string' && value !== '' ? value.split(',').map((cidr) => cidr.trim()) : []
}

/** The flags of kube-proxy's containers; undefined where they name a configuration file, which cannot be seen. */
export function readPods(pods: readonly V1Pod[]): KubeProxyFacts | undefined {
  for (const { metadata, spec } of pods) {
    const words = (spec?.containers ?? []).flatMap(({ command = [], args = [] }) => [...command, ...args])
    // A shell's command is one word with all of them.
    const flags = words.flatMap((word) => word.split(/\s+/))
    if (flags.some((flag) => flag.startsWith('--config'))) continue
    if (!flags.some((flag) => flag.startsWith('--'))) continue
    return { source: `Pod kube-system/${metadata?.name}`, ...readFlags(flags) }
  }
  return undefined
}

function readFlags(flags: readonly string[]): Pick<KubeProxyFacts, 'masqueradeAll' | 'clusterCidrs'> {
  const valueOfFlag = (name: string) => {
    const index = flags.findIndex((flag) => flag === `--${name}` || flag.startsWith(`--${name}=`))
    if (index < 0) return undefined
    const [, inline] = (flags[index] ?? '').split('=', 2)
    return inline ?? (flags[index + 1]?.startsWith('--') === false ? flags[index + 1] : 'true')
  }
  const byCidr = (valueOfFlag('detect-local-mode') ?? 'ClusterCIDR') === 'ClusterCIDR'
  return {
    masqueradeAll: valueOfFlag('masquerade-all') === 'true',
    clusterCidrs: byCidr ? splitCidrs(valueOfFlag('cluster-cidr')) : [],
  }
}

/** k3s' own arguments, on its nodes: what they do not say is its default, which does not masquerade. */
export function readNodes(nodes: readonly V1Node[]): KubeProxyFacts | undefined {
  const texts = nodes.flatMap(({ metadata }) => NODE_ARGUMENTS.map((name) => metadata?.annotations?.[name] ?? ''))
  const found = texts.filter((text) => text !== '')
  if (found.length === 0) return undefined
  const masqueradeAll = found.some((text) => /--kube-proxy-arg"?[=,]\s*"?(--)?masquerade-all(=true)?"/.test(text))
  return { source: `the arguments on ${found.length} nodes`, masqueradeAll, clusterCidrs: [] }
}
