import type { RequestOptions } from 'node:https'
import { KubeConfig } from '@kubernetes/client-node'
import { type ApiConnection, createAgentPool } from '../../kubernetes/connection.ts'
import { ApiError } from '../../kubernetes/errors.ts'

/**
 * The API server of the kubeconfig at `kubeconfigPath`, or without one that of the cluster whose service account this
 * Pod has. Throws ApiError `api-credentials`.
 */
export function loadConnection(kubeconfigPath?: string): ApiConnection {
  const config = new KubeConfig()
  try {
    if (kubeconfigPath === undefined) config.loadFromCluster()
    else config.loadFromFile(kubeconfigPath)
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'not a kubeconfig'
    // No cause: parsers quote the line, which may hold a key.
    throw new ApiError('api-credentials', `The kubeconfig ${kubeconfigPath} cannot be read (${reason}).`)
  }
  return connectionOf(config)
}

/** The API server of the current context. Throws ApiError `api-credentials` where that names none. */
export function connectionOf(config: KubeConfig): ApiConnection {
  const server = config.getCurrentCluster()?.server
  if (server === undefined || !URL.canParse(server) || new URL(server).protocol !== 'https:') {
    throw new ApiError(
      'api-credentials',
      'No API server is known: run in a Pod with a service account, or set KUBECONFIG.',
    )
  }
  const agents = createAgentPool()

  return {
    server: new URL(server),
    async credentials() {
      const options: RequestOptions = {}
      try {
        await config.applyToHTTPSOptions(options)
      } catch (error) {
        const { code = 'unreadable' } = error as NodeJS.ErrnoException
        throw new ApiError('api-credentials', `The credentials for the API server cannot be read (${code}).`)
      }
      const { ca, cert, key, servername, rejectUnauthorized } = options
      // KubeConfig's own agent keeps no connection and the first certificate for ever.
      const agent = agents.get({
        ...(ca !== undefined && { ca }),
        ...(cert !== undefined && { cert }),
        ...(key !== undefined && { key }),
        ...(servername !== undefined && { servername }),
        ...(rejectUnauthorized !== undefined && { rejectUnauthorized }),
      })
      return { agent, headers: (options.headers ?? {}) as Record<string, string> }
    },
    close: () => agents.close(),
  }
}
