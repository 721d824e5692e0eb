import { join } from 'node:path'
import { FILE_API_CA, FILE_API_TOKEN, PATH_CREDENTIALS } from '../../../api/names.ts'
import { type ApiClient, createApiClient } from '../../../kubernetes/client.ts'
import { createPodConnection } from '../../../kubernetes/pod-connection.ts'
import { createLog } from '../log.ts'
import type { SidecarSettings } from '../settings.ts'
import { createApiSource } from './api.ts'
import type { PolicySource } from './source.ts'

/** What a sidecar reads its part of the cluster from. */
export interface Sources {
  readonly policies: PolicySource
  /** The API server, by the token of the sidecar's own Pod; undefined where the policies lie in a directory. */
  readonly client: ApiClient | undefined
}

/** The sources that the settings name; nothing is read before they are started. */
export async function openSources(settings: SidecarSettings): Promise<Sources> {
  const { pod, policySource, logLevel } = settings
  const { namespace } = pod
  if (policySource.kind === 'directory') {
    // Only where it is asked for: it takes a YAML parser along, and whoever has an API server has no use for either.
    const { createDirectorySource } = await import('./directory.ts')
    return { policies: createDirectorySource({ path: policySource.path, namespace }), client: undefined }
  }
  const connection = createPodConnection({
    address: policySource.address,
    port: policySource.port,
    tokenPath: join(PATH_CREDENTIALS, FILE_API_TOKEN),
    caPath: join(PATH_CREDENTIALS, FILE_API_CA),
  })
  const client = createApiClient(connection, { userAgent: 'synguard-sidecar' })
  const log = createLog({ level: logLevel, pod: pod.name, namespace })
  return { policies: createApiSource({ client, namespace, log, random: Math.random }), client }
}
