/** `synguard audit` and `synguard flows` at a real API server: whom they ask, and what they say where nobody answers. */
import { execFile } from 'node:child_process'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import type { Audit } from '../../cli/reports/audit.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { createNamespace, pathOf } from './stage.ts'
import { writeKubeconfig } from './users.ts'

const CHECKOUT = resolve(import.meta.dirname, '..', '..')
const RBAC = 'rbac.authorization.k8s.io'
const SHOP = 'shop'

let control: ControlPlane
/** Kubeconfigs: of somebody who may do what --help says, of somebody who may only look, and of somebody who may do nothing. */
let operator: string
let viewer: string
let stranger: string

const post = (path: string, body: unknown) => control.admin.send({ method: 'POST', path, body })

async function account(name: string, rules: readonly object[]): Promise<string> {
  await post('/api/v1/namespaces/default/serviceaccounts', { metadata: { name } })
  await post(`/apis/${RBAC}/v1/namespaces/${SHOP}/roles`, { metadata: { name }, rules })
  await post(`/apis/${RBAC}/v1/namespaces/${SHOP}/rolebindings`, {
    metadata: { name },
    roleRef: { apiGroup: RBAC, kind: 'Role', name },
    subjects: [{ kind: 'ServiceAccount', namespace: 'default', name }],
  })
  return writeKubeconfig(control, { account: { namespace: 'default', name } })
}

/** A Pod as the kubelet of a node shows it that nobody reaches. */
async function runPod(name: string, guarded: boolean, phase = 'Running'): Promise<void> {
  const sidecar = { name: 'synguard-sidecar', image: 'sidecar:1', restartPolicy: 'Always' }
  const init = { name: 'synguard-init', image: 'sidecar:1' }
  const spec = {
    nodeName: 'node-1',
    containers: [{ name: 'app', image: 'app:1' }],
    ...(guarded && { initContainers: [init, sidecar] }),
  }
  await post(pathOf('Pod', SHOP), { metadata: { name }, spec } satisfies Pick<V1Pod, 'metadata' | 'spec'>)
  const path = `${pathOf('Pod', SHOP)}/${name}/status`
  const contentType = 'application/merge-patch+json'
  await control.admin.send({ method: 'PATCH', path, contentType, body: { status: { phase } } })
}

function synguard(parameters: readonly string[], kubeconfig: string) {
  const all = ['--no-warnings', join(CHECKOUT, 'cli', 'main.ts'), ...parameters, '--kubeconfig', kubeconfig]
  return new Promise<{ status: number | null; stdout: string; stderr: string }>((done) => {
    const child = execFile(process.execPath, all, { timeout: 60_000 }, (_, stdout, stderr) =>
      done({ status: child.exitCode, stdout, stderr }),
    )
  })
}

beforeAll(async () => {
  control = await startControlPlane()
  await createNamespace(control.admin, SHOP)
  const look = { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list'] }
  const forward = { apiGroups: [''], resources: ['pods/portforward'], verbs: ['get', 'create'] }
  operator = await account('operator', [look, forward])
  viewer = await account('viewer', [look])
  stranger = await account('stranger', [])
  await runPod('web', true)
  await runPod('plain', false)
  await runPod('over', true, 'Succeeded')
  await runPod('waits', true, 'Pending')
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => await control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

describe('synguard audit', () => {
  it('asks the Pods that have a sidecar and are not over, and names each that does not answer', async () => {
    const { status, stdout } = await synguard(['audit', SHOP, '--json'], operator)
    const { result, groups, read, unread } = JSON.parse(stdout) as Audit
    expect({ status, result, groups, read }).toEqual({ status: 3, result: 'unknown', groups: [], read: 0 })
    expect(unread).toEqual([
      { pod: 'shop/waits', reason: 'it is Pending' },
      { pod: 'shop/web', reason: expect.stringMatching(/^port-forward to Pod web was refused: /) },
    ])
    // The API server let it through to a kubelet that is not there.
    expect(unread[1]?.reason).not.toContain('you may not')
  }, 90_000)

  it('names the right that is missing', async () => {
    const { status, stdout } = await synguard(['audit', SHOP], viewer)
    expect(status).toBe(3)
    expect(stdout).toContain(
      'not read: shop/web: port-forward to Pod web was refused: you may not create pods/portforward',
    )
    expect(await synguard(['audit', SHOP], stranger)).toEqual({
      status: 2,
      stdout: '',
      stderr:
        'synguard: the Pods of shop cannot be seen: you may not list pods in the namespace shop [report-unseen]\n',
    })
  }, 90_000)

  it('says where no Pod has a sidecar', async () => {
    const { status, stderr } = await synguard(['audit', 'default'], control.kubeconfigPath)
    expect([status, stderr]).toEqual([2, expect.stringContaining('no Pod in default has a sidecar')])
  }, 90_000)
})

describe('synguard flows', () => {
  it.each([
    ['of no such Pod', 'nobody', 2, 'there is no Pod shop/nobody'],
    ['of a Pod without a sidecar', 'plain', 2, 'Pod shop/plain has no sidecar'],
    ['of a Pod that waits', 'waits', 1, 'shop/waits could not be read: it is Pending'],
    ['of a Pod whose kubelet is away', 'web', 1, 'shop/web could not be read: port-forward to Pod web was refused'],
  ] as const)(
    'says why it cannot tell: %s',
    async (_what, name, expected, message) => {
      const { status, stdout, stderr } = await synguard(['flows', `${SHOP}/${name}`], operator)
      expect([status, stdout]).toEqual([expected, ''])
      expect(stderr).toContain(message)
    },
    90_000,
  )

  it('names the right that is missing', async () => {
    expect((await synguard(['flows', `${SHOP}/web`], viewer)).stderr).toContain('you may not create pods/portforward')
    const { status, stderr } = await synguard(['flows', `${SHOP}/web`], stranger)
    expect([status, stderr]).toEqual([2, expect.stringContaining('you may not get pods')])
  }, 90_000)
})
