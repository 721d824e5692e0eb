/** Guarded Pods for tests of the gate: real keys, real WITs, packets by hand in place of a kernel. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import type { DirectoryEntry, PodIdentity } from '../../../api/identity.ts'
import { createSigningKey, exportPublicJwk, jwkThumbprint, trustBundle } from '../../../certs/authority.ts'
import { issueWit, verifyWit } from '../../../certs/wit.ts'
import { decodeWitParts } from '../../../certs/wit-parts.ts'
import { parseAddress, parseCidr } from '../../../policy/address.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { createBoundedMap } from '../../../sidecar/datapath/bounded-map.ts'
import { applyMessage } from '../../../sidecar/datapath/control-messages.ts'
import { handleDatagram } from '../../../sidecar/datapath/datagrams.ts'
import { createGate, type Gate, type GateSettings, type RefusalReport } from '../../../sidecar/datapath/gate.ts'
import { handleInbound } from '../../../sidecar/datapath/inbound.ts'
import { handleOutbound } from '../../../sidecar/datapath/outbound.ts'
import { createOutcome, type Outcome } from '../../../sidecar/datapath/outcome.ts'
import { encodeWitSection, witSectionParts } from '../../../sidecar/handshake/frame.ts'
import { createMacState } from '../../../sidecar/handshake/hmac.ts'
import { hashWit } from '../../../sidecar/handshake/keys.ts'
import { buildTcp } from '../../../sidecar/packet/build.ts'
import { createPacket, decodePacket, type Packet } from '../../../sidecar/packet/decode.ts'

export const NOW_SECONDS = 1_900_000_000
const EXPECTED = { trustDomain: 'cluster.local', issuer: 'https://issuer', skewSeconds: 120 }

export const authority = createSigningKey()

export interface TestPod {
  readonly gate: Gate
  readonly identity: PodIdentity
  readonly address: Uint8Array
  readonly section: Buffer
  readonly reports: RefusalReport[]
  /** Sockets that sock_diag would find established. */
  established: boolean
  readonly compact: string
}

export interface PodOptions {
  readonly name: string
  readonly namespace?: string
  readonly address: string
  readonly labels?: Readonly<Record<string, string>>
  readonly policies?: string
  readonly settings?: Partial<GateSettings>
  readonly issuedAt?: number
}

let nextGeneration = 1

export async function createPod(options: PodOptions): Promise<TestPod> {
  const { namespace = 'shop', name, address } = options
  const identity: PodIdentity = {
    namespace,
    name,
    uid: `uid-${name}`,
    serviceAccount: 'default',
    labels: options.labels ?? {},
    namespaceLabels: { 'kubernetes.io/metadata.name': namespace },
    addresses: [address],
    ports: [],
  }
  const own = await issueOwn(identity, options.issuedAt ?? NOW_SECONDS)
  const reports: RefusalReport[] = []
  const gate = createGate({
    settings: {
      mode: 'enforce',
      peersWithoutIdentity: 'resolve',
      nodeAccess: 'probes',
      refusal: 'reset',
      clusterNetworks: ['10.0.0.0/8', 'fd00::/8'].flatMap((cidr) => parseCidr(cidr) ?? []),
      nodeAddresses: ['10.244.0.1'],
      probePorts: [],
      healthPort: 15900,
      ownEndpoints: [],
      skewSeconds: EXPECTED.skewSeconds,
      mtu: 1500,
      ...options.settings,
    },
    secret: createMacState(randomBytes(32)),
    directory: createBoundedMap<string, DirectoryEntry | 'unknown'>(100),
    sockets: {
      isOwnConnection: () => false,
      isOwnListener: () => false,
      isListening: () => true,
      reopenTracking: () => undefined,
      isEstablished: () => pod.established,
    },
    report: (report) => reports.push(report),
  })
  gate.nowMilliseconds = NOW_SECONDS * 1000
  applyMessage(gate, own.message)
  setPolicies(gate, identity, options.policies ?? '')
  applyMessage(gate, { type: 'ready', ready: true })
  const pod: TestPod = {
    gate,
    identity,
    address: parseAddress(address) ?? new Uint8Array(4),
    section: own.section,
    reports,
    established: false,
    compact: own.compact,
  }
  return pod
}

/** A WIT with a fresh key, as the packet path is told of it. */
async function issueOwn(identity: PodIdentity, issuedAt: number) {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const cnf = exportPublicJwk(privateKey)
  const compact = await issueWit(authority, {
    identity,
    cnf,
    trustDomain: EXPECTED.trustDomain,
    issuer: EXPECTED.issuer,
    issuedAt,
    lifetimeSeconds: 3600,
    jti: randomBytes(16).toString('base64url'),
  })
  const section = encodeWitSection(decodeWitParts(compact))
  const message = {
    type: 'own',
    uid: identity.uid,
    generation: nextGeneration++,
    witSection: section,
    witHash: hashWit(compact),
    privateKey,
    thumbprint: jwkThumbprint(cnf),
    expiresAt: issuedAt + 3600,
  } as const
  return { message, section, compact }
}

/** Gives a Pod a new WIT with a fresh key, and other labels where told; returns its section. */
export async function renew(pod: TestPod, labels: Readonly<Record<string, string>> = pod.identity.labels) {
  const own = await issueOwn({ ...pod.identity, labels }, Math.floor(pod.gate.nowMilliseconds / 1000))
  applyMessage(pod.gate, own.message)
  return own.section
}

export function setPolicies(gate: Gate, subject: PodIdentity, yaml: string): void {
  applyMessage(gate, { type: 'policies', policies: parseNetworkPolicies(yaml, 'test.yaml'), subject })
}

/** Lets time pass at every Pod. */
export function advance(pods: readonly TestPod[], milliseconds: number): void {
  for (const { gate } of pods) gate.nowMilliseconds += milliseconds
}

export const FIN = 0x01
export const SYN = 0x02
export const RST = 0x04
export const ACK = 0x10
export const SYN_ACK = 0x12

/** A connection between two Pods, with its numbers; packets of it as the kernels at its ends make them. */
export interface Connection {
  readonly client: TestPod
  readonly server: TestPod
  readonly clientPort: number
  readonly serverPort: number
  readonly clientIsn: number
  readonly serverIsn: number
}

export function connect(client: TestPod, server: TestPod, numbers: Partial<Connection> = {}): Connection {
  return {
    client,
    server,
    clientPort: 40_000,
    serverPort: 80,
    clientIsn: 1_000,
    serverIsn: 0xffff_ff00,
    ...numbers,
  }
}

export function fromClient(c: Connection, flags: number, fields: Partial<Segment> = {}): Buffer {
  return segment({
    from: c.client.address,
    to: c.server.address,
    fromPort: c.clientPort,
    toPort: c.serverPort,
    sequence: flags === SYN ? c.clientIsn : (c.clientIsn + 1) >>> 0,
    acknowledgement: flags === SYN ? 0 : (c.serverIsn + 1) >>> 0,
    flags,
    ...fields,
  })
}

export function fromServer(c: Connection, flags: number, fields: Partial<Segment> = {}): Buffer {
  return segment({
    from: c.server.address,
    to: c.client.address,
    fromPort: c.serverPort,
    toPort: c.clientPort,
    sequence: flags === SYN_ACK ? c.serverIsn : (c.serverIsn + 1) >>> 0,
    acknowledgement: (c.clientIsn + 1) >>> 0,
    flags,
    ...fields,
  })
}

/** Runs a handshake up to the proof, which is not delivered; returns each packet as it was on the wire. */
export async function shakeHands(c: Connection) {
  const syn = (await settle(c.client, 'out', fromClient(c, SYN))).packet
  const synIn = await settle(c.server, 'in', syn)
  const synAck = (await settle(c.server, 'out', fromServer(c, SYN_ACK))).packet
  const synAckIn = await settle(c.client, 'in', synAck)
  return { syn, synIn, synAck, synAckIn, proof: synAckIn.reply ?? Buffer.alloc(0) }
}

/** The resets of a verdict that ends a connection: for the own kernel in the packet's place, and for the other end's. */
export function resetsOf({ action, packet, reply }: Verdict) {
  const numbersOf = (bytes: Buffer) => {
    const { flags, sequence } = decoded(bytes)
    return { flags, sequence }
  }
  return { action, own: numbersOf(packet), reply: reply && numbersOf(reply) }
}

function decoded(bytes: Buffer): Packet {
  const packet = createPacket()
  if (decodePacket(bytes, packet) !== 'ok') throw new Error('a verdict holds no packet')
  return packet
}

/** Runs a handshake to its end; `release` is the verdict on the proof. */
export async function establish(c: Connection) {
  const wire = await shakeHands(c)
  return { ...wire, release: judge(c.server, 'in', wire.proof) }
}

/** The packet with one byte XORed; its TCP checksum stays as it was, which the gate leaves to the kernel. */
export function flip(bytes: Uint8Array, at: number, mask = 1): Buffer {
  const copy = Buffer.from(bytes)
  copy.writeUInt8(copy.readUInt8(at) ^ mask, at)
  return copy
}

export function verify(compact: string, now: number = NOW_SECONDS) {
  return verifyWit(compact, trustBundle([authority]), { now, ...EXPECTED })
}

let nextIndex = 1
const indexes = new Map<string, number>()

/** Answers what an outcome needs, as the control plane would; returns the need's key. */
export async function satisfy(
  pod: TestPod,
  outcome: Outcome,
  directory: Readonly<Record<string, DirectoryEntry>> = {},
) {
  const need = outcome.need
  if (!need) throw new Error('nothing is needed')
  if (need.kind === 'verify') {
    const parts = witSectionParts(need.section)
    if (!parts) throw new Error('no WIT section')
    const compact = [parts.header, parts.payload, parts.signature]
      .map((part) => Buffer.from(part).toString('base64url'))
      .join('.')
    let result: Parameters<typeof applyMessage>[1] & { type: 'verified' }
    try {
      const wit = await verify(compact, Math.floor(pod.gate.nowMilliseconds / 1000))
      const index = indexes.get(wit.identity.uid) ?? nextIndex++
      indexes.set(wit.identity.uid, index)
      const { identity, cnf, kid, issuedAt, expiresAt } = wit
      const peer = {
        index,
        identity,
        witHash: wit.sha256,
        cnf,
        thumbprint: wit.cnfThumbprint,
        kid,
        issuedAt,
        expiresAt,
      }
      result = { type: 'verified', key: need.key, section: need.section, result: peer }
    } catch {
      result = { type: 'verified', key: need.key, section: need.section, result: 'wit-invalid' }
    }
    return applyMessage(pod.gate, result)
  }
  if (need.kind === 'resolve') {
    return applyMessage(pod.gate, {
      type: 'resolved',
      address: need.address,
      entry: directory[need.address] ?? 'unknown',
    })
  }
  if (need.kind === 'row') {
    return applyMessage(pod.gate, {
      type: 'row',
      key: need.key,
      index: need.index,
      port: need.port,
      row: 1_000 * need.index + need.port,
    })
  }
  return undefined
}

export interface Segment {
  readonly from: Uint8Array
  readonly to: Uint8Array
  readonly fromPort: number
  readonly toPort: number
  readonly sequence: number
  readonly acknowledgement?: number
  readonly flags: number
  readonly payload?: Uint8Array
  readonly options?: Uint8Array
  readonly window?: number
}

export function segment(fields: Segment): Buffer {
  const out = Buffer.alloc(2_000)
  const length = buildTcp(
    {
      family: fields.from.length === 4 ? 4 : 6,
      source: fields.from,
      destination: fields.to,
      sourcePort: fields.fromPort,
      destinationPort: fields.toPort,
      sequence: fields.sequence,
      acknowledgement: fields.acknowledgement ?? 0,
      flags: fields.flags,
      window: fields.window ?? 64_000,
      ...(fields.options && { options: fields.options }),
    },
    fields.payload ?? new Uint8Array(0),
    out,
  )
  return Buffer.from(out.subarray(0, length))
}

export const CLIENT = { name: 'client', address: '10.244.0.2' } as const
export const SERVER = { name: 'server', address: '10.244.0.3' } as const

/** Two guarded Pods, with what is said of each beside its name and address. */
export async function twoPods(client: Partial<PodOptions> = {}, server: Partial<PodOptions> = {}) {
  return { client: await createPod({ ...CLIENT, ...client }), server: await createPod({ ...SERVER, ...server }) }
}

/** A policy that lets in nobody. */
export const NOBODY = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nobody, namespace: shop }
spec: { podSelector: {}, policyTypes: [Ingress], ingress: [] }
`

/** Where the frame of an IPv4 packet without options begins. */
export const FRAME_AT = 40

export interface Verdict {
  readonly action: Outcome['action']
  readonly mark: number
  readonly refusal: string
  /** The packet after the verdict. */
  readonly packet: Buffer
  readonly reply: Buffer | undefined
  readonly outcome: Outcome
}

/** Puts a packet through a Pod's gate once. */
export function judge(pod: TestPod, hook: 'in' | 'out', bytes: Buffer, mark = 0): Verdict {
  const outcome = createOutcome()
  const packet = createPacket()
  const copy = Buffer.from(bytes)
  if (decodePacket(copy, packet) !== 'ok') throw new Error('a test packet does not decode')
  if (packet.protocol !== 6 || packet.fragment !== 'none')
    handleDatagram(pod.gate, hook === 'in', copy, packet, outcome)
  else if (hook === 'in') handleInbound(pod.gate, mark, copy, packet, outcome)
  else handleOutbound(pod.gate, copy, packet, outcome)
  return {
    action: outcome.action,
    mark: outcome.mark,
    refusal: outcome.refusal,
    packet: Buffer.from(outcome.packetBytes > 0 ? outcome.packet.subarray(0, outcome.packetBytes) : copy),
    reply: outcome.replyBytes > 0 ? Buffer.from(outcome.reply.subarray(0, outcome.replyBytes)) : undefined,
    outcome,
  }
}

/** The same, answering every need on the way. */
export async function settle(
  pod: TestPod,
  hook: 'in' | 'out',
  bytes: Buffer,
  mark = 0,
  directory: Readonly<Record<string, DirectoryEntry>> = {},
): Promise<Verdict> {
  for (let round = 0; round < 5; round++) {
    const verdict = judge(pod, hook, bytes, mark)
    if (verdict.action !== 'hold') return verdict
    await satisfy(pod, verdict.outcome, directory)
  }
  throw new Error('a packet is held for ever')
}
