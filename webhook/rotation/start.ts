import type { Logger } from 'pino'
import { pause } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import type { Cluster } from '../cluster.ts'
import type { EventRecorder } from '../events.ts'
import type { Installation } from '../installation.ts'
import { describeError } from '../log.ts'
import type { WebhookMetrics } from '../metrics.ts'
import { createApiLease } from './api-lease.ts'
import { rotationNames } from './api-store.ts'
import { failureEvent, rotationEvent } from './events.ts'
import { rotationFigures } from './figures.ts'
import { createKeyRotations, type KeyRotations } from './kinds.ts'
import { createLease } from './lease.ts'
import { runRotations } from './loop.ts'
import type { KeyRotation } from './rotation.ts'

/** The keys of this replica, read again and again, and rotated where it holds the Lease. */
export interface RunningRotations extends KeyRotations {
  /** Resolves with true once keys of both kinds are known, or with false where `signal` ends it before. */
  known(signal: AbortSignal): Promise<boolean>
  /** To be called once this replica signs no more. */
  stop(): Promise<void>
}

export interface StartRotationsOptions {
  readonly installation: Installation
  readonly client: ApiClient
  readonly cluster: Pick<Cluster, 'get' | 'list'>
  readonly events: Pick<EventRecorder, 'record'>
  readonly metrics: Pick<WebhookMetrics, 'rotation' | 'follow'>
  readonly log: Logger
  /** Seconds since the epoch. */
  readonly now: () => number
  /** From 0 up to 1. */
  readonly random: () => number
}

/** Another replica goes on after so long; a turn is much shorter. */
const LEASE_SECONDS = 15
const KNOWN_CHECK_MS = 50

export function startRotations(options: StartRotationsOptions): RunningRotations {
  const { installation, client, cluster, events, metrics, log, now, random } = options
  const { namespace, names, replica } = installation
  const stopping = new AbortController()
  const { signal } = stopping
  const { identity, serving } = createKeyRotations({ installation, client, cluster, now, signal })
  const rotations: readonly KeyRotation<unknown>[] = [identity as KeyRotation<unknown>, serving as KeyRotation<unknown>]
  metrics.follow({ keys: () => rotations.flatMap((rotation) => rotationFigures(rotation, now()) ?? []) })
  const lease = createApiLease({
    ...{ client, namespace, signal, seconds: LEASE_SECONDS },
    name: rotationNames(names.secret).lease,
  })
  const running = runRotations({
    rotations,
    hold: createLease({
      store: lease,
      name: replica,
      elapsed: () => performance.now() / 1_000,
      seconds: LEASE_SECONDS,
    }),
    onResult(kind, result) {
      const { wrote, refusal } = result
      if (wrote !== undefined) metrics.rotation.writes.inc({ kind, event: wrote })
      if (refusal !== undefined) metrics.rotation.refusals.inc({ kind, code: refusal.refused })
      const event = rotationEvent(kind, namespace, result)
      if (event !== undefined) events.record(event)
    },
    onFailure(kind, failure) {
      const { code, error } = describeError(failure)
      metrics.rotation.failures.inc({ kind, code })
      if (/^authority-/.test(code)) events.record(failureEvent(kind, namespace, code, error))
    },
    ...{ log, random, signal },
  })

  return {
    identity,
    serving,
    async known(until) {
      const isKnown = () => identity.holder.current() !== undefined && serving.holder.current() !== undefined
      while (!isKnown() && !until.aborted) await pause(KNOWN_CHECK_MS, until)
      if (until.aborted) return false
      log.info({ kids: identity.holder.last()?.keys.map(({ id }) => id) }, 'the authority is known')
      return true
    },
    async stop() {
      stopping.abort()
      await running
      await Promise.all(rotations.map((rotation) => rotation.resign()))
    },
  }
}
