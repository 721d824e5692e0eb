import type { V1Namespace, V1Pod, V1PodSpec } from '@kubernetes/client-node'
import type { Labels } from '../../api/identity.ts'
import type { Cluster } from '../cluster.ts'
import { isLive } from '../directory/pod-identity.ts'
import type { VoidList } from './voids.ts'

/**
 * Makes voids as the cluster changes. Once the labels of a Pod or namespace change, WITs that are out stand with the new
 * ones: until the Pod has renewed, peers judge it by what it is now. Also where labels are added: an expression may
 * select what has not a label. Once a Pod is finished or gone its WITs are refused: its address may be another's soon.
 * Returns what ends the watching.
 */
export function voidOutdated(options: {
  cluster: Cluster
  voids: VoidList
  isGuarded: (spec: V1PodSpec) => boolean
  /** Seconds since the epoch. */
  now: () => number
}): () => void {
  const { cluster, voids, isGuarded, now } = options
  const hasIdentity = ({ spec }: V1Pod) => spec !== undefined && isGuarded(spec)

  function override(pod: V1Pod, namespace: V1Namespace): void {
    const uid = pod.metadata?.uid
    if (uid === undefined || !hasIdentity(pod) || !isLive(pod)) return
    const labels = { ...pod.metadata?.labels }
    voids.merge(uid, { relabelled: now() }, { labels, namespaceLabels: { ...namespace.metadata?.labels } })
  }

  function onPod(before: V1Pod, after: V1Pod | undefined): void {
    const uid = before.metadata?.uid
    // A Pod made anew under the old name has WITs of its own.
    if (after === undefined || after.metadata?.uid !== uid || !isLive(after)) {
      if (uid !== undefined && hasIdentity(before) && isLive(before)) voids.merge(uid, { ended: now() })
      return
    }
    if (sameLabels(before.metadata?.labels, after.metadata?.labels)) return
    const namespace = cluster.get('Namespace', after.metadata?.namespace ?? '')
    // Whatever the namespace says now: WITs may be out from when it was labelled.
    if (namespace !== undefined) override(after, namespace)
  }

  return cluster.subscribe((change) => {
    if (change.before === undefined) return
    if (change.kind === 'Pod') return onPod(change.before, change.after)
    const { kind, before, after } = change
    if (kind !== 'Namespace' || after === undefined || sameLabels(before.metadata?.labels, after.metadata?.labels))
      return
    for (const pod of cluster.list('Pod')) {
      if (pod.metadata?.namespace === after.metadata?.name) override(pod, after)
    }
  })
}

/** Whether two label sets say the same, in whatever order. */
export function sameLabels(one: Labels = {}, other: Labels = {}): boolean {
  const keys = Object.keys(one)
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && one[key] === other[key])
  )
}
