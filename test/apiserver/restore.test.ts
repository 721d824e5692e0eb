/** An etcd that was put back to an earlier copy: what was seen since has never happened. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import { createApiClient } from '../../kubernetes/client.ts'
import { createKubernetesCluster } from '../../webhook/kubernetes/cluster.ts'
import { loadConnection } from '../../webhook/kubernetes/connection.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { backUp } from './outage.ts'
import { createNamespace, pathOf } from './stage.ts'

let control: ControlPlane
beforeAll(async () => {
  control = await startControlPlane()
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(() => control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

const label = (name: string, step: string) =>
  control.admin.send({
    method: 'PATCH',
    path: pathOf('Namespace', undefined, name),
    contentType: 'application/merge-patch+json',
    body: { metadata: { labels: { step } } },
  })

describe('a cluster restored from a copy', () => {
  it('is listed anew: nothing stands that the copy does not have, and changes are heard again', async () => {
    const logged: { msg: string; path: string; error?: string }[] = []
    const connection = loadConnection(control.kubeconfigPath)
    const cluster = createKubernetesCluster({
      client: createApiClient(connection, { userAgent: 'synguard-test' }),
      log: pino({}, { write: (line: string) => void logged.push(JSON.parse(line)) }),
      backoff: { initialMs: 100, maxMs: 400 },
    })
    const stepOf = (name: string) => cluster.get('Namespace', name)?.metadata?.labels?.step
    cluster.start()
    try {
      await createNamespace(control.admin, 'kept', { labels: { step: '1' } })
      const restore = await backUp(control)
      await label('kept', '2')
      await createNamespace(control.admin, 'lost', { labels: { step: '1' } })
      for (let step = 0; step < 50; step++) await label('lost', String(step))
      await until('what happens after the copy', () => stepOf('kept') === '2' && stepOf('lost') === '49')
      await restore()
      await until('the namespace to be gone', () => stepOf('lost') === undefined)
      await until('the label of before', () => stepOf('kept') === '1')
      expect(logged.filter(({ msg }) => /went back/.test(msg)).map(({ path }) => path)).toContain('/api/v1/namespaces')
      await label('kept', '3')
      await until('a change', () => stepOf('kept') === '3')
    } finally {
      await cluster.stop()
      connection.close()
    }
  }, 180_000)
})
