import { Agent, type RequestOptions } from 'node:https'
import { KubeConfig } from '@kubernetes/client-node'
import { ApiError } from './errors.ts'

/** Where the API server is, and what it takes to be let in. */
export interface ApiConnection {
  readonly server: URL
  /** Agent and headers for one request: tokens and certificates are read again as they are renewed. */
  credentials(): Promise<{ readonly agent: Agent; readonly headers: Readonly<Record<string, string>> }>
  /** Ends idle connections. */
  close(): void
}

/** Idle connections that are kept: TokenReviews come in bursts, watches never idle. */
const IDLE_CONNECTIONS = 8
/** A connection on which nothing happened for this long is probed each second; ten probes in vain end it. */
const PROBE_AFTER_MS = 15_000

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
  const server = config.getCurrentCluster()?.server
  if (server === undefined || !URL.canParse(server) || new URL(server).protocol !== 'https:') {
    throw new ApiError(
      'api-credentials',
      'No API server is known: run in a Pod with a service account, or set KUBECONFIG.',
    )
  }
  let current: { readonly key: string; readonly agent: Agent } | undefined

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
      const agentOptions = {
        ...(ca !== undefined && { ca }),
        ...(cert !== undefined && { cert }),
        ...(key !== undefined && { key }),
        ...(servername !== undefined && { servername }),
        ...(rejectUnauthorized !== undefined && { rejectUnauthorized }),
      }
      const identity = JSON.stringify(agentOptions)
      if (current?.key !== identity) {
        destroyIdle(current?.agent)
        const pool = { keepAlive: true, keepAliveMsecs: PROBE_AFTER_MS, maxFreeSockets: IDLE_CONNECTIONS }
        const agent = new Agent({ ...agentOptions, ...pool })
        current = { key: identity, agent }
      }
      return { agent: current.agent, headers: (options.headers ?? {}) as Record<string, string> }
    },
    close: () => current?.agent.destroy(),
  }
}

/** Connections in use go on. */
function destroyIdle(agent: Agent | undefined): void {
  for (const socket of Object.values(agent?.freeSockets ?? {}).flat()) socket?.destroy()
}
