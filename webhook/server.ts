import { X509Certificate } from 'node:crypto'
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Logger } from 'pino'
import type { VoidEntry } from '../api/identity.ts'
import type { ServingCertificate } from '../certs/serving.ts'
import { mutate } from './admission/mutate.ts'
import { isGuarded } from './admission/pod.ts'
import type { InjectionSettings } from './admission/settings.ts'
import type { Cluster } from './cluster.ts'
import { createDirectory } from './directory/directory.ts'
import { WebhookError } from './errors.ts'
import type { Authority } from './issuer/authority.ts'
import { createIssuer } from './issuer/issuer.ts'
import { voidRelabelled } from './issuer/relabel.ts'
import { createVoidList } from './issuer/voids.ts'
import { CONNECTIONS } from './limits.ts'
import { createWebhookMetrics } from './metrics.ts'
import { createRoutes } from './routes.ts'
import type { WebhookSettings } from './settings.ts'
import { createStreams } from './stream.ts'

export interface ServerOptions {
  readonly cluster: Cluster
  readonly authority: Authority
  readonly tls: ServingCertificate
  readonly settings: WebhookSettings
  /** How Pods are injected; without it `/mutate` refuses. */
  readonly injection?: InjectionSettings
  readonly log: Logger
  /** Seconds since the epoch. */
  readonly now?: () => number
  /** From 0 up to 1. */
  readonly random?: () => number
  /** How long to wait for a Pod's address, where not 5 s. */
  readonly podWaitMs?: number
}

export interface WebhookServer {
  /** Resolves once both servers listen. Rejects where a port is taken. */
  listen(): Promise<{ readonly port: number; readonly healthPort: number }>
  /** New connections get this certificate; open ones go on. */
  setCertificate(tls: ServingCertificate): void
  /** Declares WITs of a Pod void, as an operator does. */
  revoke(entry: VoidEntry): void
  /** Ends streams and connections. */
  close(): Promise<void>
}

/** A request must have arrived by then: it is small, or comes from the API server. */
const REQUEST_TIMEOUT_MS = 10_000
const HEADERS_TIMEOUT_MS = 5_000
const TLS_HANDSHAKE_TIMEOUT_MS = 5_000
/** Longer than the API server and sidecars pause, so that they seldom need a new handshake. */
const KEEP_ALIVE_MS = 75_000
const HEADER_BYTES = 16_384
const CLOSE_MS = 1_000
/** Health and metrics are asked by few. */
const HEALTH_CONNECTIONS = 64

/**
 * The webhook's two servers over a cluster: HTTPS for admission and the issuer, plain HTTP for health and metrics.
 * Throws WebhookError `setting-invalid` where its settings and those of injection contradict each other.
 */
export function createServer(options: ServerOptions): WebhookServer {
  const { cluster, authority, settings, injection, log } = options
  if (injection !== undefined) requireAgreement(settings, injection)
  const now = options.now ?? (() => Math.floor(Date.now() / 1_000))
  const voids = createVoidList({ now, keepSeconds: settings.witLifetimeSeconds + settings.skewSeconds })
  const { namespaceLabel } = settings
  // In this order: a void is out before the Pod concerned hears that it should renew.
  const stopRelabelled = voidRelabelled({ cluster, voids, namespaceLabel, isGuarded, now })
  const directory = createDirectory({ cluster, isGuarded })
  const streams = createStreams({
    defaultMode: injection?.defaults.mode ?? 'enforce',
    cluster,
    directory,
    authority,
    voids,
    settings,
    random: options.random ?? Math.random,
  })
  const { podWaitMs } = options
  const issuer = createIssuer({
    cluster,
    authority,
    voids,
    settings,
    isGuarded,
    now,
    ...(podWaitMs === undefined ? {} : { podWaitMs }),
  })
  const metrics = createWebhookMetrics(streams.count)
  const routes = createRoutes({
    issuer,
    directory,
    streams,
    authority,
    metrics,
    log,
    synced: cluster.synced,
    mutate: injection === undefined ? undefined : (review) => mutate(review, lookupNamespace, injection, logError),
  })

  function lookupNamespace(name: string) {
    const { metadata } = cluster.get('Namespace', name) ?? {}
    if (metadata === undefined) return undefined
    return { name, labels: { ...metadata.labels }, annotations: { ...metadata.annotations } }
  }

  function logError(error: unknown): void {
    log.warn({ code: error instanceof Error && 'code' in error ? error.code : 'internal-error' }, 'review refused')
  }

  let tls = options.tls
  const https = createHttpsServer(
    {
      ...secureContext(tls),
      handshakeTimeout: TLS_HANDSHAKE_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: HEADERS_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: HEADER_BYTES,
      connectionsCheckingInterval: 2_000,
    },
    routes,
  )
  https.maxConnections = CONNECTIONS
  // Strangers and scanners: their handshakes fail without a line each.
  https.on('tlsClientError', (error) => log.debug({ code: (error as NodeJS.ErrnoException).code }, 'TLS refused'))

  const health = createHttpServer(
    { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: HEADERS_TIMEOUT_MS },
    healthListener(
      () => ({
        cluster: cluster.synced(),
        listening: https.listening,
        certificate: Date.parse(new X509Certificate(tls.certificatePem).validTo) > now() * 1_000,
      }),
      metrics.registry,
    ),
  )
  health.maxConnections = HEALTH_CONNECTIONS

  return {
    async listen() {
      const port = await listen(https, settings.port, settings.host)
      try {
        return { port, healthPort: await listen(health, settings.healthPort, settings.host) }
      } catch (error) {
        https.close()
        throw error
      }
    },
    setCertificate(next) {
      https.setSecureContext(secureContext(next))
      tls = next
    },
    revoke: voids.add,
    async close() {
      streams.close()
      stopRelabelled()
      directory.close()
      await Promise.all([close(https), close(health)])
    },
  }
}

/** Pods that are injected but get no identity, or one of another trust domain, would never become ready. */
function requireAgreement(settings: WebhookSettings, injection: InjectionSettings): void {
  const { trustDomain, namespaceLabel } = injection
  const { key, value } = settings.namespaceLabel
  if (trustDomain !== settings.trustDomain) {
    throw new WebhookError('setting-invalid', 'trustDomain must be the same for the issuer and for injection.')
  }
  if (namespaceLabel.key !== key || namespaceLabel.value !== value) {
    throw new WebhookError('setting-invalid', 'namespaceLabel must be the same for the issuer and for injection.')
  }
}

function secureContext({ certificatePem, privateKeyPem }: ServingCertificate) {
  return { cert: certificatePem, key: privateKeyPem, minVersion: 'TLSv1.2' as const }
}

/** /healthz says that the process runs, /readyz that it can answer; both name what does not hold. */
function healthListener(
  conditions: () => Readonly<Record<string, boolean>>,
  registry: { contentType: string; metrics(): Promise<string> },
): RequestListener {
  return (request, response) => {
    const path = request.url?.split('?', 1)[0]
    const json = (status: number, body: unknown) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      json(405, { error: { code: 'method-not-allowed', message: 'Use GET.' } })
    } else if (path === '/healthz') {
      json(200, { status: 'ok' })
    } else if (path === '/readyz') {
      const current = conditions()
      const ready = Object.values(current).every(Boolean)
      json(ready ? 200 : 503, { status: ready ? 'ok' : 'failed', conditions: current })
    } else if (path === '/metrics') {
      registry.metrics().then(
        (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
        () => json(500, { error: { code: 'internal', message: 'Metrics could not be collected.' } }),
      )
    } else {
      json(404, { error: { code: 'not-found', message: 'There is /healthz, /readyz and /metrics.' } })
    }
  }
}

function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve((server.address() as AddressInfo).port)
    })
  })
}

/** Lets answers under way be sent, for a moment. */
function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), CLOSE_MS)
    server.close(() => {
      clearTimeout(timer)
      resolve()
    })
  })
}
