/** The rules of webhook/cluster.ts, which every implementation of it passes. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import type { ClusterChange } from '../../webhook/cluster.ts'
import { type Stage, until } from './stage.ts'

let serial = 0

function pod(namespace: string, name: string, labels: Record<string, string> = {}): V1Pod {
  return {
    metadata: { name, namespace, labels },
    spec: { nodeName: 'node-1', serviceAccountName: 'default', containers: [{ name: 'app', image: 'app:1' }] },
    status: { phase: 'Running', podIPs: [{ ip: '10.244.1.1' }] },
  }
}

/** What a change says of Pods of that namespace, in short. */
function podChanges(changes: readonly ClusterChange[], namespace: string) {
  return changes.flatMap(({ kind, before, after }) => {
    if (kind !== 'Pod' || (after ?? before)?.metadata?.namespace !== namespace) return []
    return [[before?.metadata?.labels?.step, after?.metadata?.labels?.step]]
  })
}

export function describeCluster(name: string, createStage: () => Promise<Stage>): void {
  describe(name, () => {
    let stage: Stage
    let namespace: string
    beforeEach(async () => {
      stage = await createStage()
      namespace = `contract-${++serial}`
      await stage.put('Namespace', { metadata: { name: namespace } })
      await until('synced', () => stage.cluster.synced())
    })
    afterEach(() => stage.close())

    const seen = (podName: string) =>
      until(`Pod ${podName}`, () => stage.cluster.get('Pod', podName, namespace)?.metadata?.uid)

    it('shows an object by kind, namespace and name, and nothing under any other', async () => {
      const { cluster } = stage
      await stage.put('Pod', pod(namespace, 'web', { app: 'web' }))
      await seen('web')
      expect(cluster.get('Pod', 'web', namespace)).toMatchObject({
        metadata: { name: 'web', namespace, labels: { app: 'web' } },
        spec: { nodeName: 'node-1', serviceAccountName: 'default', containers: [{ name: 'app' }] },
      })
      expect(cluster.get('Namespace', namespace)).toMatchObject({ metadata: { name: namespace } })
      expect([
        cluster.get('Pod', 'web'),
        cluster.get('Pod', 'web', 'other'),
        cluster.get('Service', 'web', namespace),
      ]).toEqual([undefined, undefined, undefined])
      expect([...cluster.list('Pod')].filter(({ metadata }) => metadata?.namespace === namespace)).toHaveLength(1)
    })

    it('tells of each change in order, with the object before and after, once get shows it', async () => {
      const changes: ClusterChange[] = []
      const shown: unknown[] = []
      const unsubscribe = stage.cluster.subscribe((change) => {
        changes.push(change)
        if (change.kind !== 'Pod' || (change.after ?? change.before)?.metadata?.namespace !== namespace) return
        shown.push(stage.cluster.get('Pod', 'web', namespace)?.metadata?.labels?.step)
      })
      await stage.put('Pod', pod(namespace, 'web', { step: '1' }))
      await until('step 1', () => podChanges(changes, namespace).some(([, after]) => after === '1'))
      await stage.put('Pod', pod(namespace, 'web', { step: '2' }))
      await until('step 2', () => podChanges(changes, namespace).some(([, after]) => after === '2'))
      await stage.remove('Pod', 'web', namespace)
      await until('the end', () => podChanges(changes, namespace).some(([, after]) => after === undefined))
      unsubscribe()

      const steps = podChanges(changes, namespace)
      // Setting a status is a change of its own where status has its own way in.
      expect(steps.filter(([before, after]) => before !== after)).toEqual([
        [undefined, '1'],
        ['1', '2'],
        ['2', undefined],
      ])
      expect(shown).toEqual(steps.map(([, after]) => after))
      expect(stage.cluster.get('Pod', 'web', namespace)).toBeUndefined()
    })

    it('reads from the cluster itself what was accepted, seen or not', async () => {
      await stage.put('Pod', pod(namespace, 'web', { app: 'web' }))
      const { cluster } = stage
      expect((await cluster.read('Pod', 'web', namespace))?.metadata).toMatchObject({
        namespace,
        labels: { app: 'web' },
      })
      expect((await cluster.read('Namespace', namespace))?.metadata?.name).toBe(namespace)
      expect(await cluster.read('Pod', 'other', namespace)).toBeUndefined()
    })

    it('tells nobody who ended it', async () => {
      let heard = 0
      const ended = stage.cluster.subscribe(() => heard++)
      ended()
      await stage.put('Pod', pod(namespace, 'web'))
      await seen('web')
      expect(heard).toBe(0)
    })

    it('gives an object that is made anew under the same name a uid of its own', async () => {
      await stage.put('Pod', pod(namespace, 'web'))
      const first = await seen('web')
      await stage.remove('Pod', 'web', namespace)
      await stage.put('Pod', pod(namespace, 'web'))
      const second = await until('the new Pod', () => {
        const uid = stage.cluster.get('Pod', 'web', namespace)?.metadata?.uid
        return uid !== first && uid
      })
      expect(second).toMatch(/./)
    })

    it('says whom a bound token stands for, with its Pod and node', async () => {
      await stage.put('Pod', pod(namespace, 'web'))
      const podUid = await seen('web')
      const token = await stage.mintToken({ namespace, podName: 'web', audience: 'synguard' })
      expect(await stage.cluster.reviewToken(token, 'synguard')).toEqual({
        authenticated: true,
        audiences: ['synguard'],
        namespace,
        serviceAccount: 'default',
        podName: 'web',
        podUid,
        nodeName: 'node-1',
      })
    })

    it.each([
      ['of another audience', 'other', (token: string) => token],
      ['that was changed', 'synguard', (token: string) => `${token.slice(0, -8)}AAAAAAAA`],
      ['that is none', 'synguard', () => 'no-token'],
    ])('does not accept a token %s', async (_, audience, change) => {
      await stage.put('Pod', pod(namespace, 'web'))
      await seen('web')
      const token = await stage.mintToken({ namespace, podName: 'web', audience: 'synguard' })
      const review = await stage.cluster.reviewToken(change(token), audience)
      expect(review).toEqual({ authenticated: false, reason: expect.any(String) })
      expect(JSON.stringify(review)).not.toContain(token)
    })

    it('does not accept a token whose Pod is gone', async () => {
      await stage.put('Pod', pod(namespace, 'web'))
      await seen('web')
      const token = await stage.mintToken({ namespace, podName: 'web', audience: 'synguard' })
      await stage.remove('Pod', 'web', namespace)
      const { authenticated } = await until('the token to be refused', async () => {
        const review = await stage.cluster.reviewToken(token, 'synguard')
        // The API server remembers tokens for up to 10 s.
        return !review.authenticated && review
      })
      expect(authenticated).toBe(false)
    })
  })
}
