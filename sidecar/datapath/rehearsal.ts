/**
 * Handshakes that nobody sees, before the first that somebody waits for. Code that has never run is compiled, and looks
 * everything up, as it runs: that alone made a new Pod's first connection ten times as long as its hundredth.
 */
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import type { PodIdentity } from '../../api/identity.ts'
import { exportPublicJwk, jwkThumbprint, type PublicJwk } from '../../certs/authority.ts'
import { parseCidr } from '../../policy/address.ts'
import type { NetworkPolicy } from '../../policy/types.ts'
import { encodeWitSection } from '../handshake/frame.ts'
import { createMacState } from '../handshake/hmac.ts'
import { buildTcp } from '../packet/build.ts'
import { createPacket, decodePacket, FLAG_ACK, FLAG_SYN } from '../packet/decode.ts'
import { createBoundedMap } from './bounded-map.ts'
import { applyMessage } from './control-messages.ts'
import { witHeader } from './first-contact.ts'
import { createGate, type Gate, type GateSettings } from './gate.ts'
import { handleInbound } from './inbound.ts'
import { handleOutbound } from './outbound.ts'
import { createOutcome } from './outcome.ts'

/** What has run once is compiled: with 24 a first contact took as long, and 6 MB more of memory were resident. */
const ROUNDS = 6
/** Sizes of a usual WIT. */
const PAYLOAD_BYTES = 480
const SIGNATURE_BYTES = 64
const LIFETIME_SECONDS = 3_600
/** Nobody of a real cluster asks too often of either. */
const ROUND_MILLISECONDS = 1_000
const PORT = 80
const NAMESPACE = 'rehearsal'

const SETTINGS: GateSettings = {
  mode: 'enforce',
  peersWithoutIdentity: 'resolve',
  nodeAccess: 'probes',
  refusal: 'reset',
  clusterNetworks: ['10.0.0.0/8', 'fd00::/8'].flatMap((text) => parseCidr(text) ?? []),
  nodeAddresses: [],
  probePorts: [],
  healthPort: 0,
  ownEndpoints: [],
  skewSeconds: 0,
  mtu: 1_500,
}

const POLICY: NetworkPolicy = {
  namespace: NAMESPACE,
  name: 'all',
  podSelector: [],
  policyTypes: ['Ingress', 'Egress'],
  ...(() => {
    const podSelector = [{ key: 'app', operator: 'In', values: [NAMESPACE] }] as const
    const rule = { peers: [{ kind: 'pods', podSelector }], ports: [{ protocol: 'TCP', port: PORT }] } as const
    return { ingress: [rule], egress: [rule] }
  })(),
}

/** A Pod that there is not. */
interface Actor {
  readonly gate: Gate
  readonly identity: PodIdentity
  readonly address: Uint8Array
  readonly privateKey: KeyObject
  readonly cnf: PublicJwk
  readonly thumbprint: string
  witHash: Buffer
  expiresAt: number
}

/**
 * Runs connections between two Pods that there are not, with gates of their own: for each round a first contact and
 * one of the pair as it is known then. Returns how many both ends released.
 */
export function rehearse(rounds: number = ROUNDS): number {
  const [client, server] = [createActor(1), createActor(2)]
  let released = 0
  for (let round = 1; round <= rounds; round++) {
    for (const actor of [client, server]) renew(actor, round)
    for (const sequence of [round, rounds + round]) {
      if (connect(client, server, sequence)) released++
    }
  }
  return released
}

function createActor(host: number): Actor {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const cnf = exportPublicJwk(privateKey)
  const identity = {
    ...{ namespace: NAMESPACE, name: `pod-${host}`, uid: `pod-${host}`, serviceAccount: 'default' },
    ...{ labels: { app: NAMESPACE }, namespaceLabels: {}, addresses: [`10.0.0.${host}`], ports: [] },
  }
  const gate = createGate({
    settings: SETTINGS,
    secret: createMacState(randomBytes(32)),
    directory: createBoundedMap(1),
    sockets: {
      isOwnConnection: () => false,
      isOwnListener: () => false,
      isListening: () => true,
      isEstablished: () => false,
      reopenTracking: () => undefined,
    },
    report: () => undefined,
  })
  applyMessage(gate, { type: 'policies', policies: [POLICY], subject: identity })
  applyMessage(gate, { type: 'ready', ready: true })
  const address = Uint8Array.of(10, 0, 0, host)
  const thumbprint = jwkThumbprint(cnf)
  return { gate, identity, address, privateKey, cnf, thumbprint, witHash: Buffer.alloc(0), expiresAt: 0 }
}

/** A new WIT, which no signature is under: nobody verifies it here. */
function renew(actor: Actor, generation: number): void {
  const { gate, identity, privateKey, thumbprint } = actor
  gate.nowMilliseconds += ROUND_MILLISECONDS
  actor.witHash = randomBytes(32)
  actor.expiresAt = gate.nowMilliseconds / 1000 + LIFETIME_SECONDS
  const witSection = encodeWitSection({
    header: Buffer.from(witHeader(thumbprint)),
    payload: randomBytes(PAYLOAD_BYTES),
    signature: randomBytes(SIGNATURE_BYTES),
  })
  const { witHash, expiresAt } = actor
  applyMessage(gate, {
    type: 'own',
    uid: identity.uid,
    generation,
    witSection,
    witHash,
    privateKey,
    thumbprint,
    expiresAt,
  })
}

const outcome = createOutcome()
const packet = createPacket()

/** SYN, SYN-ACK and proof; true where both ends released the connection. */
function connect(client: Actor, server: Actor, sequence: number): boolean {
  const syn = pass(client, server, 'out', segment(client, server, FLAG_SYN, sequence, 0))
  pass(server, client, 'in', syn)
  const answer = segment(server, client, FLAG_SYN | FLAG_ACK, sequence, sequence + 1)
  pass(client, server, 'in', pass(server, client, 'out', answer))
  const isReleased = outcome.action === 'release'
  pass(server, client, 'in', Buffer.from(outcome.reply.subarray(0, outcome.replyBytes)))
  return isReleased && outcome.action === 'release'
}

/** A packet of the connection as a kernel makes it; the client's port is that of its sequence number. */
function segment(from: Actor, to: Actor, flags: number, sequence: number, acknowledgement: number): Buffer {
  const out = Buffer.alloc(64)
  const clientPort = 32_768 + sequence
  const isAnswer = acknowledgement > 0
  const fields = {
    family: 4 as const,
    source: from.address,
    destination: to.address,
    sourcePort: isAnswer ? PORT : clientPort,
    destinationPort: isAnswer ? clientPort : PORT,
    sequence,
    acknowledgement,
    flags,
    window: 64_000,
  }
  return out.subarray(0, buildTcp(fields, new Uint8Array(0), out))
}

/** Puts a packet through an end's gate, the peer's WIT taken for verified where it has to be; as it is afterwards. */
function pass(at: Actor, peer: Actor, hook: 'in' | 'out', bytes: Buffer): Buffer {
  judge(at, hook, bytes)
  const { need } = outcome
  if (outcome.action === 'hold' && need?.kind === 'verify') {
    const { identity, witHash, cnf, thumbprint, expiresAt } = peer
    const issuedAt = expiresAt - LIFETIME_SECONDS
    const result = { index: 1, identity, witHash, cnf, thumbprint, kid: thumbprint, issuedAt, expiresAt }
    applyMessage(at.gate, { type: 'verified', key: need.key, section: need.section, result })
    judge(at, hook, bytes)
  }
  return outcome.packetBytes > 0 ? Buffer.from(outcome.packet.subarray(0, outcome.packetBytes)) : bytes
}

function judge({ gate }: Actor, hook: 'in' | 'out', bytes: Buffer): void {
  if (decodePacket(bytes, packet) !== 'ok') return
  if (hook === 'in') handleInbound(gate, 0, bytes, packet, outcome)
  else handleOutbound(gate, bytes, packet, outcome)
}
