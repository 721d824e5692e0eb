/** Decisions about peers: by their WIT where they showed one, else by what the directory says of their address. */
import type { DirectoryEntry, ServiceBackend } from '../../api/identity.ts'
import type { Cidr } from '../../policy/address.ts'
import type { Decision, Direction, Peer, TrafficProtocol } from '../../policy/types.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { type Directory, findDialled, knownAddress, type ServiceEntry } from './dialled.ts'
import { addressText, type GatePolicy, type GateSettings, isClusterAddress, isNodeAddress } from './gate.ts'
import type { KnownPeer } from './peers.ts'

/** What a judgement needs; a Gate has it, and so has whoever judges running connections. */
export interface Judge {
  readonly settings: Pick<GateSettings, 'peersWithoutIdentity' | 'nodeAccess' | 'probePorts'>
  readonly clusterNetworks: readonly Cidr[]
  readonly nodeAddresses: ReadonlySet<string>
  readonly directory: Directory
  readonly policy: GatePolicy | undefined
}

const NOT_SYNCED: Decision = { allowed: false, isolatedBy: [] }
const NODE_RULE: Decision = { allowed: true, by: 'not-isolated' }

/** The policies' decision for a peer whose WIT was verified. `port` is the destination's real one. */
export function decideIdentified(
  judge: Judge,
  direction: Direction,
  peer: KnownPeer,
  family: 4 | 6,
  port: number,
): Decision {
  const asPeer = peer.asPeer[family]
  if (!judge.policy || !asPeer) return NOT_SYNCED
  return judge.policy.evaluator.decide(direction, peer.index, asPeer, 'TCP', port)
}

/** What is known of a peer without a WIT. `unknown`: the directory has to be asked for `address` first. */
export type Judgement =
  | {
      readonly kind: 'decided'
      readonly decision: Decision
      readonly peer: Peer
      readonly refusal: Refusal
      /** The destination's real port where it is known, else the meeting's. */
      readonly port: number
    }
  | { readonly kind: 'unknown'; readonly address: string }

/** How a packet's peer showed itself: a TCP peer that answered or asked without a frame, or one of another protocol. */
export interface Meeting {
  readonly direction: Direction
  readonly protocol: TrafficProtocol
  /** The port of the destination as it stands in the packet: a Service's or a node's port for egress through a Service. */
  readonly port: number
  /** A guarded Pod must show a WIT here (TCP): no downgrade. */
  readonly witExpected: boolean
}

/** Judges the peer at `bytes[at, at + addressBytes)` by its address. */
export function judgeAddress(
  judge: Judge,
  meeting: Meeting,
  bytes: Buffer,
  at: number,
  addressBytes: number,
): Judgement {
  const address = addressText(bytes, at, addressBytes)
  if (!meeting.witExpected) {
    // Where nothing isolates nobody needs to know who it is.
    const peer: Peer = { kind: 'external', address }
    const decision = decide(judge, meeting, peer, meeting.port)
    if (decision.allowed && decision.by === 'not-isolated') return decided(meeting, decision, peer)
  }
  const isOwnNode = isNodeAddress(judge, bytes, at, addressBytes)
  const isCluster = isClusterAddress(judge, bytes, at, addressBytes)
  const isAsked = isCluster && judge.settings.peersWithoutIdentity === 'resolve'
  // The own node is known without the directory, but for its ports that lead to Services.
  if (isOwnNode && !(isAsked && meeting.direction === 'egress')) return judgeNode(judge, meeting, address)
  if (!isAsked) return byAddress(judge, meeting, { kind: 'external', address }, isCluster ? 'no-wit' : 'policy')
  if (meeting.direction === 'ingress') {
    const entry = judge.directory.get(address)
    return entry === undefined ? { kind: 'unknown', address } : judgeEntry(judge, meeting, address, entry)
  }
  const dialled = findDialled(
    judge.directory,
    knownAddress(judge.nodeAddresses, address),
    meeting.protocol,
    meeting.port,
  )
  if (dialled.kind === 'ask') return { kind: 'unknown', address: dialled.address }
  if (dialled.kind === 'service') return judgeService(judge, meeting, address, dialled)
  return isOwnNode ? judgeNode(judge, meeting, address) : judgeEntry(judge, meeting, address, dialled.entry)
}

function judgeEntry(judge: Judge, meeting: Meeting, address: string, entry: DirectoryEntry | 'unknown'): Judgement {
  if (entry === 'unknown') return byAddress(judge, meeting, { kind: 'external', address }, 'peer-unknown')
  switch (entry.kind) {
    case 'pod': {
      const peer: Peer = { kind: 'attested', pod: entry.pod, address }
      if (entry.guarded && meeting.witExpected) {
        return decided(meeting, NOT_SYNCED, peer, 'no-wit')
      }
      return decided(meeting, decide(judge, meeting, peer, meeting.port), peer)
    }
    case 'node':
      return byAddress(judge, meeting, { kind: 'node', address })
    // A Service's address opens no connections.
    case 'service':
    case 'unmatched':
    case 'external':
      return byAddress(judge, meeting, { kind: 'external', address })
  }
}

/**
 * A Service is allowed where every backend that the connection may have reached is allowed: all of them, less the
 * guarded ones where these would have shown a WIT.
 */
function judgeService(
  judge: Judge,
  meeting: Meeting,
  address: string,
  dialled: { readonly service: ServiceEntry; readonly port: number },
): Judgement {
  const { service } = dialled
  const port = service.ports.find((one) => one.protocol === meeting.protocol && one.port === dialled.port)
  const reached = (port?.backends ?? []).filter((backend) => !(backend.guarded && meeting.witExpected))
  const peerOfService: Peer = { kind: 'external', address }
  if (reached.length === 0) {
    const refusal = port && port.backends.length > 0 ? 'no-wit' : 'policy'
    const decision = refusal === 'no-wit' ? NOT_SYNCED : decide(judge, meeting, peerOfService, meeting.port)
    return decided(meeting, decision, peerOfService, refusal)
  }
  let decision: Decision = NOT_SYNCED
  let peer: Peer = peerOfService
  let backendPort = meeting.port
  for (const backend of reached) {
    peer = peerOfBackend(backend)
    backendPort = backend.port
    decision = decide(judge, meeting, peer, backendPort)
    if (!decision.allowed) break
  }
  return decided(meeting, decision, peer, 'policy', backendPort)
}

function peerOfBackend(backend: ServiceBackend): Peer {
  return backend.pod
    ? { kind: 'attested', pod: backend.pod, address: backend.address }
    : { kind: 'external', address: backend.address }
}

/** The Pod's own node: policy as an address first, then the exemption for the kubelet's probes. */
function judgeNode(judge: Judge, meeting: Meeting, address: string): Judgement {
  const peer: Peer = { kind: 'node', address }
  const decision = decide(judge, meeting, peer, meeting.port)
  if (decision.allowed || meeting.direction === 'egress') return decided(meeting, decision, peer)
  const exempt =
    judge.settings.nodeAccess === 'all' ||
    judge.settings.probePorts.some((probe) => probe.protocol === meeting.protocol && probe.port === meeting.port)
  return decided(meeting, exempt ? NODE_RULE : decision, peer)
}

function byAddress(judge: Judge, meeting: Meeting, peer: Peer, refusal: Refusal = 'policy'): Judgement {
  return decided(meeting, decide(judge, meeting, peer, meeting.port), peer, refusal)
}

function decided(
  meeting: Meeting,
  decision: Decision,
  peer: Peer,
  refusal: Refusal = 'policy',
  port: number = meeting.port,
): Judgement {
  return { kind: 'decided', decision, peer, refusal, port }
}

function decide(judge: Judge, meeting: Meeting, peer: Peer, port: number): Decision {
  if (!judge.policy) return NOT_SYNCED
  return judge.policy.evaluator.decide(meeting.direction, 0, peer, meeting.protocol, port)
}
