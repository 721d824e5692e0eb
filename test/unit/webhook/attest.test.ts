import { describe, expect, it } from '@jest/globals'
import { isGuarded } from '../../../webhook/admission/pod.ts'
import type { Cluster } from '../../../webhook/cluster.ts'
import { attestPod } from '../../../webhook/issuer/attest.ts'
import { createMemoryCluster } from '../../../webhook/memory-cluster.ts'
import { guardedPod, INJECTION, NAMESPACE_LABELS, namespace } from './fixtures.ts'

const now = () => 1_800_000_000
const TOKEN = { namespace: 'shop', serviceAccount: 'web', podName: 'web', podUid: 'uid-web', nodeName: 'node-1' }

/** The cluster, of which our watch has not shown the latest yet. */
function createBehind() {
  const cluster = createMemoryCluster({ now })
  const seen = createMemoryCluster({ now })
  for (const one of [cluster, seen]) {
    one.put('Namespace', namespace())
    one.put('Pod', guardedPod())
  }
  const behind = { ...cluster, get: seen.get } as Cluster
  const attest = () =>
    attestPod(
      { cluster: behind, namespaceLabel: INJECTION.namespaceLabel, isGuarded, now, waitMs: 10 },
      TOKEN,
      '127.0.0.1',
    )
  return { cluster, attest }
}

describe('a Pod that asks for its identity while our watch is behind', () => {
  it('is attested with the labels that it and its namespace have now', async () => {
    const { cluster, attest } = createBehind()
    cluster.put('Pod', guardedPod({ labels: { app: 'new' } }))
    cluster.put('Namespace', namespace('shop', { ...NAMESPACE_LABELS, team: 'new' }))
    const attested = await attest()
    expect([attested.pod.metadata?.labels, attested.namespace.metadata?.labels]).toEqual([
      { app: 'new' },
      { ...NAMESPACE_LABELS, team: 'new' },
    ])
  })

  it.each([
    ['pod-unknown', (cluster: ReturnType<typeof createMemoryCluster>) => cluster.delete('Pod', 'web', 'shop')],
    ['pod-unknown', (cluster) => cluster.put('Pod', guardedPod({ uid: 'another' }))],
    ['pod-deleted', (cluster) => cluster.put('Pod', guardedPod({ phase: 'Failed' }))],
    ['namespace-not-guarded', (cluster) => cluster.put('Namespace', namespace('shop', {}))],
    ['address-mismatch', (cluster) => cluster.put('Pod', guardedPod({ addresses: ['10.244.0.9'] }))],
    ['cluster-unavailable', (cluster) => cluster.setAvailable(false)],
  ] satisfies [string, (cluster: ReturnType<typeof createMemoryCluster>) => void][])(
    'is refused with %s by what stands now: %#',
    async (code, change) => {
      const { cluster, attest } = createBehind()
      change(cluster)
      await expect(attest()).rejects.toMatchObject({ code })
    },
  )
})
