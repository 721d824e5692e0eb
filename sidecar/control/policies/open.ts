import { join } from 'node:path'
import { FILE_API_CA, FILE_API_TOKEN, PATH_CREDENTIALS } from '../../../api/names.ts'
import { createApiClient } from '../../../kubernetes/client.ts'
import { createPodConnection } from '../../../kubernetes/pod-connection.ts'
import { createLog } from '../log.ts'
import type { SidecarSettings } from '../settings.ts'
import { createApiSource } from './api.ts'
import type { PolicySource } from './source.ts'

/** The source that the settings name; it reads nothing before it is started. */
export async function openPolicySource(settings: SidecarSettings): Promise<PolicySource> {
  const { pod, policySource, logLevel } = settings
  const { namespace } = pod
  if (policySource.kind === 'directory') {
    // Only where it is asked for: it takes a YAML parser along, and whoever has an API server has no use for either.
    const { createDirectorySource } = await import('./directory.ts')
    return createDirectorySource({ path: policySource.path, namespace })
  }
  const connection = createPodConnection({
    address: policySource.address,
    port: policySource.port,
    tokenPath: join(PATH_CREDENTIALS, FILE_API_TOKEN),
    caPath: join(PATH_CREDENTIALS, FILE_API_CA),
  })
  return createApiSource({
    client: createApiClient(connection, { userAgent: 'synguard-sidecar' }),
    namespace,
    log: createLog({ level: logLevel, pod: pod.name, namespace }),
    random: Math.random,
  })
}
