import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import type { ControlPlane } from './control-plane.ts'

interface Kubeconfig {
  clusters: { cluster: { server: string } }[]
  users: { user: Record<string, unknown> }[]
}

let serial = 0

/** A kubeconfig for that service account (an administrator without one), at that port. */
export async function writeKubeconfig(
  control: ControlPlane,
  { account, port = control.port }: { account?: { namespace: string; name: string }; port?: number },
): Promise<string> {
  const config = parse(readFileSync(control.kubeconfigPath, 'utf8')) as Kubeconfig
  const [cluster] = config.clusters
  const [user] = config.users
  if (cluster === undefined || user === undefined) throw new Error('the kubeconfig is empty')
  cluster.cluster.server = `https://127.0.0.1:${port}`
  if (account !== undefined) {
    const { status } = await control.admin.send<{ status: { token: string } }>({
      method: 'POST',
      path: `/api/v1/namespaces/${account.namespace}/serviceaccounts/${account.name}/token`,
      body: { spec: { expirationSeconds: 3_600 } },
    })
    user.user = { token: status.token }
  }
  const path = join(control.statePath, 'conf', `test-${++serial}.kubeconfig`)
  writeFileSync(path, stringify(config), { mode: 0o600 })
  return path
}
