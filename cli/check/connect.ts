import { KubeConfig } from '@kubernetes/client-node'
import { type ApiClient, createApiClient } from '../../kubernetes/client.ts'
import { ApiError } from '../../kubernetes/errors.ts'
import { connectionOf } from '../../webhook/kubernetes/connection.ts'
import { CliError } from '../errors.ts'

export interface CheckedCluster {
  readonly client: ApiClient
  readonly config: KubeConfig
  /** Host and port of the API server. */
  readonly server: string
  close(): void
}

/**
 * The cluster that kubectl would take: the kubeconfig given, or those of $KUBECONFIG, or ~/.kube/config, or this Pod's
 * own; in the context given or the current one. Throws ApiError `api-credentials`, CliError `cli-usage`.
 */
export function connectTo(options: { kubeconfig?: string | undefined; context?: string | undefined }): CheckedCluster {
  const config = new KubeConfig()
  try {
    if (options.kubeconfig === undefined) config.loadFromDefault()
    else config.loadFromFile(options.kubeconfig)
  } catch (error) {
    const { code = 'not a kubeconfig' } = error as NodeJS.ErrnoException
    // No cause: parsers quote the line, which may hold a key.
    throw new ApiError('api-credentials', `The kubeconfig ${options.kubeconfig ?? ''} cannot be read (${code}).`)
  }
  if (options.context !== undefined) {
    if (config.getContextObject(options.context) === null) {
      const known = config.getContexts().map(({ name }) => name)
      throw new CliError('cli-usage', `there is no context "${options.context}"; known are ${known.join(', ')}`)
    }
    config.setCurrentContext(options.context)
  }
  const connection = connectionOf(config)
  return {
    client: createApiClient(connection, { userAgent: 'synguard-cli' }),
    config,
    server: connection.server.host,
    close: connection.close,
  }
}
