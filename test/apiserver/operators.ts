/** Somebody who may rotate keys, as the manifests allow it, and the commands that they have. */
import { execFile, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseAllDocuments } from 'yaml'
import type { ControlPlane } from './control-plane.ts'
import { SYSTEM } from './permissions.ts'
import { writeKubeconfig } from './users.ts'

const CHECKOUT = resolve(import.meta.dirname, '..', '..')
const RBAC = 'rbac.authorization.k8s.io'

/** A kubeconfig of somebody without any right. */
export async function makeStranger(control: ControlPlane, name: string): Promise<string> {
  const body = { metadata: { name } }
  await control.admin.send({ method: 'POST', path: '/api/v1/namespaces/default/serviceaccounts', body })
  return writeKubeconfig(control, { account: { namespace: 'default', name } })
}

/** Installs what manifests/base/rotation.yaml has, and resolves with the kubeconfig of an operator. */
export async function makeOperator(control: ControlPlane): Promise<string> {
  const post = (path: string, body: unknown) => control.admin.send({ method: 'POST', path, body })
  const documents = parseAllDocuments(readFileSync(join(CHECKOUT, 'manifests', 'base', 'rotation.yaml'), 'utf8'))
  for (const document of documents) {
    const { kind, metadata, ...fields } = document.toJS() as { kind: string; metadata: Record<string, unknown> }
    if (kind === 'ClusterRole') await post(`/apis/${RBAC}/v1/clusterroles`, { ...fields, metadata })
    else
      await post(`/api/v1/namespaces/${SYSTEM}/configmaps`, { ...fields, metadata: { ...metadata, namespace: SYSTEM } })
  }
  await post(`/apis/${RBAC}/v1/namespaces/${SYSTEM}/rolebindings`, {
    metadata: { name: 'synguard-operators' },
    roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: 'synguard-operator' },
    subjects: [{ kind: 'ServiceAccount', namespace: 'default', name: 'operator' }],
  })
  return makeStranger(control, 'operator')
}

export interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** `synguard certs` as a process of its own. */
export function startCerts(args: readonly string[], kubeconfig: string) {
  const main = join(CHECKOUT, 'cli', 'main.ts')
  const all = ['--no-warnings', main, 'certs', ...args, '--kubeconfig', kubeconfig, '-n', SYSTEM]
  return spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 })
}

export function runCerts(args: readonly string[], kubeconfig: string): Promise<Ran> {
  const child = startCerts(args, kubeconfig)
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  return new Promise((done) => child.once('close', (status) => done({ status, stdout, stderr })))
}

/** In Synguard's namespace. */
export function runKubectl(control: ControlPlane, args: readonly string[], kubeconfig: string): Promise<Ran> {
  const all = ['--kubeconfig', kubeconfig, '-n', SYSTEM, ...args]
  return new Promise((done) => {
    execFile(control.kubectlPath, all, { encoding: 'utf8', timeout: 120_000 }, (error, stdout, stderr) => {
      done({ status: error === null ? 0 : Number(error.code), stdout, stderr })
    })
  })
}
