import { X509Certificate } from 'node:crypto'
import { createServer as createHttpsServer } from 'node:https'
import type { V1Namespace } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { AcknowledgeRequest, PodIdentity, VoidEntry } from '../api/identity.ts'
import type { ToldRefusal } from '../api/reports.ts'
import type { ServingCertificate } from '../certs/serving.ts'
import { isSelected } from './admission/inject.ts'
import { mutate } from './admission/mutate.ts'
import type { NamespaceFacts } from './admission/namespace.ts'
import { nameOf, type ReviewOutcome } from './admission/outcome.ts'
import { isGuarded } from './admission/pod.ts'
import type { InjectionSettings } from './admission/settings.ts'
import { admissionEvent } from './admission-events.ts'
import type { Cluster } from './cluster.ts'
import { createDirectory } from './directory/directory.ts'
import { WebhookError } from './errors.ts'
import type { EventRecorder } from './events.ts'
import { createHealthServer, type HealthServer } from './health.ts'
import type { Authority } from './issuer/authority.ts'
import { createIssuer } from './issuer/issuer.ts'
import type { Ledger } from './issuer/ledger.ts'
import { voidOutdated } from './issuer/outdated.ts'
import { VOID_CAUSES } from './issuer/void-record.ts'
import { createVoidList, type VoidList } from './issuer/voids.ts'
import { CONNECTIONS } from './limits.ts'
import { closeServer, listenOn } from './listen.ts'
import { createWebhookMetrics, type WebhookMetrics } from './metrics.ts'
import { refusalEvents } from './refusals.ts'
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
  /** Without it there is a list of this process alone. */
  readonly voids?: VoidList
  /** What is shared with other replicas; without it there are none. */
  readonly ledger?: Pick<Ledger, 'synced' | 'record'>
  /** Hears which keys a Pod's sidecar holds; without it nobody waits for that. */
  readonly acknowledge?: (uid: string, held: AcknowledgeRequest) => void
  /** Where Events go; without it none are written. */
  readonly events?: Pick<EventRecorder, 'record'>
  /** Where those of refused connections go: peers cause them at will, and must not use up the bounds of the others. */
  readonly refusals?: Pick<EventRecorder, 'record'>
  /** Of the process; without it there are some of their own. */
  readonly metrics?: WebhookMetrics
  readonly log: Logger
  /** A health server that runs already, and that its owner closes; without it there is one of its own. */
  readonly health?: HealthServer
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

/**
 * The webhook's two servers over a cluster: HTTPS for admission and the issuer, plain HTTP for health and metrics.
 * Throws WebhookError `setting-invalid` where its settings and those of injection contradict each other.
 */
export function createServer(options: ServerOptions): WebhookServer {
  const { cluster, authority, settings, injection, log } = options
  if (injection !== undefined) requireAgreement(settings, injection)
  const now = options.now ?? (() => Math.floor(Date.now() / 1_000))
  const voids = options.voids ?? createVoidList({ now, keepSeconds: keepSeconds(settings) })
  const { namespaceLabel } = settings
  const synced = () => cluster.synced() && (options.ledger?.synced() ?? true)
  // In this order: a void is out before the Pod concerned hears that it should renew.
  const stopVoiding = voidOutdated({ cluster, voids, isGuarded, now })
  const directory = createDirectory({ cluster, isGuarded })
  const { acknowledge = () => {} } = options
  const streams = createStreams({
    acknowledge,
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
    synced,
    ...(options.ledger && { ledger: options.ledger }),
    now,
    ...(podWaitMs === undefined ? {} : { podWaitMs }),
  })
  const metrics = options.metrics ?? createWebhookMetrics()
  metrics.follow({ streams: streams.count, voids: () => countVoids(voids) })
  const routes = createRoutes({
    acknowledge,
    refused,
    issuer,
    directory,
    streams,
    authority,
    metrics,
    log,
    synced,
    mutate: injection === undefined ? undefined : (review) => answerReview(review, injection),
  })

  function refused(caller: PodIdentity, refusals: readonly ToldRefusal[]): void {
    const uidOf = (namespace: string, name: string) => cluster.get('Pod', name, namespace)?.metadata?.uid
    for (const event of refusalEvents(caller, refusals, uidOf)) options.refusals?.record(event)
  }

  /**
   * The API server calls for selected namespaces alone. Where ours was not seen as one yet, its label is younger than
   * our knowledge: taking its Pod for one to be skipped would let it in unguarded.
   */
  async function lookupNamespace(name: string): Promise<NamespaceFacts | undefined> {
    const seen = namespaceFacts(name, cluster.get('Namespace', name))
    if (seen !== undefined && isSelected(seen.labels, namespaceLabel)) return seen
    return namespaceFacts(name, await cluster.read('Namespace', name))
  }

  /** Answers a review, and tells of its outcome. */
  async function answerReview(review: unknown, settings: InjectionSettings): Promise<unknown> {
    const startedAt = performance.now()
    let outcome: ReviewOutcome | undefined
    const answer = await mutate(review, lookupNamespace, settings, logError, (found) => {
      outcome = found
    })
    if (outcome !== undefined) report(outcome, (performance.now() - startedAt) / 1_000)
    return answer
  }

  function report(outcome: ReviewOutcome, seconds: number): void {
    const { subject, outcome: kind, code, namespace, reason, dryRun } = outcome
    metrics.admissions.inc({ subject, outcome: kind, code })
    metrics.admissionSeconds.observe({ subject }, seconds)
    if (kind === 'skipped' || kind === 'refused') {
      log.info({ namespace, pod: nameOf(outcome.pod), code, reason, dryRun }, `injection ${kind}`)
    }
    const event = admissionEvent(outcome, cluster.get('Namespace', namespace)?.metadata?.uid)
    if (event !== undefined) options.events?.record(event)
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

  const health = options.health ?? createHealthServer({ host: settings.host, port: settings.healthPort })
  health.setRegistry(metrics.registry)
  health.addConditions(() => ({
    cluster: cluster.synced(),
    ...(options.ledger && { voids: options.ledger.synced() }),
    listening: https.listening,
    certificate: Date.parse(new X509Certificate(tls.certificatePem).validTo) > now() * 1_000,
  }))

  return {
    async listen() {
      const port = await listenOn(https, settings.port, settings.host)
      try {
        return { port, healthPort: await health.listen() }
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
      stopVoiding()
      directory.close()
      await Promise.all([closeServer(https), options.health === undefined ? health.close() : undefined])
    },
  }
}

/** How long a void concerns anybody: until the last WIT from before it has expired for everybody. */
export function keepSeconds({ witLifetimeSeconds, skewSeconds }: WebhookSettings): number {
  return witLifetimeSeconds + skewSeconds
}

function countVoids(voids: VoidList) {
  const records = [...voids.records().values()]
  const byCause = VOID_CAUSES.map((cause) => [cause, records.filter((record) => record[cause] !== undefined).length])
  return { byCause: Object.fromEntries(byCause) as Record<string, number>, dropped: voids.dropped() }
}

function namespaceFacts(name: string, namespace: V1Namespace | undefined): NamespaceFacts | undefined {
  if (namespace === undefined) return undefined
  const { labels, annotations } = namespace.metadata ?? {}
  return { name, labels: { ...labels }, annotations: { ...annotations } }
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
