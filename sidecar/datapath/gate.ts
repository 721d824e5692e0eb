/**
 * The gate: everything that decides about a packet, without touching the world. The worker feeds it packets and
 * carries out its outcomes; tests feed it packets by hand.
 */
import type { DirectoryEntry, Mode, Protocol } from '../../api/identity.ts'
import { type Cidr, cidrContains, formatAddress } from '../../policy/address.ts'
import { type CompiledPolicy, couldAllowAnyPeer } from '../../policy/compile.ts'
import { createEvaluator, type Evaluator } from '../../policy/evaluator.ts'
import type { Direction } from '../../policy/types.ts'
import { computeMac, type MacState } from '../handshake/hmac.ts'
import type { OwnIdentity } from '../handshake/keys.ts'
import type { Refusal } from '../handshake/reasons.ts'
import type { Packet } from '../packet/decode.ts'
import { type BoundedMap, createBoundedMap } from './bounded-map.ts'
import {
  MAXIMUM_ADDRESSES,
  MAXIMUM_DENIALS_OF_ADDRESSES,
  MAXIMUM_DENIALS_OF_PODS,
  MAXIMUM_FRAMELESS_ADDRESSES,
  MAXIMUM_HALF_OPEN,
  MAXIMUM_HELD_PACKETS,
  MAXIMUM_PEERS,
  MAXIMUM_RECENT_SYNS,
  MAXIMUM_REFUSED_WITS,
  MAXIMUM_SOURCES,
  PREVIOUS_IDENTITY_SECONDS,
  REFUSAL_REPORTS_PER_SECOND,
  REFUSED_WIT_MILLISECONDS,
  RENEWALS_BURST,
  RENEWALS_PER_SECOND,
  UNKNOWN_KEYS_BURST,
  UNKNOWN_KEYS_PER_SECOND,
  VERIFICATIONS_BURST,
  VERIFICATIONS_PER_SECOND,
  VERIFICATIONS_PER_SOURCE_BURST,
  VERIFICATIONS_PER_SOURCE_PER_SECOND,
} from './bounds.ts'
import { type Counters, createCounters } from './counters.ts'
import { createDenialTable, type DenialTable } from './denials.ts'
import { createHalfOpenRing, type HalfOpenRing } from './half-open.ts'
import type { HashSeed } from './keyed-hash.ts'
import { createPeerTable, type PeerTable } from './peers.ts'
import { createRecentSyns, type RecentSyns } from './recent-syns.ts'
import { createSourceBuckets, createTokenBucket } from './token-bucket.ts'

/** Where the sidecar's own connections go: the issuer, and the API server where policies come from it. */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** What the gate is told about its Pod; replaced as a whole when something changes. */
export interface GateSettings {
  readonly mode: Mode
  readonly peersWithoutIdentity: 'resolve' | 'deny'
  readonly nodeAccess: 'probes' | 'all'
  readonly refusal: 'reset' | 'drop'
  /** Frames go only there, and only there the directory is asked. */
  readonly clusterNetworks: readonly Cidr[]
  /** Canonical text. */
  readonly nodeAddresses: readonly string[]
  readonly probePorts: readonly { readonly protocol: Protocol; readonly port: number }[]
  readonly healthPort: number
  readonly ownEndpoints: readonly Endpoint[]
  readonly skewSeconds: number
  /** Smallest MTU of the Pod's interfaces: a SYN with its frame fits it. */
  readonly mtu: number
}

/** What the kernel knows of this network namespace's sockets and connections; see sockets.ts. */
export interface Sockets {
  /** True where the connection's local socket belongs to this process. */
  isOwnConnection(bytes: Buffer, packet: Packet): boolean
  /** True where the socket that listens on this port belongs to this process. */
  isOwnListener(family: 4 | 6, port: number): boolean
  /** True where any socket listens on this port. */
  isListening(family: 4 | 6, port: number): boolean
  /** True where the connection's local socket is past SYN_SENT and SYN_RECV. */
  isEstablished(bytes: Buffer, packet: Packet, inbound: boolean): boolean
  /** Makes conntrack, which ignored this arriving SYN, follow the new connection. */
  reopenTracking(bytes: Buffer, packet: Packet): void
}

/** A refusal, for the log; addresses as text, the source being whoever opened the connection. */
export interface RefusalReport {
  readonly direction: Direction
  readonly refusal: Refusal
  /** False in audit mode: the packet went on. */
  readonly enforced: boolean
  readonly protocol: string
  readonly source: string
  readonly sourcePort: number
  readonly destination: string
  /** The real one, where the destination is a Service. */
  readonly destinationPort: number
  /** `namespace/name` where the peer is known. */
  readonly peer: string
  /** The policies that isolate this end, `namespace/name`. */
  readonly policies: readonly string[]
  /** What an operator may do about it, where that can be told. */
  readonly hint?: string
}

/** The compiled policies in force. */
export interface GatePolicy {
  readonly evaluator: Evaluator
  /** False where no egress rule could match any TCP peer: such a SYN is refused at once. */
  readonly tcpEgressPossible: boolean
}

/** What the settings say of an address that this Pod dialled. */
export interface AddressFacts {
  readonly text: string
  readonly isCluster: boolean
  readonly isNode: boolean
  /** The ports of the sidecar's own endpoints there. */
  readonly ownPorts: ReadonlySet<number>
}

export interface Gate {
  settings: GateSettings
  clusterNetworks: readonly Cidr[]
  nodeAddresses: ReadonlySet<string>
  /** By the address's bytes as latin1. */
  readonly addresses: BoundedMap<string, AddressFacts>
  ready: boolean
  own: OwnIdentity | undefined
  previous: OwnIdentity | undefined
  /** Milliseconds: until when `previous` may still be answered. */
  previousUntil: number
  policy: GatePolicy | undefined
  nowMilliseconds: number
  readonly secret: MacState
  readonly peers: PeerTable
  readonly directory: BoundedMap<string, DirectoryEntry | 'unknown'>
  readonly halfOpen: HalfOpenRing
  readonly recentSyns: RecentSyns
  readonly frameless: BoundedMap<string, true>
  /** Keys of the verifications under way, and since when (milliseconds). */
  readonly verifying: BoundedMap<string, number>
  readonly verifications: { take(source: string, nowMilliseconds: number): boolean }
  readonly allVerifications: { take(nowMilliseconds: number): boolean }
  readonly renewals: { take(nowMilliseconds: number): boolean }
  readonly unknownKeys: { take(nowMilliseconds: number): boolean }
  /** The headers that WITs of the trust bundle's keys have; undefined until the bundle is told. */
  trustedHeaders: ReadonlySet<string> | undefined
  readonly reports: { take(nowMilliseconds: number): boolean }
  readonly counters: Counters
  readonly denials: DenialTable
  readonly sockets: Sockets
  readonly report: (report: RefusalReport) => void
}

/** A gate that is not ready: everything waits or is dropped until identity and policies are set. */
export function createGate(parts: {
  readonly settings: GateSettings
  readonly secret: MacState
  readonly directory: BoundedMap<string, DirectoryEntry | 'unknown'>
  readonly sockets: Sockets
  readonly report: (report: RefusalReport) => void
}): Gate {
  const seed = hashSeed(parts.secret)
  const gate: Gate = {
    ...parts,
    clusterNetworks: [],
    nodeAddresses: new Set(),
    addresses: createBoundedMap(MAXIMUM_ADDRESSES),
    ready: false,
    own: undefined,
    previous: undefined,
    previousUntil: 0,
    policy: undefined,
    nowMilliseconds: 0,
    peers: createPeerTable(MAXIMUM_PEERS, MAXIMUM_REFUSED_WITS, REFUSED_WIT_MILLISECONDS),
    halfOpen: createHalfOpenRing(MAXIMUM_HALF_OPEN, seed),
    recentSyns: createRecentSyns(MAXIMUM_RECENT_SYNS, seed),
    frameless: createBoundedMap(MAXIMUM_FRAMELESS_ADDRESSES),
    verifying: createBoundedMap(MAXIMUM_HELD_PACKETS),
    verifications: createSourceBuckets(
      VERIFICATIONS_PER_SOURCE_PER_SECOND,
      VERIFICATIONS_PER_SOURCE_BURST,
      MAXIMUM_SOURCES,
    ),
    allVerifications: createTokenBucket(VERIFICATIONS_PER_SECOND, VERIFICATIONS_BURST),
    renewals: createTokenBucket(RENEWALS_PER_SECOND, RENEWALS_BURST),
    unknownKeys: createTokenBucket(UNKNOWN_KEYS_PER_SECOND, UNKNOWN_KEYS_BURST),
    trustedHeaders: undefined,
    reports: createTokenBucket(REFUSAL_REPORTS_PER_SECOND, REFUSAL_REPORTS_PER_SECOND),
    counters: createCounters(),
    denials: createDenialTable(MAXIMUM_DENIALS_OF_PODS, MAXIMUM_DENIALS_OF_ADDRESSES),
  }
  applySettings(gate, parts.settings)
  return gate
}

/** The seed of the tables' hash, from the secret of the nonces: no nonce's input is this short. */
function hashSeed(secret: MacState): HashSeed {
  const seed = Buffer.alloc(8)
  computeMac(secret, seed, 0, seed, 0, seed.length)
  return { low: seed.readInt32LE(0), high: seed.readInt32LE(4) }
}

export function applySettings(gate: Gate, settings: GateSettings): void {
  gate.settings = settings
  gate.clusterNetworks = settings.clusterNetworks
  gate.nodeAddresses = new Set(settings.nodeAddresses)
  gate.addresses.clear()
}

/** Compiled policies with an empty memory of decisions. */
export function createGatePolicy(compiled: CompiledPolicy): GatePolicy {
  return {
    evaluator: createEvaluator(compiled),
    tcpEgressPossible: couldAllowAnyPeer(compiled, 'egress', 'TCP'),
  }
}

/** Sets our identity; the one before it answers for its handshakes a while longer. */
export function setOwnIdentity(gate: Gate, own: OwnIdentity | undefined, nowMilliseconds: number): void {
  if (own && gate.own) {
    gate.previous = gate.own
    gate.previousUntil = nowMilliseconds + PREVIOUS_IDENTITY_SECONDS * 1000
  }
  gate.own = own
}

export function addressText(bytes: Buffer, at: number, addressBytes: number): string {
  return formatAddress(bytes.subarray(at, at + addressBytes))
}

/** What the settings say of the address, worked out once. */
export function addressFacts(gate: Gate, bytes: Buffer, at: number, addressBytes: number): AddressFacts {
  const key = bytes.toString('latin1', at, at + addressBytes)
  const known = gate.addresses.get(key)
  if (known) return known
  const text = addressText(bytes, at, addressBytes)
  const facts = {
    text,
    isCluster: isClusterAddress(gate, bytes, at, addressBytes),
    isNode: gate.nodeAddresses.has(text),
    ownPorts: new Set(gate.settings.ownEndpoints.filter(({ address }) => address === text).map(({ port }) => port)),
  }
  gate.addresses.set(key, facts)
  return facts
}

/** True where the address lies in the networks of the cluster. */
export function isClusterAddress(
  gate: Pick<Gate, 'clusterNetworks'>,
  bytes: Buffer,
  at: number,
  addressBytes: number,
): boolean {
  const address = bytes.subarray(at, at + addressBytes)
  for (const network of gate.clusterNetworks) if (cidrContains(network, address)) return true
  return false
}

export function isNodeAddress(
  gate: Pick<Gate, 'nodeAddresses'>,
  bytes: Buffer,
  at: number,
  addressBytes: number,
): boolean {
  return gate.nodeAddresses.has(addressText(bytes, at, addressBytes))
}
