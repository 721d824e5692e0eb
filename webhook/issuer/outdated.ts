import type { V1Namespace, V1Pod, V1PodSpec } from '@kubernetes/client-node'
import type { Labels } from '../../api/identity.ts'
import { isSelected } from '../admission/inject.ts'
import type { Cluster } from '../cluster.ts'
import { isLive } from '../directory/pod-identity.ts'
import type { WebhookSettings } from '../settings.ts'
import type { VoidList } from './voids.ts'

/**
 * Overrides the labels of WITs that are out once the labels of their Pod or namespace change: until the Pod has renewed,
 * peers judge it by what it is now. Also where labels are added: an expression may select what has not a label.
 * Returns what ends the watching.
 */
export function voidRelabelled(options: {
  cluster: Cluster
  voids: VoidList
  namespaceLabel: WebhookSettings['namespaceLabel']
  isGuarded: (spec: V1PodSpec) => boolean
  /** Seconds since the epoch. */
  now: () => number
}): () => void {
  const { cluster, voids, namespaceLabel, isGuarded, now } = options

  function override(pod: V1Pod, namespace: V1Namespace): void {
    const uid = pod.metadata?.uid
    if (uid === undefined || pod.spec === undefined || !isGuarded(pod.spec) || !isLive(pod)) return
    const labels = { ...pod.metadata?.labels }
    voids.add({ uid, iatBefore: now(), labels, namespaceLabels: { ...namespace.metadata?.labels } })
  }

  return cluster.subscribe((change) => {
    const { kind, before, after } = change
    if (before === undefined || after === undefined) return
    if (sameLabels(before.metadata?.labels, after.metadata?.labels)) return
    if (kind === 'Pod') {
      // A Pod made anew under the old name has WITs of its own.
      if (before.metadata?.uid !== after.metadata?.uid) return
      const namespace = cluster.get('Namespace', after.metadata?.namespace ?? '')
      if (namespace !== undefined && isSelected(namespace.metadata?.labels ?? {}, namespaceLabel))
        override(after, namespace)
    } else if (kind === 'Namespace') {
      for (const pod of cluster.list('Pod')) {
        if (pod.metadata?.namespace === after.metadata?.name) override(pod, after)
      }
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
