import type { V1Pod, V1PodList } from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'
import { isSelected } from '../admission/inject.ts'
import { isGuarded } from '../admission/pod.ts'
import type { Cluster } from '../cluster.ts'
import { isLive, podAddresses } from '../directory/pod-identity.ts'
import { pathOfKind } from '../kubernetes/objects.ts'
import type { WebhookSettings } from '../settings.ts'
import type { ExpectedPods } from './store.ts'

/**
 * Of `pods` those whose sidecars take part and must have the latest keys: by uid, `NAMESPACE/POD`. Who has no address yet
 * has no identity, and gets the keys with it; on a node that is not ready nobody can answer.
 */
export function expectedPods(
  pods: Iterable<V1Pod>,
  cluster: Pick<Cluster, 'get'>,
  namespaceLabel: WebhookSettings['namespaceLabel'],
): ExpectedPods {
  const expected = new Map<string, string>()
  for (const pod of pods) {
    const { uid = '', name = '', namespace = '' } = pod.metadata ?? {}
    if (pod.spec === undefined || !isGuarded(pod.spec) || !isLive(pod) || podAddresses(pod).length === 0) continue
    const labels = cluster.get('Namespace', namespace)?.metadata?.labels
    if (labels !== undefined && !isSelected(labels, namespaceLabel)) continue
    const conditions = cluster.get('Node', pod.spec.nodeName ?? '')?.status?.conditions ?? []
    if (conditions.some(({ type, status }) => type === 'Ready' && status !== 'True')) continue
    expected.set(uid, `${namespace}/${name}`)
  }
  return expected
}

/** Pods are some 10 KB each. */
const PAGE = '500'

/** All Pods as the API server has them now, not its watch cache; rejects with ApiError. */
export async function listPods(client: ApiClient, signal: AbortSignal): Promise<V1Pod[]> {
  const pods: V1Pod[] = []
  let next: string | undefined
  do {
    const query = { limit: PAGE, ...(next !== undefined && { continue: next }) }
    const page = await client.send<V1PodList>({ method: 'GET', path: pathOfKind('Pod'), query, signal })
    pods.push(...page.items)
    next = page.metadata?._continue ?? (page.metadata as { continue?: string } | undefined)?.continue
  } while (next)
  return pods
}
