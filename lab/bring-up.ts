import type { V1Namespace, V1Pod } from '@kubernetes/client-node'
import { inject } from '../webhook/admission/inject.ts'
import { parsePod } from '../webhook/admission/pod.ts'
import type { InjectionSettings } from '../webhook/admission/settings.ts'
import { LabError } from './errors.ts'
import type { Lab } from './lab.ts'
import type { Manifests } from './manifests.ts'
import { createAddressPool } from './network.ts'

/** Pods that start at once: each costs CPU, and one that starves misses its probe. */
const PARALLEL_STARTS = 4

/** The addresses that manifests fix for Pods, each as a network of its own: sidecars must take them for the cluster's. */
export function fixedNetworks(pods: readonly V1Pod[]): string[] {
  const addresses = pods.flatMap((pod) => (pod.status?.podIPs ?? []).map(({ ip }) => ip))
  return addresses.map((address) => `${address}/${address.includes(':') ? 128 : 32}`)
}

/** The Pods with their addresses in status: the manifest's own, else the next of the pool in the order given. */
export function assignAddresses(pods: readonly V1Pod[]): V1Pod[] {
  const pool = createAddressPool()
  const fixedOf = (pod: V1Pod) => (pod.status?.podIPs ?? []).map(({ ip }) => ip)
  // Fixed ones first, so that none of them is given away.
  const taken = new Map(pods.filter((pod) => fixedOf(pod).length > 0).map((pod) => [pod, pool.take(fixedOf(pod))]))
  return pods.map((pod) => {
    const addresses = taken.get(pod) ?? pool.take()
    return { ...pod, status: { podIP: addresses[0] ?? '', podIPs: addresses.map((ip) => ({ ip })) } }
  })
}

/** The Pods as the webhook would make them, decided here without one; throws `lab-admission`. */
export function admitPurely(
  pods: readonly V1Pod[],
  namespaces: readonly V1Namespace[],
  settings: InjectionSettings,
): V1Pod[] {
  const byName = new Map(namespaces.map((namespace) => [namespace.metadata?.name, namespace.metadata]))
  return pods.map((pod) => {
    const name = pod.metadata?.namespace ?? ''
    const { labels = {}, annotations = {} } = byName.get(name) ?? {}
    const injection = inject(parsePod(pod), { name, labels, annotations }, settings)
    if (injection.kind === 'refused') {
      throw new LabError('lab-admission', `Pod ${name}/${pod.metadata?.name} is refused: ${injection.reason}`)
    }
    return injection.pod
  })
}

/** Brings the manifests up in a lab, Pods last; answers the Pods as they run, in the manifests' order. */
export async function bringUp(lab: Lab, manifests: Manifests): Promise<V1Pod[]> {
  for (const namespace of manifests.namespaces) await lab.putNamespace(namespace)
  for (const { policy, object } of manifests.policies) lab.putPolicy(policy.namespace, policy.name, object)
  for (const service of manifests.services) await lab.putService(service)
  // All are admitted before any is started: a refusal is told at once.
  const admitted: V1Pod[] = []
  for (const pod of assignAddresses(manifests.pods)) admitted.push(await lab.admitPod(pod))
  const running: V1Pod[] = new Array(admitted.length)
  const queue = [...admitted.entries()]
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      running[next[0]] = (await lab.runPod(next[1])).pod
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_STARTS }, work))
  return running
}

/** Policies that nobody enforces, a line each: their namespace is not labelled. */
export function findUnenforced(
  manifests: Manifests,
  pods: readonly V1Pod[],
  isGuarded: (pod: V1Pod) => boolean,
): string[] {
  const guarded = new Set(pods.filter(isGuarded).map((pod) => pod.metadata?.namespace))
  return manifests.policies
    .filter(({ policy }) => !guarded.has(policy.namespace))
    .map(
      ({ policy }) =>
        `NetworkPolicy ${policy.namespace}/${policy.name}: no Pod of ${policy.namespace} is guarded, so nobody enforces it`,
    )
}
