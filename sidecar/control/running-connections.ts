/** The running connections of the Pod: reviewed when something changed that they were released by. */
import { SKEW_SECONDS } from '../../certs/limits.ts'
import type { GatePolicy, GateSettings } from '../datapath/gate.ts'
import { openConntrack } from '../netlink/conntrack.ts'
import { openSockDiag } from '../netlink/sock-diag.ts'
import { type FlowReviewOptions, reviewFlows } from './flow-review.ts'
import type { IdentityTable } from './identity-table.ts'
import type { LogSink } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { PeersClient } from './peers-client.ts'
import { settleLostRows } from './restore-state.ts'
import { createReviews, type Reviews } from './reviews.ts'

/** Above this many rows of the identity table the expired ones are freed. */
const PRUNE_ROWS = 10_000

export interface RunningConnectionsOptions {
  readonly table: IdentityTable
  readonly podAddresses: ReadonlySet<string>
  readonly currentIdentity: FlowReviewOptions['currentIdentity']
  readonly peers: () => Pick<PeersClient, 'peek' | 'ask'>
  readonly settings: () => GateSettings
  /** Undefined until identity and policies are there: nothing is released before. */
  readonly policy: () => GatePolicy | undefined
  readonly metrics: Metrics
  readonly now: () => number
  readonly log: LogSink
}

/**
 * Opens conntrack and sock_diag, and ends what an earlier run left that nothing speaks for any more. Throws NetlinkError.
 */
export function openRunningConnections(options: RunningConnectionsOptions): Reviews {
  const { table, podAddresses, metrics, now, log } = options
  const conntrack = openConntrack()
  const sockDiag = openSockDiag()

  async function review(cause: string): Promise<void> {
    const view = options.settings()
    const policy = options.policy()
    if (view.mode !== 'enforce' || !policy) return
    const started = now()
    const peers = options.peers()
    try {
      const result = await reviewFlows({
        conntrack,
        sockDiag,
        table,
        podAddresses,
        witExpected: cause === 'mode',
        currentIdentity: options.currentIdentity,
        judge: {
          settings: view,
          clusterNetworks: view.clusterNetworks,
          nodeAddresses: new Set(view.nodeAddresses),
          directory: { get: (address) => peers.peek(address) },
          policy,
        },
        resolve: async (address) => void (await peers.ask(address)),
      })
      for (const direction of ['ingress', 'egress'] as const) {
        metrics.byName.revoked_flows_total.inc({ direction, cause }, result.revoked[direction])
      }
      const { ingress, egress } = result.revoked
      if (ingress + egress > 0) log.info({ cause, reviewed: result.reviewed, ingress, egress }, 'connections revoked')
      if (cause === 'policy') metrics.byName.policy_swap_seconds.observe((now() - started) / 1000)
      if (table.size() > PRUNE_ROWS) table.prune(result.inUse, now() / 1000 - SKEW_SECONDS)
    } catch (error) {
      log.error({ cause, error: (error as Error).message }, 'running connections not reviewed')
    }
  }

  const lost = settleLostRows({
    conntrack,
    sockDiag,
    table,
    podAddresses,
    ends: options.settings().mode === 'enforce',
  })
  if (lost > 0) log.warn({ connections: lost }, 'connections of peers that the identity table lacks')
  return createReviews(review)
}
