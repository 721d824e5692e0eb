/** What the lab and its agents say to each other: one agent lives in each network namespace and acts like an application there. */

import type { Served } from './server.ts'

export interface ServePort {
  readonly protocol: 'TCP' | 'UDP'
  readonly port: number
}

export interface Target {
  readonly protocol: 'TCP' | 'UDP'
  readonly address: string
  readonly port: number
}

export type AgentRequest =
  /** Starts servers (server.ts) that answer with `name`. */
  | { readonly do: 'serve'; readonly ports: readonly ServePort[]; readonly name: string }
  /** One attempt: TCP connect, or a datagram repeated until it is answered. */
  | { readonly do: 'reach'; readonly target: Target; readonly timeoutMs: number }
  /** `count` datagrams at once from one socket; how many answers come within the time. */
  | { readonly do: 'burst'; readonly target: Target; readonly count: number; readonly timeoutMs: number }
  /** `count` TCP connections one after the other, each until the server's first byte. */
  | { readonly do: 'measure'; readonly target: Target; readonly count: number }
  /** Opens a TCP connection that stays; `ended` answers when it ends. */
  | { readonly do: 'open'; readonly target: Target; readonly connection: string }
  | { readonly do: 'ended'; readonly connection: string; readonly timeoutMs: number }
  /** Sends so many bytes to a server's sink and waits for its OK. */
  | { readonly do: 'transfer'; readonly target: Target; readonly bytes: number }
  | {
      readonly do: 'httpGet'
      readonly address: string
      readonly port: number
      readonly path: string
      readonly timeoutMs: number
    }
  /** TCP ports on which a socket of this network namespace listens. */
  | { readonly do: 'listening' }
  /** What became of the connections that the servers of this agent accepted. */
  | { readonly do: 'served' }

/** What became of an attempt. `silent`: the connection stood, but nobody spoke; `timeout`: nothing ever came back. */
export type Outcome = 'answered' | 'silent' | 'refused' | 'unreachable' | 'timeout'

export interface Reached {
  readonly outcome: Outcome
  /** errno name where one was given. */
  readonly error?: string
  /** The first line that came. */
  readonly answer?: string
  readonly microseconds: number
}

export type AgentAnswers = {
  readonly serve: null
  readonly reach: Reached
  readonly burst: number
  /** Microseconds of each connection. */
  readonly measure: readonly number[]
  readonly open: Reached
  /** How the connection ended, and after how long since `open`. */
  readonly ended: { readonly how: string; readonly milliseconds: number }
  readonly transfer: { readonly milliseconds: number }
  readonly httpGet: { readonly status: number; readonly body: string }
  readonly listening: readonly number[]
  readonly served: Served
}

/** An attempt that got through to a listener. */
export function isReached({ outcome }: Reached): boolean {
  return outcome === 'answered' || outcome === 'silent'
}
