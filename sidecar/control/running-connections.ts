/** The running connections of the Pod: reviewed when something changed that they were released by. */
import { SKEW_SECONDS } from '../../certs/limits.ts'
import type { GatePolicy, GateSettings } from '../datapath/gate.ts'
import { type Conntrack, openConntrack } from '../netlink/conntrack.ts'
import { openSockDiag } from '../netlink/sock-diag.ts'
import { type FlowListOptions, groupDenied, listFlows } from './flow-list.ts'
import { type FlowJudge, type FlowReviewOptions, findDenied, reviewFlows } from './flow-review.ts'
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
  readonly isDistrusted?: FlowReviewOptions['isDistrusted']
  readonly peers: () => Pick<PeersClient, 'peek' | 'ask'>
  readonly settings: () => GateSettings
  /** Undefined until identity and policies are there: nothing is released before. */
  readonly policy: () => GatePolicy | undefined
  readonly metrics: Metrics
  readonly now: () => number
  readonly log: LogSink
}

export interface RunningConnections extends Reviews {
  /** What `synguard flows` tells of them. Throws NetlinkError. */
  list(openedAt: FlowListOptions['openedAt']): ReturnType<typeof listFlows>
  /** Those that the policies in force deny: they run where the mode lets them. Throws NetlinkError. */
  listDenied(): Promise<ReturnType<typeof groupDenied>>
}

/**
 * Opens conntrack and sock_diag, and ends what an earlier run left that nothing speaks for any more. Throws NetlinkError.
 */
export function openRunningConnections(options: RunningConnectionsOptions): RunningConnections {
  const { table, podAddresses, metrics, now, log } = options
  const conntrack = openConntrack()
  const sockDiag = openSockDiag()

  /** What connections are judged by now. */
  function judgeNow(witExpected: boolean): FlowJudge {
    const view = options.settings()
    return {
      table,
      podAddresses,
      witExpected,
      currentIdentity: options.currentIdentity,
      ...(options.isDistrusted && { isDistrusted: options.isDistrusted }),
      judge: {
        settings: view,
        clusterNetworks: view.clusterNetworks,
        nodeAddresses: new Set(view.nodeAddresses),
        directory: { get: (address) => options.peers().peek(address) },
        policy: options.policy(),
      },
    }
  }

  const resolve = async (address: string) => void (await options.peers().ask(address))

  async function review(cause: string): Promise<void> {
    if (options.settings().mode !== 'enforce' || !options.policy()) return
    const started = now()
    try {
      const result = await reviewFlows({ ...judgeNow(cause === 'mode'), conntrack, sockDiag, resolve })
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
  return {
    ...createReviews(review),
    list: (openedAt) => withConntrack((own) => listFlows({ ...judgeNow(false), conntrack: own, sockDiag, openedAt })),
    async listDenied() {
      if (!options.policy()) return { running: [], unlisted: 0 }
      // As a change of the mode to enforce judges them: a guarded Pod has to have shown its WIT.
      const judge = judgeNow(options.settings().mode !== 'enforce')
      const { denied } = await withConntrack((own) => findDenied({ ...judge, conntrack: own, resolve }))
      return groupDenied(judge, denied)
    },
  }
}

/** With a socket of its own: a review may be listing with the other one. */
async function withConntrack<Result>(work: (conntrack: Conntrack) => Promise<Result>): Promise<Result> {
  const conntrack = openConntrack()
  try {
    return await work(conntrack)
  } finally {
    conntrack.close()
  }
}
