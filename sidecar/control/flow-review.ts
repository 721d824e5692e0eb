/**
 * Judges the running connections again after something changed: policies, labels, a void WIT, the mode. Those no
 * longer allowed are marked revoked in the kernel and their local sockets destroyed, so that both ends learn of it at
 * once; the others are not touched.
 */
import type { PodIdentity } from '../../api/identity.ts'
import { MARK_INDEX, MARK_OWN, MARK_RELEASED, MARK_REVOKED } from '../../api/marks.ts'
import { formatAddress } from '../../policy/address.ts'
import type { Decision, Denied, Direction, Peer, TrafficProtocol } from '../../policy/types.ts'
import { type Judge, judgeAddress } from '../datapath/judge.ts'
import type { Conntrack, MarkUpdate } from '../netlink/conntrack.ts'
import type { ConntrackTuple, Flow } from '../netlink/flow.ts'
import type { Steps } from '../netlink/request.ts'
import type { SockDiag } from '../netlink/sock-diag.ts'
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../packet/decode.ts'
import type { IdentityTable } from './identity-table.ts'
import { takeInTurns } from './turns.ts'

export interface FlowReviewOptions {
  readonly conntrack: Pick<Conntrack, 'dumpInSteps' | 'updateMarks'>
  readonly sockDiag: Pick<SockDiag, 'destroySocket'>
  readonly table: Pick<IdentityTable, 'get'>
  readonly judge: Judge
  /**
   * Whether a connection without a row must have shown a WIT: where audit let others pass. Elsewhere such a connection
   * with a guarded Pod is one that conntrack forgot and the directory's word released again.
   */
  readonly witExpected: boolean
  /** This Pod's addresses, canonical text. */
  readonly podAddresses: ReadonlySet<string>
  /** The identity that stands for a row now: void WITs have none, relabelled ones another. */
  readonly currentIdentity: (identity: PodIdentity, issuedAt: number) => PodIdentity | 'void'
  /** Whether a key was compromised and cut: what was shown by it and by nothing since may be anybody. */
  readonly isDistrusted?: (kid: string) => boolean
  /** Makes the directory's entry of an address known to the judge, where the issuer can be asked. */
  readonly resolve: (address: string) => Promise<void>
}

export interface FlowReview {
  readonly reviewed: number
  readonly revoked: Readonly<Record<Direction, number>>
  /** Indexes that released connections carry. */
  readonly inUse: ReadonlySet<number>
}

/** Released, and not revoked since. */
export const RELEASED = { mark: MARK_RELEASED, mask: (MARK_RELEASED | MARK_REVOKED) >>> 0 } as const

/** Revoked or judged again in one turn: a millisecond or two. A step of the listing is about as long. */
const FLOWS_OF_A_TURN = 32

/** A connection may need two entries of the directory: its node's, and that of the Service behind the node port. */
const ADDRESSES_OF_A_FLOW = 2

/**
 * Judges all released connections, twice: those released while the first pass ran are in the second. It takes turns with
 * what else the thread has to do: a first contact waits for a step of it, not for 100,000 connections.
 */
export async function reviewFlows(options: FlowReviewOptions): Promise<FlowReview> {
  const first = await reviewOnce(options)
  const second = await reviewOnce(options)
  return {
    reviewed: first.reviewed,
    revoked: {
      ingress: first.revoked.ingress + second.revoked.ingress,
      egress: first.revoked.egress + second.revoked.egress,
    },
    inUse: second.inUse,
  }
}

async function reviewOnce(options: FlowReviewOptions): Promise<FlowReview> {
  const { reviewed, denied, inUse } = await findDenied(options)
  await takeInTurns(
    revokeInSteps(
      options,
      denied.map(({ flow }) => flow),
    ),
  )
  return {
    reviewed,
    revoked: {
      ingress: denied.filter(({ direction }) => direction === 'ingress').length,
      egress: denied.filter(({ direction }) => direction === 'egress').length,
    },
    inUse,
  }
}

/** What a judgement of running connections needs, beside the kernel's list of them. */
export type FlowJudge = Omit<FlowReviewOptions, 'conntrack' | 'sockDiag' | 'resolve'>

export interface DeniedFlow {
  readonly flow: Flow
  readonly direction: Direction
  readonly decision: Denied
}

/** The released connections that are no longer allowed. */
export async function findDenied(
  options: FlowJudge & Pick<FlowReviewOptions, 'resolve'> & { readonly conntrack: Pick<Conntrack, 'dumpInSteps'> },
): Promise<{ reviewed: number; denied: DeniedFlow[]; inUse: ReadonlySet<number> }> {
  const unknown = new Set<string>()
  const undecided: { flow: Flow; direction: Direction }[] = []
  const denied: DeniedFlow[] = []
  const inUse = new Set<number>()
  let reviewed = 0
  // Judged as they come, and those that stay allowed not kept: there may be 100,000.
  const listing = options.conntrack.dumpInSteps(RELEASED, (flow) => {
    reviewed++
    inUse.add(flow.mark & MARK_INDEX)
    const direction = directionOf(flow, options.podAddresses)
    if ((flow.mark & MARK_OWN) !== 0 || direction === undefined) return
    const decision = decideFlow(options, flow, direction)
    if (typeof decision === 'string') {
      unknown.add(decision)
      undecided.push({ flow, direction })
    } else if (!decision.allowed) denied.push({ flow, direction, decision })
  })
  await takeInTurns(listing)
  // A node port's address leads on to a Service's, which may have to be asked for too.
  for (let round = 0; unknown.size > 0 && round < ADDRESSES_OF_A_FLOW; round++) {
    await Promise.all([...unknown].map(options.resolve))
    unknown.clear()
    const waiting = undecided.splice(0)
    await inTurns(waiting, ({ flow, direction }) => {
      const decision = decideFlow(options, flow, direction)
      // Still unknown in the end: the issuer cannot be asked. What was allowed before stays: nothing says that it changed.
      if (typeof decision === 'string') {
        unknown.add(decision)
        undecided.push({ flow, direction })
      } else if (!decision.allowed) denied.push({ flow, direction, decision })
    })
  }
  return { reviewed, denied, inUse }
}

async function inTurns<Item>(items: readonly Item[], take: (item: Item) => void): Promise<void> {
  function* steps(): Steps<void> {
    for (const [at, item] of items.entries()) {
      take(item)
      if (at % FLOWS_OF_A_TURN === FLOWS_OF_A_TURN - 1) yield
    }
  }
  await takeInTurns(steps())
}

/** The end that opened the connection tells the direction; undefined for the Pod's traffic with itself. */
export function directionOf(flow: Flow, podAddresses: ReadonlySet<string>): Direction | undefined {
  const fromUs = podAddresses.has(formatAddress(flow.original.source))
  const toUs = podAddresses.has(formatAddress(flow.original.destination))
  if (fromUs === toUs) return undefined
  return fromUs ? 'egress' : 'ingress'
}

const VOID: Denied = { allowed: false, isolatedBy: [] }

/** The decision, or the address that the directory has to be asked for first. */
export function decideFlow(options: FlowJudge, flow: Flow, direction: Direction): Decision | string {
  const protocol = protocolOf(flow.original)
  const port = flow.original.destinationPort
  const index = flow.mark & MARK_INDEX
  if (index === 0) {
    const remote = direction === 'egress' ? flow.original.destination : flow.original.source
    const meeting = { direction, protocol, port, witExpected: options.witExpected && protocol === 'TCP' } as const
    const judgement = judgeAddress(options.judge, meeting, Buffer.from(remote), 0, remote.length)
    return judgement.kind === 'unknown' ? judgement.address : judgement.decision
  }
  const row = options.table.get(index)
  // A row that is gone says nothing for the connection: fail closed.
  if (!row || !options.judge.policy || options.isDistrusted?.(row.kid)) return VOID
  const identity = options.currentIdentity(row.identity, row.issuedAt)
  if (identity === 'void') return VOID
  const peer: Peer = { kind: 'identified', pod: identity, address: addressOf(identity, flow.original.family) }
  const key = identity === row.identity && row.port === 0 ? index : 0
  return options.judge.policy.evaluator.decide(direction, key, peer, protocol, row.port === 0 ? port : row.port)
}

function addressOf(identity: PodIdentity, family: 4 | 6): string {
  return identity.addresses.find((address) => address.includes(':') === (family === 6)) ?? ''
}

export function protocolOf(tuple: ConntrackTuple): TrafficProtocol {
  if (tuple.protocol === PROTOCOL_TCP) return 'TCP'
  if (tuple.protocol === PROTOCOL_UDP) return 'UDP'
  return tuple.protocol === 132 ? 'SCTP' : 'other'
}

/** What a revocation asks of the kernel. */
export type Revocation = Pick<FlowReviewOptions, 'sockDiag' | 'podAddresses'> & {
  readonly conntrack: Pick<Conntrack, 'updateMarks'>
}

function* revokeInSteps(options: Revocation, flows: readonly Flow[]): Steps<void> {
  for (let at = 0; at < flows.length; at += FLOWS_OF_A_TURN) {
    revoke(options, flows.slice(at, at + FLOWS_OF_A_TURN))
    yield
  }
}

/** Marks connections as revoked, and destroys their local sockets. */
export function revoke(options: Revocation, flows: readonly Flow[]): void {
  if (flows.length === 0) return
  const mask = (MARK_RELEASED | MARK_REVOKED) >>> 0
  const updates: MarkUpdate[] = flows.map(({ original }) => ({ tuple: original, mark: MARK_REVOKED, mask }))
  options.conntrack.updateMarks(updates)
  for (const { original } of flows) {
    if (original.protocol !== PROTOCOL_TCP) continue
    const fromUs = options.podAddresses.has(formatAddress(original.source))
    // Where the kernel cannot destroy sockets, the revoked mark resets the connection at its next packet.
    options.sockDiag.destroySocket({
      family: original.family,
      protocol: PROTOCOL_TCP,
      local: fromUs ? original.source : original.destination,
      localPort: fromUs ? original.sourcePort : original.destinationPort,
      remote: fromUs ? original.destination : original.source,
      remotePort: fromUs ? original.destinationPort : original.sourcePort,
    })
  }
}
