import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import type { ControlPlane } from './control-plane.ts'

interface Kubeconfig {
  clusters: { cluster: { server: string; 'certificate-authority': string } }[]
  users: { user: Record<string, unknown> }[]
}

let serial = 0

/** The file with the CA of the API server's certificate. */
export function caPathOf(control: ControlPlane): string {
  const config = parse(readFileSync(control.kubeconfigPath, 'utf8')) as Kubeconfig
  return config.clusters[0]?.cluster['certificate-authority'] ?? ''
}

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
  if (account !== undefined) user.user = { token: await requestToken(control, account) }
  const path = join(control.statePath, 'conf', `test-${++serial}.kubeconfig`)
  writeFileSync(path, stringify(config), { mode: 0o600 })
  return path
}

async function requestToken({ admin }: ControlPlane, account: { namespace: string; name: string }): Promise<string> {
  const { status } = await admin.send<{ status: { token: string } }>({
    method: 'POST',
    path: `/api/v1/namespaces/${account.namespace}/serviceaccounts/${account.name}/token`,
    body: { spec: { expirationSeconds: 3_600 } },
  })
  return status.token
}

/** A folder with what a kubelet mounts for that service account: token, CA and namespace. */
export async function writeServiceAccount(
  control: ControlPlane,
  account: { namespace: string; name: string },
): Promise<string> {
  const folder = join(control.statePath, 'conf', `account-${++serial}`)
  mkdirSync(folder, { mode: 0o700 })
  copyFileSync(caPathOf(control), join(folder, 'ca.crt'))
  writeFileSync(join(folder, 'token'), await requestToken(control, account), { mode: 0o600 })
  writeFileSync(join(folder, 'namespace'), account.namespace)
  return folder
}
