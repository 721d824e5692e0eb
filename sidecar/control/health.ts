import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'

/** To import it as an ES module evaluates each of its lazy properties, all of undici among them: a third of the start. */
const { createServer } = process.getBuiltinModule('node:http')

/** One thing that must hold; the reason is for people and says why it does or does not. */
export interface Condition {
  readonly name: string
  readonly ok: boolean
  readonly reason: string
}

export interface HealthServerOptions {
  /** 0 takes any free port (tests). */
  readonly port: number
  /** What /healthz asks: the process and its worker are alive. */
  readonly live: () => readonly Condition[]
  /** What /readyz asks: queue bound, identity held and not expired, policies synced, rules verified. */
  readonly conditions: () => readonly Condition[]
  readonly registry: { readonly contentType: string; metrics(): Promise<string> }
  /**
   * Further JSON documents by path, for the command line tool; they must hold no secret. For callers on loopback alone, as
   * port-forward is one: they name a Pod's peers, and any Pod of the cluster reaches this port.
   */
  readonly documents?: Readonly<Record<string, () => unknown>>
}

export interface HealthServer {
  readonly port: number
  close(): Promise<void>
}

/** Probes and scrapes are few; whoever opens more connections than this waits. */
const MAX_CONNECTIONS = 64
const REQUEST_TIMEOUT_MS = 5000
/** How long /readyz may be asked to wait, and how often it looks meanwhile. */
const LONGEST_WAIT_MS = 10_000
const WAIT_STEP_MS = 10

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(`${JSON.stringify(body)}\n`)
}

function sendConditions(response: ServerResponse, conditions: readonly Condition[]): void {
  const ok = conditions.every((condition) => condition.ok)
  sendJson(response, ok ? 200 : 503, { status: ok ? 'ok' : 'failed', conditions })
}

/** Until all conditions hold, the time given by `wait` in seconds is over, or nobody listens any more. */
async function awaitReady(
  options: HealthServerOptions,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<void> {
  const waitMs = Math.min(Number(query.get('wait') ?? 0) * 1000 || 0, LONGEST_WAIT_MS)
  const deadline = performance.now() + waitMs
  const isReady = () => options.conditions().every(({ ok }) => ok)
  while (!isReady() && performance.now() < deadline && !response.destroyed) await setTimeout(WAIT_STEP_MS)
}

async function answer(options: HealthServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD')
    return sendJson(response, 405, { error: { code: 'method-not-allowed', message: 'use GET' } })
  }
  const [path = '/', query] = (request.url ?? '/').split('?', 2)
  if (path === '/healthz') return sendConditions(response, options.live())
  if (path === '/readyz') {
    await awaitReady(options, new URLSearchParams(query), response)
    return sendConditions(response, options.conditions())
  }
  if (path === '/metrics') {
    const text = await options.registry.metrics()
    response.writeHead(200, { 'content-type': options.registry.contentType })
    return void response.end(text)
  }
  const document = Object.hasOwn(options.documents ?? {}, path) ? options.documents?.[path] : undefined
  if (document !== undefined) {
    if (isLocal(request)) return sendJson(response, 200, await document())
    return sendJson(response, 403, {
      error: { code: 'not-local', message: 'ask by synguard, or kubectl port-forward' },
    })
  }
  sendJson(response, 404, { error: { code: 'not-found', message: 'there is /healthz, /readyz and /metrics' } })
}

/** The kernel drops packets from loopback addresses that came over another interface. */
function isLocal(request: IncomingMessage): boolean {
  const address = request.socket.remoteAddress?.replace(/^::ffff:/, '') ?? ''
  return address === '::1' || address.startsWith('127.')
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // Without a host Node listens on :: for both families, or on 0.0.0.0 where the machine has no IPv6.
    server.listen(port, () => {
      server.removeListener('error', reject)
      resolve()
    })
  })
}

/**
 * Serves /healthz, /readyz and /metrics on all addresses. The two first answer 200, or 503 where a condition fails, with
 * `{status, conditions: [{name, ok, reason}]}`; `/readyz?wait=4` answers once all hold, at the latest after 4 s. Rejects where the port is taken.
 */
export async function createHealthServer(options: HealthServerOptions): Promise<HealthServer> {
  const server = createServer((request, response) => {
    // Bodies are never wanted: drained, so that a kept connection stays usable.
    request.resume()
    answer(options, request, response).catch(() => {
      if (response.headersSent) response.destroy()
      else sendJson(response, 500, { error: { code: 'internal', message: 'the answer could not be made' } })
    })
  })
  server.maxConnections = MAX_CONNECTIONS
  server.headersTimeout = REQUEST_TIMEOUT_MS
  server.requestTimeout = REQUEST_TIMEOUT_MS
  await listen(server, options.port)
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
