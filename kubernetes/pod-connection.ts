import { readFile } from 'node:fs/promises'
import { type ApiConnection, createAgentPool } from './connection.ts'
import { ApiError } from './errors.ts'

export interface PodConnectionOptions {
  /** Canonical text; IPv6 without brackets. */
  readonly address: string
  readonly port: number
  /** The projected token: the kubelet writes a new one when four fifths of its life are over. */
  readonly tokenPath: string
  /** The CA of the API server's certificate, PEM. */
  readonly caPath: string
}

/**
 * The API server as a Pod reaches it: by address, so that no DNS is needed, with its own token. Both files are read for
 * each request. client-node's KubeConfig does the same for a service account at its usual place, but costs a process that
 * asks for nothing else tens of megabytes.
 */
export function createPodConnection(options: PodConnectionOptions): ApiConnection {
  const { address, port, tokenPath, caPath } = options
  const agents = createAgentPool()
  return {
    server: new URL(`https://${address.includes(':') ? `[${address}]` : address}:${port}`),
    async credentials() {
      const [ca, token] = await Promise.all([readFilled(caPath), readFilled(tokenPath)])
      return { agent: agents.get({ ca }), headers: { authorization: `Bearer ${token}` } }
    },
    close: () => agents.close(),
  }
}

/** The trimmed text of a file. Rejects with ApiError `api-credentials`, which never quotes it. */
async function readFilled(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(({ code = 'unreadable' }: NodeJS.ErrnoException) => {
    throw new ApiError('api-credentials', `${path} cannot be read (${code}).`)
  })
  const trimmed = text.trim()
  if (trimmed === '') throw new ApiError('api-credentials', `${path} is empty.`)
  return trimmed
}
