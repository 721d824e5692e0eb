/** Decisions about peers: by their WIT where they showed one, else by what the directory says of their address. */
import type { DirectoryEntry, ServiceBackend } from '../../api/identity.ts'
import type { Cidr } from '../../policy/address.ts'
import type { Decision, Direction, Peer, TrafficProtocol } from '../../policy/types.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { addressText, type GatePolicy, type GateSettings, isClusterAddress, isNodeAddress } from './gate.ts'
import type { KnownPeer } from './peers.ts'

/** What a judgement needs; a Gate has it, and so has whoever judges running connections. */
export interface Judge {
  readonly settings: Pick<GateSettings, 'peersWithoutIdentity' | 'nodeAccess' | 'probePorts'>
  readonly clusterNetworks: readonly Cidr[]
  readonly nodeAddresses: ReadonlySet<string>
  readonly directory: { get(address: string): DirectoryEntry | 'unknown' | undefined }
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
  | { readonly kind: 'decided'; readonly decision: Decision; readonly peer: Peer; readonly refusal: Refusal }
  | { readonly kind: 'unknown'; readonly address: string }

/** How a packet's peer showed itself: a TCP peer that answered or asked without a frame, or one of another protocol. */
export interface Meeting {
  readonly direction: Direction
  readonly protocol: TrafficProtocol
  /** The port of the destination as it stands in the packet: a Service's port for egress through a Service. */
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
  if (isNodeAddress(judge, bytes, at, addressBytes)) return judgeNode(judge, meeting, address)
  if (!isClusterAddress(judge, bytes, at, addressBytes)) return byAddress(judge, meeting, { kind: 'external', address })
  if (judge.settings.peersWithoutIdentity === 'deny') {
    return byAddress(judge, meeting, { kind: 'external', address }, 'no-wit')
  }
  const entry = judge.directory.get(address)
  if (entry === undefined) return { kind: 'unknown', address }
  if (entry === 'unknown') return byAddress(judge, meeting, { kind: 'external', address }, 'peer-unknown')
  return judgeEntry(judge, meeting, address, entry)
}

function judgeEntry(judge: Judge, meeting: Meeting, address: string, entry: DirectoryEntry): Judgement {
  switch (entry.kind) {
    case 'pod': {
      const peer: Peer = { kind: 'attested', pod: entry.pod, address }
      if (entry.guarded && meeting.witExpected) {
        return { kind: 'decided', decision: NOT_SYNCED, peer, refusal: 'no-wit' }
      }
      return { kind: 'decided', decision: decide(judge, meeting, peer, meeting.port), peer, refusal: 'policy' }
    }
    case 'service':
      return meeting.direction === 'egress'
        ? judgeService(judge, meeting, address, entry)
        : byAddress(judge, meeting, { kind: 'external', address })
    case 'node':
      return byAddress(judge, meeting, { kind: 'node', address })
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
  service: Extract<DirectoryEntry, { kind: 'service' }>,
): Judgement {
  const port = service.ports.find((one) => one.protocol === meeting.protocol && one.port === meeting.port)
  const reached = (port?.backends ?? []).filter((backend) => !(backend.guarded && meeting.witExpected))
  const peerOfService: Peer = { kind: 'external', address }
  if (reached.length === 0) {
    const refusal = port && port.backends.length > 0 ? 'no-wit' : 'policy'
    const decision = refusal === 'no-wit' ? NOT_SYNCED : decide(judge, meeting, peerOfService, meeting.port)
    return { kind: 'decided', decision, peer: peerOfService, refusal }
  }
  let decision: Decision = NOT_SYNCED
  let peer: Peer = peerOfService
  for (const backend of reached) {
    peer = peerOfBackend(backend)
    decision = decide(judge, meeting, peer, backend.port)
    if (!decision.allowed) break
  }
  return { kind: 'decided', decision, peer, refusal: 'policy' }
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
  if (decision.allowed || meeting.direction === 'egress') return { kind: 'decided', decision, peer, refusal: 'policy' }
  const exempt =
    judge.settings.nodeAccess === 'all' ||
    judge.settings.probePorts.some((probe) => probe.protocol === meeting.protocol && probe.port === meeting.port)
  return { kind: 'decided', decision: exempt ? NODE_RULE : decision, peer, refusal: 'policy' }
}

function byAddress(judge: Judge, meeting: Meeting, peer: Peer, refusal: Refusal = 'policy'): Judgement {
  return { kind: 'decided', decision: decide(judge, meeting, peer, meeting.port), peer, refusal }
}

function decide(judge: Judge, meeting: Meeting, peer: Peer, port: number): Decision {
  if (!judge.policy) return NOT_SYNCED
  return judge.policy.evaluator.decide(meeting.direction, 0, peer, meeting.protocol, port)
}
