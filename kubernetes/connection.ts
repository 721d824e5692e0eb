import { Agent, type AgentOptions } from 'node:https'

/** Where the API server is, and what it takes to be let in. */
export interface ApiConnection {
  readonly server: URL
  /** Agent and headers for one request: tokens and certificates are read again as they are renewed. */
  credentials(): Promise<{ readonly agent: Agent; readonly headers: Readonly<Record<string, string>> }>
  /** Ends idle connections. */
  close(): void
}

/** What decides who a connection trusts and who it is. */
export type TlsOptions = Pick<AgentOptions, 'ca' | 'cert' | 'key' | 'servername' | 'rejectUnauthorized'>

/** Keeps connections from request to request, as long as they are made with the same options. */
export interface AgentPool {
  /** The agent of these options; the idle connections of others are ended, those in use go on. */
  get(options: TlsOptions): Agent
  close(): void
}

/** Idle connections that are kept: requests come in bursts, watches never idle. */
const IDLE_CONNECTIONS = 8
/** A connection on which nothing happened for this long is probed each second; ten probes in vain end it. */
const PROBE_AFTER_MS = 15_000

export function createAgentPool(): AgentPool {
  let current: { readonly key: string; readonly agent: Agent } | undefined

  return {
    get(options) {
      const key = JSON.stringify(options)
      if (current?.key !== key) {
        destroyIdle(current?.agent)
        const pool = { keepAlive: true, keepAliveMsecs: PROBE_AFTER_MS, maxFreeSockets: IDLE_CONNECTIONS }
        current = { key, agent: new Agent({ ...options, ...pool }) }
      }
      return current.agent
    },
    close: () => current?.agent.destroy(),
  }
}

function destroyIdle(agent: Agent | undefined): void {
  for (const socket of Object.values(agent?.freeSockets ?? {}).flat()) socket?.destroy()
}
