/** What makes the sidecar ready, and the metrics that say so. */
import type { Mode } from '../../api/identity.ts'
import type { Condition } from './health.ts'
import type { OwnIdentity } from './identity-client.ts'
import type { Metrics } from './metrics.ts'

export interface ReadinessView {
  readonly mode: Mode
  readonly queuesBound: boolean
  readonly identity: OwnIdentity | undefined
  /** An operator revoked the Pod. */
  readonly revoked: boolean
  readonly policies: {
    readonly synced: boolean
    readonly count: number
    /** When their source last confirmed them, in milliseconds since 1970. */
    readonly confirmedAtMs: number | undefined
  }
  readonly rules: Condition
}

/** What must hold, and whether it does. */
export function conditionsOf(view: ReadinessView, nowMs: number): Condition[] {
  const { identity, policies, revoked } = view
  const valid = identity !== undefined && identity.expiresAtMs > nowMs && !revoked
  return [
    view.queuesBound
      ? { name: 'queue', ok: true, reason: 'the queues are bound' }
      : { name: 'queue', ok: false, reason: 'the packet path is not running' },
    valid
      ? { name: 'identity', ok: true, reason: `held until ${new Date(identity.expiresAtMs).toISOString()}` }
      : {
          name: 'identity',
          ok: false,
          reason: revoked
            ? 'revoked by an operator'
            : identity
              ? 'expired: the issuer cannot be reached'
              : 'none obtained yet',
        },
    policies.synced
      ? { name: 'policies', ok: true, reason: `${policies.count} policies stand${asOf(policies.confirmedAtMs)}` }
      : { name: 'policies', ok: false, reason: 'not read in full yet' },
    view.rules,
  ]
}

/** While their source is away the last policies stand, however old: that fails nothing, but shows. */
function asOf(confirmedAtMs: number | undefined): string {
  return confirmedAtMs === undefined ? '' : `, as of ${new Date(confirmedAtMs).toISOString()}`
}

/** Sets the metrics of mode, conditions and readiness. */
export function setReadiness(metrics: Metrics, mode: Mode, conditions: readonly Condition[]): void {
  for (const one of ['enforce', 'audit', 'off'] as const) metrics.byName.mode.set({ mode: one }, one === mode ? 1 : 0)
  for (const { name, ok } of conditions) metrics.byName.condition.set({ condition: name }, ok ? 1 : 0)
  metrics.byName.ready.set(conditions.every(({ ok }) => ok) ? 1 : 0)
}
