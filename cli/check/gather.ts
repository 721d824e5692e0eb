import type { V1Node } from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'
import { type Facts, type PodFacts, type Seen, unseen } from './facts.ts'
import { gatherInstallation, gatherVersion, injectionOf, labelOf } from './installation.ts'
import { gatherKubeProxy } from './kube-proxy.ts'
import { look, lookThrough } from './look.ts'
import { gatherNamespaces } from './namespaces.ts'
import type { OpenPort } from './serving.ts'

export interface GatherOptions {
  readonly client: ApiClient
  readonly openPort: OpenPort
  /** Where Synguard is; without it where the webhook configuration says. */
  readonly namespace?: string
  /** Runs Pods that find out more. */
  readonly runPods: (facts: Omit<Facts, 'pods'>) => Promise<PodFacts>
}

/**
 * Everything that the checks judge, as far as the caller's rights reach. Rejects with ApiError where the API server cannot
 * be reached or does not know the caller.
 */
export async function gatherFacts({ client, openPort, namespace, runPods }: GatherOptions): Promise<Facts> {
  const version = await gatherVersion(client)
  const [admissionResources, nodes, installation] = await Promise.all([
    gatherAdmissionResources(client),
    lookThrough<V1Node>(client, '/api/v1/nodes'),
    gatherInstallation(client, openPort, namespace),
  ])
  const [kubeProxy, namespaces] = await Promise.all([
    gatherKubeProxy(client, nodes),
    gatherNamespaces(client, labelOf(installation), injectionOf(installation)?.image),
  ])
  const cluster = { version, admissionResources, nodes, kubeProxy }
  const facts = { atMs: Date.now(), cluster, installation, namespaces }
  return { ...facts, pods: await runPods(facts) }
}

function gatherAdmissionResources(client: ApiClient): Promise<Seen<readonly string[]>> {
  const path = '/apis/admissionregistration.k8s.io/v1'
  return look(async () => {
    const { resources = [] } = await client.send<{ resources?: { name: string }[] }>({ method: 'GET', path })
    return resources.map(({ name }) => name)
  })
}

/** Where no Pods are to be run. */
export const withoutPods = async (): Promise<PodFacts> => {
  const left = unseen('--no-pods was given')
  return { kernels: left, guarded: left, paths: left }
}
