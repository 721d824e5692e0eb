/** Kubernetes objects of the tests' labs: namespaces, Pods that only lend their network, policies. */
import type { V1Pod } from '@kubernetes/client-node'
import { createLab, type Lab, type LabOptions } from '../../lab/lab.ts'
import type { RunningPod } from '../../lab/pod.ts'

/** Makes the namespaces `guarded`, whose Pods get a sidecar, and `plain`, whose Pods get none. */
export async function putNamespaces(lab: Lab): Promise<void> {
  await lab.putNamespace({ metadata: { name: 'guarded', labels: { 'synguard.io/inject': 'enabled' } } })
  await lab.putNamespace({ metadata: { name: 'plain', labels: {} } })
}

/** A lab with both. Its sidecars run from the bundle that the run of the tests made (test/set-up.js), where it made one. */
export async function createTestLab(options: LabOptions = {}): Promise<Lab> {
  const bundle = process.env.SYNGUARD_TEST_BUNDLE
  const lab = await createLab({ ...(bundle !== undefined && { bundle }), ...options })
  await putNamespaces(lab)
  return lab
}

/** A Pod whose one container, `app`, does nothing: programs are run in its network from outside. */
export function idlePod(namespace: string, name: string, labels: Readonly<Record<string, string>>): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace, name, labels: { ...labels } },
    spec: { containers: [{ name: 'app', image: 'app', command: ['sleep', 'infinity'] }] },
  }
}

/** Runs such a Pod until it is ready. */
export async function runIdlePod(
  lab: Lab,
  namespace: string,
  name: string,
  labels: Readonly<Record<string, string>> = { app: name },
): Promise<RunningPod> {
  return await lab.runPod(await lab.admitPod(idlePod(namespace, name, labels)))
}

/** Writes a NetworkPolicy of the namespace `guarded`. */
export function putPolicy(lab: Lab, name: string, spec: object): void {
  lab.putPolicy('guarded', name, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: 'guarded' },
    spec,
  })
}

/** Writes a policy that lets the Pods with these `app` labels reach those with `app: server`, and nobody else. */
export function allowOnly(lab: Lab, apps: readonly string[], server = 'server'): void {
  putPolicy(lab, server, {
    podSelector: { matchLabels: { app: server } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: apps }] } }] }],
  })
}

/** The Pod's address of this family. */
export function addressOf(pod: RunningPod, family: 4 | 6 = 4): string {
  return pod.network.addresses.find((address) => address.includes(':') === (family === 6)) ?? ''
}
