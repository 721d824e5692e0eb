import type { V1ConfigMap } from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
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

/** Sets or removes entries as patchConfigMap() does, of a ConfigMap that is made where there is none. */
export async function putEntries(
  client: ApiClient,
  patch: Omit<Parameters<typeof patchConfigMap>[1], 'resourceVersion'>,
): Promise<void> {
  try {
    await patchConfigMap(client, patch)
  } catch (error) {
    if (!hasStatus(error, 404)) throw error
    await applyConfigMap(client, patch.namespace, patch.name, patch.signal)
    await patchConfigMap(client, patch)
  }
}

/** The entries of a ConfigMap as the API server has them now; undefined where there is none. */
export async function readEntries(
  client: ApiClient,
  { namespace, name, signal }: { readonly namespace: string; readonly name: string; readonly signal: AbortSignal },
): Promise<Readonly<Record<string, string>> | undefined> {
  try {
    const path = `${configMapsPath(namespace)}/${name}`
    return (await client.send<V1ConfigMap>({ method: 'GET', path, signal })).data ?? {}
  } catch (error) {
    if (hasStatus(error, 404)) return undefined
    throw error
  }
}
