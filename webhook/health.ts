import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import type { Registry } from 'prom-client'
import { closeServer, listenOn } from './listen.ts'

/** Plain HTTP for the kubelet and whoever scrapes: /healthz says that the process runs, /readyz that it can answer. */
export interface HealthServer {
  /** Resolves with its port once it listens, also where it did before. */
  listen(): Promise<number>
  /** Ready is who fulfils all conditions that were ever added; /readyz names them. */
  addConditions(conditions: () => Readonly<Record<string, boolean>>): void
  /** What /metrics shows. */
  setRegistry(registry: Pick<Registry, 'contentType' | 'metrics'>): void
  close(): Promise<void>
}

const REQUEST_TIMEOUT_MS = 10_000
const HEADERS_TIMEOUT_MS = 5_000
/** Health and metrics are asked by few. */
const CONNECTIONS = 64

export function createHealthServer({ host, port }: { readonly host: string; readonly port: number }): HealthServer {
  const sources: (() => Readonly<Record<string, boolean>>)[] = []
  let registry: Pick<Registry, 'contentType' | 'metrics'> | undefined
  let listening: Promise<number> | undefined
  const conditions = () => Object.assign({}, ...sources.map((source) => source()))
  const server: Server = createServer(
    { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: HEADERS_TIMEOUT_MS },
    createListener(conditions, () => registry),
  )
  server.maxConnections = CONNECTIONS

  return {
    listen() {
      listening ??= listenOn(server, port, host)
      return listening
    },
    addConditions(source) {
      sources.push(source)
    },
    setRegistry(next) {
      registry = next
    },
    close: () => closeServer(server),
  }
}

function createListener(
  conditions: () => Readonly<Record<string, boolean>>,
  registry: () => Pick<Registry, 'contentType' | 'metrics'> | undefined,
): RequestListener {
  return (request, response) => {
    const path = request.url?.split('?', 1)[0]
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      answer(response, 405, { error: { code: 'method-not-allowed', message: 'Use GET.' } })
    } else if (path === '/healthz') {
      answer(response, 200, { status: 'ok' })
    } else if (path === '/readyz') {
      const current = conditions()
      const ready = Object.values(current).every(Boolean)
      answer(response, ready ? 200 : 503, { status: ready ? 'ok' : 'failed', conditions: current })
    } else if (path === '/metrics') {
      answerMetrics(response, registry())
    } else {
      answer(response, 404, { error: { code: 'not-found', message: 'There is /healthz, /readyz and /metrics.' } })
    }
  }
}

function answer(response: ServerResponse<IncomingMessage>, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

function answerMetrics(
  response: ServerResponse<IncomingMessage>,
  registry: Pick<Registry, 'contentType' | 'metrics'> | undefined,
): void {
  if (registry === undefined) {
    answer(response, 503, { error: { code: 'cluster-unavailable', message: 'The webhook is still starting.' } })
    return
  }
  registry.metrics().then(
    (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
    () => answer(response, 500, { error: { code: 'internal', message: 'Metrics could not be collected.' } }),
  )
}
