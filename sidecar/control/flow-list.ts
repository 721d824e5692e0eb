/** The connections that run, as `synguard flows` and `synguard audit` tell of them. */
import type { PodIdentity } from '../../api/identity.ts'
import { MARK_INDEX, MARK_OWN } from '../../api/marks.ts'
import type { ReportedFlow, RunningDenial } from '../../api/reports.ts'
import { formatAddress } from '../../policy/address.ts'
import type { Direction } from '../../policy/types.ts'
import type { ConnectionEnds } from '../datapath/connection-key.ts'
import type { Conntrack } from '../netlink/conntrack.ts'
import { type ConntrackTuple, type Flow, TCP_CONNTRACK_LAST_ACK } from '../netlink/flow.ts'
import type { DiagnosedSocket } from '../netlink/inet-diag.ts'
import type { SockDiag } from '../netlink/sock-diag.ts'
import { PROTOCOL_TCP } from '../packet/decode.ts'
import { type DeniedFlow, decideFlow, directionOf, type FlowJudge, protocolOf, RELEASED } from './flow-review.ts'
import { describeDecision, reportedPeer } from './reported.ts'
import { takeInTurns } from './turns.ts'

/** An answer of 400 KB, and some 5 ms: there may be 100,000 connections, and nobody reads more of them. */
export const LISTED_FLOWS = 1_000
/** With more connections than this their sockets are not listed: the thread would stand still for a tenth of a second. */
const LISTED_SOCKETS = 20_000
/** Kinds of running connections that an audit tells apart. */
export const LISTED_RUNNING = 1_024

export interface FlowListOptions extends FlowJudge {
  readonly conntrack: Pick<Conntrack, 'dumpInSteps'>
  readonly sockDiag: Pick<SockDiag, 'listConnections'>
  /** When connections began, in their order: seconds since 1970, 0 where that is not remembered. */
  readonly openedAt: (connections: readonly ConnectionEnds[]) => Promise<readonly number[]>
}

/** The first LISTED_FLOWS released connections that are not over, and how many there are. */
export async function listFlows(options: FlowListOptions): Promise<{ flows: ReportedFlow[]; total: number }> {
  const kept = new Map<string, { flow: Flow; direction: Direction }>()
  let total = 0
  const listing = options.conntrack.dumpInSteps(RELEASED, (flow) => {
    const direction = directionOf(flow, options.podAddresses)
    if ((flow.mark & MARK_OWN) !== 0 || direction === undefined || isOver(flow)) return
    total++
    if (kept.size < LISTED_FLOWS) kept.set(nameOf(endsOf(flow, direction), flow.original.protocol), { flow, direction })
  })
  await takeInTurns(listing)
  const ends = [...kept.values()].map(({ flow, direction }) => endsOf(flow, direction))
  const openedAt = await options.openedAt(ends)
  const found = total > LISTED_SOCKETS ? [] : options.sockDiag.listConnections(true)
  const sockets = new Map(found.map((socket) => [nameOf(socket, PROTOCOL_TCP), socket]))
  const flows = [...kept].map(([name, { flow, direction }], at) =>
    listed(options, flow, direction, sockets.get(name), openedAt[at] ?? 0),
  )
  return { flows, total }
}

function listed(
  options: FlowListOptions,
  flow: Flow,
  direction: Direction,
  socket: DiagnosedSocket | undefined,
  openedAt: number,
): ReportedFlow {
  const ends = endsOf(flow, direction)
  const decision = decideFlow(options, flow, direction)
  const isKnown = typeof decision !== 'string'
  const startedAt = flow.startedAtNanoseconds === undefined ? openedAt : flow.startedAtNanoseconds / 1e9
  return {
    direction,
    protocol: protocolText(flow.original),
    local: formatAddress(ends.local),
    localPort: ends.localPort,
    remote: formatAddress(ends.remote),
    remotePort: ends.remotePort,
    peer: peerOf(options, flow, direction),
    decidedBy: isKnown ? describeDecision(decision) : '',
    allowed: isKnown ? decision.allowed : null,
    bytes: bytesOf(flow, direction, socket),
    opened: startedAt > 0 ? new Date(startedAt * 1000).toISOString() : null,
  }
}

/** conntrack remembers a connection that is over for a minute or two. */
function isOver({ tcpState = 0 }: Flow): boolean {
  return tcpState >= TCP_CONNTRACK_LAST_ACK
}

function bytesOf(flow: Flow, direction: Direction, socket: DiagnosedSocket | undefined): ReportedFlow['bytes'] {
  if (socket?.bytesAcknowledged !== undefined && socket.bytesReceived !== undefined) {
    return { sent: socket.bytesAcknowledged, received: socket.bytesReceived, by: 'socket' }
  }
  if (flow.bytes === undefined) return null
  const { original, reply } = flow.bytes
  const [sent, received] = direction === 'egress' ? [original, reply] : [reply, original]
  return { sent, received, by: 'conntrack' }
}

/** Connections that the policies deny, by whom and to which port: at most LISTED_RUNNING kinds, and how many others. */
export function groupDenied(options: FlowJudge, denied: readonly DeniedFlow[]) {
  const kinds = new Map<string, { -readonly [Key in keyof RunningDenial]: RunningDenial[Key] }>()
  let unlisted = 0
  for (const { flow, direction, decision } of denied) {
    if (isOver(flow)) continue
    const peer = peerOf(options, flow, direction)
    const protocol = protocolText(flow.original)
    const port = portOf(options, flow)
    const who = peer.pod === undefined ? peer.address : `${peer.pod.namespace}/${peer.pod.name}`
    const key = `${direction} ${protocol} ${port} ${who}`
    const kind = kinds.get(key)
    if (kind !== undefined) kind.count++
    else if (kinds.size >= LISTED_RUNNING) unlisted++
    else kinds.set(key, { direction, protocol, port, peer, policies: decision.isolatedBy, count: 1 })
  }
  return { running: [...kinds.values()] as RunningDenial[], unlisted }
}

/** The destination's real port. */
function portOf({ table }: FlowJudge, { mark, original }: Flow): number {
  const row = table.get(mark & MARK_INDEX)
  return row === undefined || row.port === 0 ? original.destinationPort : row.port
}

function peerOf(options: FlowJudge, flow: Flow, direction: Direction) {
  const address = formatAddress(endsOf(flow, direction).remote)
  const row = options.table.get(flow.mark & MARK_INDEX)
  if (row !== undefined) {
    const identity = options.currentIdentity(row.identity, row.issuedAt)
    return reportedPeer(identity === 'void' ? row.identity : identity, true, address)
  }
  return reportedPeer(podAt(options, address), false, address)
}

function podAt({ judge }: FlowJudge, address: string): PodIdentity | undefined {
  const entry = judge.directory.get(address)
  return entry !== undefined && entry !== 'unknown' && entry.kind === 'pod' ? entry.pod : undefined
}

function endsOf({ original }: Flow, direction: Direction): ConnectionEnds {
  const { source, sourcePort, destination, destinationPort } = original
  return direction === 'egress'
    ? { local: source, localPort: sourcePort, remote: destination, remotePort: destinationPort }
    : { local: destination, localPort: destinationPort, remote: source, remotePort: sourcePort }
}

function nameOf({ local, localPort, remote, remotePort }: ConnectionEnds, protocol: number): string {
  return `${protocol} ${formatAddress(local)} ${localPort} ${formatAddress(remote)} ${remotePort}`
}

function protocolText(tuple: ConntrackTuple): string {
  const protocol = protocolOf(tuple)
  return protocol === 'other' ? String(tuple.protocol) : protocol
}
