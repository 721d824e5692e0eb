import type { Logger } from 'pino'
import type { BackoffLimits } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
import { createReflector, type Reflector } from '../../kubernetes/reflector.ts'
import type { Cluster, ClusterChange, ClusterKind, ClusterKinds } from '../cluster.ts'
import type { WebhookMetrics } from '../metrics.ts'
import { pathOfKind, pathOfObject, STRIP } from './objects.ts'
import { reviewToken } from './token-review.ts'

/** The cluster behind an API server: every kind is listed and watched from start() to stop(). */
export interface KubernetesCluster extends Cluster {
  start(): void
  stop(): Promise<void>
}

export interface KubernetesClusterOptions {
  readonly client: ApiClient
  readonly metrics?: Pick<WebhookMetrics, 'tokenReviews' | 'tokenReviewSeconds'>
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random?: () => number
  readonly backoff?: BackoffLimits
  /** After how long without a word from the API server nothing may be concluded any more, where not STALE_MS. */
  readonly staleMs?: number
}

/**
 * Longer than WATCH_SILENCE_MS and a reconnection. An address that changed hands in the meantime would be taken for its
 * former Pod's, so what is older than this is not told to sidecars.
 */
const STALE_MS = 120_000

type Reflectors = { readonly [Kind in ClusterKind]: Reflector<ClusterKinds[Kind]> }

export function createKubernetesCluster(options: KubernetesClusterOptions): KubernetesCluster {
  const { client, metrics, log, random = Math.random, staleMs = STALE_MS } = options
  const listeners = new Set<(change: ClusterChange) => void>()

  function tell(change: ClusterChange): void {
    for (const listener of [...listeners]) {
      try {
        listener(change)
      } catch (error) {
        log.error({ kind: change.kind, err: error }, 'a change could not be taken in')
      }
    }
  }

  function reflect<Kind extends ClusterKind>(kind: Kind): Reflector<ClusterKinds[Kind]> {
    return createReflector<ClusterKinds[Kind]>({
      client,
      path: pathOfKind(kind),
      strip: STRIP[kind],
      // The three belong to one kind by construction; the union cannot be told so for a generic one.
      onChange: (before, after) => tell({ kind, before, after } as unknown as ClusterChange),
      log,
      random,
      ...(options.backoff && { backoff: options.backoff }),
    })
  }

  const reflectors: Reflectors = {
    Pod: reflect('Pod'),
    Namespace: reflect('Namespace'),
    Service: reflect('Service'),
    EndpointSlice: reflect('EndpointSlice'),
    Node: reflect('Node'),
  }
  const all = Object.values(reflectors)

  return {
    start() {
      for (const reflector of all) reflector.start()
    },
    async stop() {
      await Promise.all(all.map((reflector) => reflector.stop()))
    },
    async reviewToken(token, audience) {
      const startedAt = performance.now()
      let result = 'error'
      try {
        const review = await reviewToken(client, token, audience)
        result = review.authenticated ? 'authenticated' : 'refused'
        return review
      } finally {
        metrics?.tokenReviews.inc({ result })
        metrics?.tokenReviewSeconds.observe((performance.now() - startedAt) / 1_000)
      }
    },
    get: (kind, name, namespace) => reflectors[kind].get(name, namespace),
    async read<Kind extends ClusterKind>(kind: Kind, name: string, namespace?: string) {
      try {
        const path = pathOfObject(kind, name, namespace)
        return STRIP[kind](await client.send<ClusterKinds[Kind]>({ method: 'GET', path }))
      } catch (error) {
        if (hasStatus(error, 404)) return undefined
        throw error
      }
    },
    list: (kind) => reflectors[kind].values(),
    synced: () => all.every((reflector) => reflector.synced() && reflector.silentMs() < staleMs),
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
