import type { ApiClient } from '../../kubernetes/client.ts'
import { FIELD_MANAGER } from '../bootstrap/ca-bundle.ts'

/** Where the API server has the ConfigMaps of a namespace. */
export function configMapsPath(namespace: string): string {
  return `/api/v1/namespaces/${namespace}/configmaps`
}

/** Makes a ConfigMap where there is none: an apply names its object, so its creation can be allowed by name. */
export async function applyConfigMap(
  client: ApiClient,
  namespace: string,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  await client.send({
    method: 'PATCH',
    path: `${configMapsPath(namespace)}/${name}`,
    query: { fieldManager: FIELD_MANAGER, force: 'true' },
    contentType: 'application/apply-patch+yaml',
    body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } },
    signal,
  })
}

/**
 * Sets entries of a ConfigMap, or removes those that are null, and leaves the rest; with a resourceVersion only where
 * that is still its own. Rejects with ApiError, of status 404 where there is none and 409 where another wrote since.
 */
export async function patchConfigMap(
  client: ApiClient,
  patch: {
    readonly namespace: string
    readonly name: string
    readonly resourceVersion?: string
    readonly data: Readonly<Record<string, string | null>>
    readonly signal: AbortSignal
  },
): Promise<void> {
  const { namespace, name, resourceVersion, data, signal } = patch
  await client.send({
    method: 'PATCH',
    path: `${configMapsPath(namespace)}/${name}`,
    query: { fieldManager: FIELD_MANAGER },
    contentType: 'application/merge-patch+json',
    body: { ...(resourceVersion !== undefined && { metadata: { resourceVersion } }), data },
    signal,
  })
}
