import { isDeepStrictEqual } from 'node:util'
import type { Logger } from 'pino'
import { SynguardError } from '../../../api/errors.ts'
import type { BackoffLimits } from '../../../kubernetes/backoff.ts'
import type { ApiClient } from '../../../kubernetes/client.ts'
import { ApiError, hasStatus } from '../../../kubernetes/errors.ts'
import { createReflector, type StoredObject } from '../../../kubernetes/reflector.ts'
import type { PolicySource, PolicySourceListener } from './source.ts'
import { readStoredPolicy, type StoredPolicy } from './stored-policy.ts'

export interface ApiSourceOptions {
  readonly client: ApiClient
  /** Only its policies are asked for: a sidecar may read no others. */
  readonly namespace: string
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random: () => number
  readonly backoff?: BackoffLimits
}

/** A change is told at once; of a burst the rest follows after this, as one. */
const GAP_MS = 100

/**
 * The NetworkPolicies of a namespace at the API server: listed once, then watched. While the API server is away the
 * last set stands. A policy that cannot be read whole isolates whom it selects, and is named once each time it changes.
 */
export function createApiSource(options: ApiSourceOptions): PolicySource {
  const { client, namespace, log, random, backoff } = options
  let listener: PolicySourceListener | undefined
  let timer: NodeJS.Timeout | undefined
  let toldAt = Number.NEGATIVE_INFINITY
  let outage: { since: number; readonly told: Set<string> } | undefined

  const reflector = createReflector<StoredPolicy, StoredObject>({
    client,
    path: `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`,
    strip: (object) => readStoredPolicy(object, namespace),
    onChange(before, after) {
      for (const problem of after?.problems ?? []) {
        if (!before?.problems.some(({ message }) => message === problem.message)) listener?.onError(problem)
      }
      if (!isDeepStrictEqual(before?.policy, after?.policy)) changed()
    },
    onListed() {
      if (toldAt === Number.NEGATIVE_INFINITY) changed()
    },
    onFailure,
    log,
    random,
    ...(backoff && { backoff }),
  })

  function changed(): void {
    // Before everything is listed a policy that isolates may be missing.
    timer ??= setTimeout(tell, Math.max(0, toldAt + GAP_MS - performance.now()))
  }

  function tell(): void {
    timer = undefined
    if (!reflector.synced()) return
    toldAt = performance.now()
    const policies = [...reflector.values()].map(({ policy }) => policy)
    listener?.onChange({ policies: policies.sort(byName), synced: true })
  }

  /** The reflector tries again and again: of an outage each kind of failure is told once. */
  function onFailure(error: unknown, waitMs: number): void {
    if (hasStatus(error, 410)) {
      log.info({ waitMs: Math.round(waitMs) }, 'the watch of the policies is too far behind: listing anew')
      return
    }
    const nowMs = performance.now()
    // Heard of in between: it is another outage.
    if (outage === undefined || reflector.silentMs() < nowMs - outage.since) outage = { since: nowMs, told: new Set() }
    const failure = asSynguardError(error)
    if (outage.told.has(failure.message)) return
    outage.told.add(failure.message)
    listener?.onError(failure)
  }

  return {
    start(to) {
      listener = to
      reflector.start()
    },
    stop() {
      listener = undefined
      clearTimeout(timer)
      void reflector.stop()
    },
    confirmedAt: () => (reflector.synced() ? Date.now() - reflector.silentMs() : undefined),
  }
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1
}

function asSynguardError(error: unknown): SynguardError {
  if (error instanceof SynguardError) return error
  return new ApiError('api-answer', `The policies cannot be read: ${(error as Error).message}`, {}, { cause: error })
}
