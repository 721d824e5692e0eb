import type { KubernetesObject, V1Container, V1Pod } from '@kubernetes/client-node'
import { pino } from 'pino'
import type { ApiClient } from '../../kubernetes/client.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
import type { ClusterKind } from '../../webhook/cluster.ts'
import { createKubernetesCluster, type KubernetesCluster } from '../../webhook/kubernetes/cluster.ts'
import type { Stage } from '../contract/stage.ts'

const KINDS: Readonly<Record<ClusterKind, { readonly api: string; readonly plural: string }>> = {
  Pod: { api: '/api/v1', plural: 'pods' },
  Namespace: { api: '/api/v1', plural: 'namespaces' },
  Service: { api: '/api/v1', plural: 'services' },
  EndpointSlice: { api: '/apis/discovery.k8s.io/v1', plural: 'endpointslices' },
  Node: { api: '/api/v1', plural: 'nodes' },
}

export function pathOf(kind: ClusterKind, namespace?: string, name?: string): string {
  const { api, plural } = KINDS[kind]
  const place = namespace === undefined || namespace === '' ? '' : `/namespaces/${namespace}`
  return `${api}${place}/${plural}${name === undefined ? '' : `/${name}`}`
}

/** Resolves with undefined where the API server answers that status. */
export async function unless<Answer>(status: number, answer: Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await answer
  } catch (error) {
    if (hasStatus(error, status)) return undefined
    throw error
  }
}

/** A namespace, with the service accounts that its controller would make: no controller runs here. */
export async function createNamespace(
  admin: ApiClient,
  name: string,
  metadata: { labels?: Record<string, string>; annotations?: Record<string, string> } = {},
): Promise<void> {
  const post = (path: string, body: unknown) => unless(409, admin.send({ method: 'POST', path, body }))
  await post('/api/v1/namespaces', { metadata: { ...metadata, name } })
  for (const account of ['default', 'web']) {
    await post(`/api/v1/namespaces/${name}/serviceaccounts`, { metadata: { name: account } })
  }
}

/** A token as the kubelet asks for it: for one audience, bound to a Pod. */
export async function mintToken(
  admin: ApiClient,
  { namespace, podName, audience }: { namespace: string; podName: string; audience: string },
): Promise<string> {
  const pod = await admin.send<V1Pod>({ method: 'GET', path: pathOf('Pod', namespace, podName) })
  const { status } = await admin.send<{ status: { token: string } }>({
    method: 'POST',
    path: `/api/v1/namespaces/${namespace}/serviceaccounts/${pod.spec?.serviceAccountName}/token`,
    body: {
      spec: {
        audiences: [audience],
        expirationSeconds: 3_600,
        boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: podName, uid: pod.metadata?.uid },
      },
    },
  })
  return status.token
}

/** The object as the API server wants it: what the fixtures leave out because nobody reads it. */
function completed(kind: ClusterKind, object: KubernetesObject): KubernetesObject {
  if (kind !== 'Pod') return object
  const { spec } = object as V1Pod
  const withImage = (container: V1Container) => ({ image: 'app:1', ...container })
  return {
    ...object,
    spec: {
      ...spec,
      containers: spec?.containers.map(withImage),
      ...(spec?.initContainers && { initContainers: spec.initContainers.map(withImage) }),
    },
  } as KubernetesObject
}

export async function putObject(admin: ApiClient, kind: ClusterKind, given: KubernetesObject): Promise<void> {
  const { status, ...object } = completed(kind, given) as KubernetesObject & { status?: Record<string, unknown> }
  const { name = '', namespace, labels, annotations } = object.metadata ?? {}
  const path = pathOf(kind, namespace, name)
  const merge = (at: string, body: unknown) =>
    admin.send({ method: 'PATCH', path: at, contentType: 'application/merge-patch+json', body })
  const { uid: _, ...metadata } = object.metadata ?? {}
  const existing = await unless(404, admin.send({ method: 'GET', path }))
  if (existing === undefined) {
    await admin.send({ method: 'POST', path: pathOf(kind, namespace), body: { ...object, metadata } })
  } else await merge(path, { metadata: { labels: labels ?? null, annotations: annotations ?? null } })
  if (status === undefined) return
  const podIPs = status.podIPs as { ip: string }[] | undefined
  await merge(`${path}/status`, { status: { ...status, ...(podIPs?.[0] && { podIP: podIPs[0].ip }) } })
}

export function removeObject(admin: ApiClient, kind: ClusterKind, name: string, namespace?: string): Promise<unknown> {
  const path = pathOf(kind, namespace, name)
  return unless(404, admin.send({ method: 'DELETE', path, body: { gracePeriodSeconds: 0 } }))
}

/** A cluster over `client`, played by `admin`. */
export function createApiStage(admin: ApiClient, client: ApiClient = admin): Stage & { cluster: KubernetesCluster } {
  const cluster = createKubernetesCluster({ client, log: pino({ level: 'silent' }) })
  const put: [ClusterKind, string, string | undefined][] = []
  cluster.start()
  return {
    cluster,
    async put(kind, object) {
      const { name = '', namespace } = object.metadata ?? {}
      if (kind === 'Namespace') await createNamespace(admin, name, object.metadata)
      await putObject(admin, kind, object)
      put.push([kind, name, namespace])
    },
    async remove(kind, name, namespace) {
      await removeObject(admin, kind, name, namespace)
    },
    mintToken: (options) => mintToken(admin, options),
    async close() {
      await cluster.stop()
      for (const [kind, name, namespace] of put) {
        if (kind !== 'Namespace') await removeObject(admin, kind, name, namespace)
      }
    },
  }
}
