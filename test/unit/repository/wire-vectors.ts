/** Computes the vectors of docs/wire.md with the product's own code from fixed keys, secrets and WITs. */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import type { TrustBundle } from '../../../api/identity.ts'
import { exportPublicJwk, jwkThumbprint } from '../../../certs/authority.ts'
import { decodeWitParts } from '../../../certs/wit-parts.ts'
import { parseAddress } from '../../../policy/address.ts'
import { attachSynFrame, buildProof, createVerifiedSynAck } from '../../../sidecar/handshake/client.ts'
import { ADDRESSES_AT, encodeWitSection, NONCE_AT, NONCE_BYTES } from '../../../sidecar/handshake/frame.ts'
import { createMacState } from '../../../sidecar/handshake/hmac.ts'
import {
  createOwnIdentity,
  derivePairwiseKey,
  hashWit,
  type OwnIdentity,
  type PeerIdentity,
  sharedSecret,
} from '../../../sidecar/handshake/keys.ts'
import { attachSynAckFrame } from '../../../sidecar/handshake/server.ts'
import { buildTcp } from '../../../sidecar/packet/build.ts'
import { createPacket, decodePacket, FLAG_ACK, FLAG_SYN, type Packet } from '../../../sidecar/packet/decode.ts'

export interface VectorPod {
  /** The cnf key as a private JWK. */
  readonly privateKey: Readonly<Record<string, string>>
  readonly wit: string
  /** The secret of its nonces, hex. */
  readonly nonceSecret: string
  readonly thumbprint: string
  readonly witSha256: string
  readonly witSection: string
}

export interface VectorConnection {
  readonly family: 4 | 6
  readonly client: { readonly address: string; readonly port: number }
  readonly server: { readonly address: string; readonly port: number }
  readonly clientIsn: number
  readonly serverIsn: number
  readonly synFrame: string
  readonly synAckFrame: string
  readonly proofFrame: string
  readonly proofSequence: number
  readonly proofAcknowledgement: number
}

export interface Vectors {
  readonly about: string
  /** When the WITs were issued and the connections made, and what verifies the WITs. */
  readonly issuedAt: number
  readonly trustDomain: string
  readonly issuer: string
  readonly bundle: TrustBundle
  readonly client: VectorPod
  readonly server: VectorPod
  readonly pairwiseKey: string
  readonly connections: readonly VectorConnection[]
}

type GivenPod = Pick<VectorPod, 'privateKey' | 'wit' | 'nonceSecret'>
type GivenConnection = Pick<VectorConnection, 'family' | 'client' | 'server' | 'clientIsn' | 'serverIsn'>

export type Given = Omit<Vectors, 'client' | 'server' | 'pairwiseKey' | 'connections'> & {
  readonly client: GivenPod
  readonly server: GivenPod
  readonly connections: readonly GivenConnection[]
}

export function readPrivateKey(pod: GivenPod): KeyObject {
  return createPrivateKey({ key: pod.privateKey, format: 'jwk' })
}

function createEnds(given: GivenPod, generation: number) {
  const privateKey = readPrivateKey(given)
  const cnf = exportPublicJwk(privateKey)
  const section = encodeWitSection(decodeWitParts(given.wit))
  const known = { witHash: hashWit(given.wit), thumbprint: jwkThumbprint(cnf), expiresAt: Number.MAX_SAFE_INTEGER }
  const own: OwnIdentity = createOwnIdentity({ ...known, uid: '', generation, witSection: section, privateKey })
  const identity = { namespace: '', name: '', uid: '', serviceAccount: '', labels: {}, namespaceLabels: {} }
  const peer: PeerIdentity = {
    ...known,
    index: 1,
    indexByPort: new Map(),
    identity: { ...identity, addresses: [], ports: [] },
    addresses: [],
    cnf,
    kid: '',
    issuedAt: 0,
    refused: '',
    pairs: new Map(),
  }
  return { own, peer, section, pod: { ...given, ...toText(known), witSection: section.toString('hex') } }
}

const toText = ({ witHash, thumbprint }: { witHash: Buffer; thumbprint: string }) => ({
  thumbprint,
  witSha256: witHash.toString('hex'),
})

function requireAddress(text: string): Uint8Array {
  const address = parseAddress(text)
  if (address === undefined) throw new TypeError(`${text} is no address`)
  return address
}

/** A bare packet of the connection as either kernel sends it, with its decoded form. */
function bare(c: GivenConnection, fromClient: boolean, sequence: number, acknowledgement: number, flags: number) {
  const [source, destination] = fromClient ? [c.client, c.server] : [c.server, c.client]
  const out = Buffer.alloc(100)
  const length = buildTcp(
    {
      family: c.family,
      source: requireAddress(source.address),
      destination: requireAddress(destination.address),
      sourcePort: source.port,
      destinationPort: destination.port,
      sequence,
      acknowledgement,
      flags,
      window: 64_240,
    },
    new Uint8Array(0),
    out,
  )
  const packet = createPacket()
  const bytes = out.subarray(0, length)
  if (decodePacket(bytes, packet) !== 'ok') throw new TypeError('the vector packet does not decode')
  return { bytes, packet }
}

const payloadOf = (out: Buffer, length: number, packet: Packet) => out.subarray(packet.payloadOffset, length)

/** The whole file from what is given. */
export function computeVectors(given: Given): Vectors {
  const client = createEnds(given.client, 1)
  const server = createEnds(given.server, 1)
  const clientSecret = createMacState(Buffer.from(given.client.nonceSecret, 'hex'))
  const serverSecret = createMacState(Buffer.from(given.server.nonceSecret, 'hex'))

  function computeConnection(c: GivenConnection): VectorConnection {
    const out = Buffer.alloc(2_048)
    const syn = bare(c, true, c.clientIsn, 0, FLAG_SYN)
    const synFrame = Buffer.from(
      payloadOf(out, attachSynFrame(client.own, clientSecret, syn.bytes, syn.packet, out), syn.packet),
    )
    const nonce = synFrame.subarray(NONCE_AT, NONCE_AT + NONCE_BYTES)
    const synAck = bare(c, false, c.serverIsn, (c.clientIsn + 1) >>> 0, FLAG_SYN | FLAG_ACK)
    const answered = attachSynAckFrame(
      serverSecret,
      server.own,
      client.peer,
      1,
      nonce,
      0,
      given.issuedAt,
      synAck.bytes,
      synAck.packet,
      out,
    )
    const synAckFrame = Buffer.from(payloadOf(out, answered, synAck.packet))

    const verified = createVerifiedSynAck()
    verified.own = client.own
    verified.peer = server.peer
    nonce.copy(verified.nonce)
    Object.assign(verified.transcript, {
      version: 1,
      serverNonce: synAckFrame,
      serverNonceAt: NONCE_AT,
      endpoints: synAckFrame,
      endpointsAt: ADDRESSES_AT,
      addressBytes: synAck.packet.addressBytes,
    })
    const proof = createPacket()
    const proofBytes = buildProof(verified, { window: 64_240, windowScale: 7 }, synAck.bytes, synAck.packet, out)
    if (decodePacket(out.subarray(0, proofBytes), proof) !== 'ok') throw new TypeError('the proof does not decode')
    return {
      ...c,
      synFrame: synFrame.toString('hex'),
      synAckFrame: synAckFrame.toString('hex'),
      proofFrame: payloadOf(out, proofBytes, proof).toString('hex'),
      proofSequence: proof.sequence,
      proofAcknowledgement: proof.acknowledgement,
    }
  }

  const secret = sharedSecret(client.own.privateKey, server.peer.cnf)
  const key = derivePairwiseKey(secret, client.own.thumbprint, server.peer.thumbprint)
  return {
    ...given,
    client: client.pod,
    server: server.pod,
    pairwiseKey: key.toString('hex'),
    connections: given.connections.map(computeConnection),
  }
}
