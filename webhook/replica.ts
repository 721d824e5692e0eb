import type { Logger } from 'pino'
import { pause } from '../kubernetes/backoff.ts'
import { type ApiClient, createApiClient } from '../kubernetes/client.ts'
import type { ApiConnection } from '../kubernetes/connection.ts'
import { ApiError } from '../kubernetes/errors.ts'
import { createPodConnection } from '../kubernetes/pod-connection.ts'
import { type CaPublisher, startCaPublisher } from './bootstrap/publisher.ts'
import { caBundle, caEnd } from './bootstrap/trust.ts'
import { createEventRecorder } from './events.ts'
import { createHealthServer } from './health.ts'
import type { Installation } from './installation.ts'
import { createAuthority } from './issuer/authority.ts'
import { createLedger } from './issuer/ledger.ts'
import { answeredVoidEvent, invalidVoidEvent } from './issuer/void-events.ts'
import { livePods } from './issuer/void-store.ts'
import { createVoidList } from './issuer/voids.ts'
import { createKubernetesCluster, type KubernetesCluster } from './kubernetes/cluster.ts'
import { observeClient } from './kubernetes/observed-client.ts'
import { persist } from './kubernetes/retry.ts'
import { describeError } from './log.ts'
import { createWebhookMetrics, type WebhookMetrics } from './metrics.ts'
import { createNamespaceController } from './namespaces/controller.ts'
import { createAcknowledgements } from './rotation/acknowledgements.ts'
import { startRotations } from './rotation/start.ts'
import { findIssuerUrl, type ServeOptions, serve } from './serve.ts'
import { keepSeconds } from './server.ts'

/** One replica of the webhook over a real cluster. */
export interface Replica {
  /** Answers requests a while longer, no longer ready, then ends everything. */
  stop(): Promise<void>
}

const now = () => Math.floor(Date.now() / 1_000)
const random = Math.random

/**
 * Starts a replica; resolves once its health server listens. What it needs of the API server it asks for until it gets
 * it, not ready meanwhile. Rejects where a port is taken, ApiError `api-credentials` where there is no API server to ask.
 */
export async function startReplica(installation: Installation, log: Logger): Promise<Replica> {
  const { host, healthPort: port } = installation.webhook
  const connection = await connect(installation.kubeconfigPath)
  const metrics = createWebhookMetrics()
  const client = observeClient(createApiClient(connection, { userAgent: 'synguard-webhook' }), metrics)
  const cluster = createKubernetesCluster({ client, log, random, metrics })
  const health = createHealthServer({ host, port })
  const ending = new AbortController()
  let parts: Parts | undefined
  health.addConditions(() => ({
    started: parts !== undefined,
    trusted: parts?.publisher.published() ?? false,
    staying: !ending.signal.aborted,
  }))
  log.info({ healthPort: await health.listen(), server: connection.server.host }, 'starting')
  cluster.start()
  const starting = startParts({ installation, cluster, health, metrics, log, now }, client, ending.signal).then(
    (started) => {
      parts = started
    },
    (error) => {
      // Only what cannot be mended by waiting comes here: a port that is taken, settings that contradict each other.
      log.fatal(describeError(error), 'cannot start')
      process.exit(1)
    },
  )

  return {
    async stop() {
      ending.abort()
      await starting
      const drainMs = parts === undefined ? 0 : installation.drainMs
      log.info({ drainMs }, 'ending')
      // Requests still come until every kube-proxy and API server has heard that this replica is not ready.
      await new Promise((resolve) => setTimeout(resolve, drainMs))
      await parts?.stop()
      await cluster.stop()
      await health.close()
      connection.close()
    },
  }
}

/** What a kubelet mounts into a Pod. */
const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Throws ApiError `api-credentials`. */
async function connect(kubeconfigPath: string | undefined): Promise<ApiConnection> {
  if (kubeconfigPath !== undefined) {
    // Only where it is asked for: client-node's API classes take more memory than all else that is loaded.
    const { loadConnection } = await import('./kubernetes/connection.ts')
    return loadConnection(kubeconfigPath)
  }
  const { KUBERNETES_SERVICE_HOST: address, KUBERNETES_SERVICE_PORT: port } = process.env
  if (address === undefined || port === undefined) {
    const rule = 'run in a Pod with a service account, or set KUBECONFIG'
    throw new ApiError('api-credentials', `No API server is known: ${rule}.`)
  }
  return createPodConnection({
    address,
    port: Number(port),
    tokenPath: `${ACCOUNT}/token`,
    caPath: `${ACCOUNT}/ca.crt`,
  })
}

/** What runs once authority and address are known. */
interface Parts {
  readonly publisher: CaPublisher
  stop(): Promise<void>
}

/** Resolves with undefined where `signal` ends it before. */
async function startParts(
  options: Omit<ServeOptions, 'authority' | 'serving'> & {
    readonly cluster: KubernetesCluster
    readonly metrics: WebhookMetrics
  },
  client: ApiClient,
  signal: AbortSignal,
): Promise<Parts | undefined> {
  const { installation, cluster, metrics, log } = options
  const { names, namespace, webhook, replica } = installation
  const retry = { log, signal, random }
  const events = createEventRecorder({ client, replica, metrics, log })
  const refusals = createEventRecorder({ client, replica, metrics, log })
  const keys = startRotations({ installation, client, cluster, events, metrics, log, now, random })
  const ended = (parts: { stop(): Promise<unknown> }[]) => Promise.all(parts.map((part) => part.stop()))
  if (!(await keys.known(signal))) {
    await ended([keys, events])
    return undefined
  }
  await awaitSync(cluster, signal)
  const issuerUrl = await persist("the Service's address", retry, async () => findIssuerUrl(installation, cluster))
  if (issuerUrl === undefined) {
    await ended([keys, events])
    return undefined
  }

  const keep = keepSeconds(webhook)
  const voids = createVoidList({ now, keepSeconds: keep })
  const ledgerNames = { voids: names.voids, register: names.register }
  const ledger = createLedger({
    ...{ client, namespace, names: ledgerNames, cluster, voids, keepSeconds: keep, log, now, random },
    onInvalid: (entry) => events.record(invalidVoidEvent(namespace, names.voids, entry)),
    onAnswered(request) {
      const pod = livePods(cluster).get(request.uid)
      if (pod !== undefined) events.record(answeredVoidEvent(pod, request))
    },
  })
  const { identity, serving: servingKeys } = keys
  const authority = createAuthority(identity.holder)
  const { acknowledge } = createAcknowledgements(identity.holder, servingKeys)
  const shared = { voids, ledger, events, refusals, authority, acknowledge, serving: servingKeys.holder }
  const serving = await serve({ ...options, ...shared }, issuerUrl)
  metrics.follow({
    invalidVoids: () => ledger.invalid().length,
    certificates: () => ({ serving: serving.certificateEnd(), ca: caEnd(servingKeys.holder.last()) }),
  })
  // Only now: what changes from here on becomes void in the list by itself.
  void ledger.start()
  const { namespaceLabel } = webhook
  const namespaces = createNamespaceController({
    ...{ cluster, client, namespaceLabel, log, random },
    defaultMode: installation.injection(issuerUrl).defaults.mode,
  })
  const publisher = startCaPublisher({ client, name: names.webhookConfiguration, log, random })
  identity.follow(authority.announce)
  servingKeys.follow((ring) => {
    serving.renewCertificate()
    namespaces.setCaBundle(caBundle(ring))
    publisher.setBundle(caBundle(ring))
  })
  namespaces.start()
  return {
    publisher,
    async stop() {
      await Promise.all([publisher.stop(), namespaces.stop(), serving.close(), ledger.stop()])
      await keys.stop()
      await ended([events, refusals])
    },
  }
}

const SYNC_CHECK_MS = 50

/** Resolves once everything was listed, or where `signal` ends it; the mirrors themselves say what keeps them. */
async function awaitSync(cluster: KubernetesCluster, signal: AbortSignal): Promise<void> {
  while (!cluster.synced() && !signal.aborted) await pause(SYNC_CHECK_MS, signal)
}
