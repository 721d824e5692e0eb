/** Synguard in the cluster: installed as docs/install.md says. */
import { resolve } from 'node:path'
import { kubectl, tryKubectl, until } from './kubectl.ts'

const CHECKOUT = resolve(import.meta.dirname, '..', '..')
export const KUSTOMIZATION = resolve(CHECKOUT, process.env.SYNGUARD_KUSTOMIZATION ?? 'manifests/overlays/test')
export const SYSTEM = 'synguard'
/** Whether the node is the tests' own, whose processes they may stop. */
export const OWNS_NODE = process.env.SYNGUARD_OWN_NODE === '1'

/** Resolves once both replicas are ready. */
export async function install(kustomization = KUSTOMIZATION): Promise<void> {
  await kubectl('apply', '-k', kustomization)
  await kubectl('-n', SYSTEM, 'rollout', 'status', 'deployment/synguard-webhook', '--timeout=120s')
}

/** Resolves once all of it is gone. */
export async function uninstall(kustomization = KUSTOMIZATION): Promise<void> {
  await kubectl('delete', '-k', kustomization, '--ignore-not-found', '--timeout=150s')
}

/** Every object of any kind that has to do with Synguard: its name, or a label of ours, says so. */
export async function listOurs(): Promise<string[]> {
  const kinds = (await kubectl('api-resources', '--verbs=list', '-o', 'name')).trim().split('\n')
  const { stdout } = await tryKubectl([
    'get',
    // Events tell of what was, for an hour; a resource that is only computed cannot be left behind.
    kinds.filter((kind) => !/^(events|componentstatuses)\b/.test(kind)).join(','),
    '-A',
    '-o',
    'custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,LABELS:.metadata.labels',
    '--no-headers',
  ])
  return stdout.split('\n').filter((line) => /synguard/.test(line.replace(/synguard\.io\/inject:enabled/g, '')))
}

/** Removes namespaces that a test made, and whatever of Synguard is left. */
export async function cleanUp(namespaces: readonly string[]): Promise<void> {
  await uninstall()
  await kubectl('delete', 'namespace', ...namespaces, '--ignore-not-found', '--timeout=150s')
}

/** The webhook's own log, of all replicas that are there. */
export function readWebhookLog(): Promise<string> {
  return kubectl('-n', SYSTEM, 'logs', '-l', 'app.kubernetes.io/name=synguard-webhook', '--tail=-1')
}

/** Resolves once the namespace has what its sidecars need. */
export async function awaitGuarded(namespace: string): Promise<void> {
  await until(`what sidecars need in ${namespace}`, async () => {
    await kubectl('-n', namespace, 'get', 'configmap/synguard-ca', 'rolebinding/synguard-policy-reader')
    return true
  })
}
