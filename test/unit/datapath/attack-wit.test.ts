/** WITs that the authority itself signed and that must open nothing all the same; and what they may cost. */
import { sign } from 'node:crypto'
import { deflateRawSync } from 'node:zlib'
import { describe, expect, it } from '@jest/globals'
import { applyMessage } from '../../../sidecar/datapath/control-messages.ts'
import {
  encodeSynAckFrame,
  encodeSynFrame,
  encodeWitSection,
  MAXIMUM_FRAME_BYTES,
} from '../../../sidecar/handshake/frame.ts'
import {
  ACK,
  advance,
  authority,
  connect,
  createPod,
  establish,
  fromClient,
  fromServer,
  judge,
  SYN,
  SYN_ACK,
  settle,
  shakeHands,
  type TestPod,
  twoPods,
} from './pods.ts'

const HEADER = { alg: 'ES256', kid: authority.kid, typ: 'wit+jwt', zip: 'DEF' }

/** A section with this payload under a good signature of the cluster's authority. */
function signedSection(payload: Buffer): Buffer {
  const header = Buffer.from(JSON.stringify(HEADER))
  const input = `${header.toString('base64url')}.${payload.toString('base64url')}`
  const signature = sign('sha256', Buffer.from(input), { key: authority.privateKey, dsaEncoding: 'ieee-p1363' })
  return encodeWitSection({ header, payload, signature })
}

async function show(at: TestPod, from: TestPod, section: Buffer) {
  return await settle(at, 'in', fromClient(connect(from, at), SYN, { payload: encodeSynFrame(section) }))
}

describe('signed by the authority', () => {
  it.each([
    ['10,000 labels', deflateRawSync(`{"pod":{"labels":{${'"a":"b",'.repeat(10_000)}"z":""}}}`)],
    ['a payload that inflates a thousandfold', deflateRawSync(Buffer.alloc(900_000))],
    ['a payload that is no deflate', Buffer.from('{"iss":"https://issuer"}')],
    ['no payload', Buffer.alloc(0)],
  ])('%s: refused, remembered, and nothing of it kept', async (_what, payload) => {
    const { client, server } = await twoPods()
    const section = signedSection(payload)
    expect(24 + section.length).toBeLessThanOrEqual(MAXIMUM_FRAME_BYTES)
    expect((await show(server, client, section)).refusal).toBe('wit-invalid')
    expect(
      judge(server, 'in', fromClient(connect(client, server), SYN, { payload: encodeSynFrame(section) })),
    ).toMatchObject({
      action: 'refuse',
      refusal: 'wit-invalid',
    })
    expect({ peers: server.gate.peers.size(), halfOpen: server.gate.halfOpen.size() }).toEqual({
      peers: 0,
      halfOpen: 0,
    })
  })

  it('a payload for a gigabyte is larger than a frame, and refused before anything is verified', async () => {
    const { client, server } = await twoPods()
    // Deflate shrinks to a thousandth at most: a gigabyte takes a megabyte, and an IP packet has 64 KiB.
    const payload = encodeSynFrame(signedSection(Buffer.alloc(60_000)))
    const syn = Buffer.concat([fromClient(connect(client, server), SYN), payload])
    syn.writeUInt16BE(syn.length, 2)
    expect(judge(server, 'in', syn)).toMatchObject({ action: 'refuse', refusal: 'frame' })
  })
})

describe('a WIT that held once', () => {
  const ends = [
    ['the server, at the SYN', 'server'],
    ['the client, at the SYN-ACK', 'client'],
  ] as const

  it.each(ends)('is refused by %s once it expired', async (_what, end) => {
    const { client, server } = await twoPods()
    await establish(connect(client, server, { clientPort: 1 }))
    const c = connect(client, server)
    const { syn, synAck, proof } = await shakeHands(c)
    const at = end === 'server' ? server : client
    // Its own identity is renewed meanwhile, the peer's is not: only the peer's age can be what is refused.
    const own = at.gate.own
    if (own) Object.assign(own, { expiresAt: own.expiresAt + 10_000 })
    advance([at], (3_600 + at.gate.settings.skewSeconds + 1) * 1_000)
    if (end === 'client')
      return expect(judge(client, 'in', synAck)).toMatchObject({ action: 'drop', refusal: 'wit-expired' })
    expect(judge(server, 'in', syn)).toMatchObject({ action: 'drop', refusal: 'wit-expired' })
    expect(judge(server, 'in', proof)).toMatchObject({ action: 'drop', refusal: 'wit-expired' })
  })

  it.each(ends)('is refused by %s once it is void', async (_what, end) => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { syn, synAck, proof } = await shakeHands(c)
    const [at, peer] = end === 'server' ? [server, client] : [client, server]
    applyMessage(at.gate, { type: 'void', uid: peer.identity.uid, issuedBefore: 2_000_000_000 })
    const bytes = end === 'server' ? [syn, proof] : [synAck]
    for (const one of bytes) expect(judge(at, 'in', one)).toMatchObject({ action: 'drop', refusal: 'wit-void' })
    if (end === 'server') expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('drop')
  })

  it('of another Pod is refused as a server’s too, where that Pod is not who was dialled', async () => {
    const { client, server } = await twoPods()
    const other = await createPod({ name: 'other', address: '10.244.0.7' })
    await establish(connect(client, other, { clientPort: 1 }))
    const c = connect(client, server)
    judge(client, 'out', fromClient(c, SYN))
    const payload = encodeSynAckFrame(4, other.section)
    expect(judge(client, 'in', fromServer(c, SYN_ACK, { payload })).action).toBe('drop')
  })
})

describe('where a WIT speaks from', () => {
  it('the node’s address stands for the Pod itself alone (its own Service, masqueraded), never for another Pod', async () => {
    const { client, server } = await twoPods()
    await establish(connect(client, server, { clientPort: 1 }))
    const { syn } = await shakeHands(connect(client, server))
    syn.set([10, 244, 0, 1], 12)
    expect(judge(server, 'in', syn)).toMatchObject({ action: 'refuse', refusal: 'wit-address' })
  })

  it('behind a Service too a server answers from an address of its WIT, or its answer is none', async () => {
    const { client, server } = await twoPods()
    const dialled = Buffer.from([10, 96, 0, 9])
    const elsewhere = { ...server, address: Buffer.from([10, 244, 0, 66]) }
    const c = connect(client, elsewhere)
    const syn = judge(client, 'out', fromClient(c, SYN, { to: dialled })).packet
    elsewhere.address.copy(syn, 16)
    await settle(server, 'in', syn)
    const synAck = (await settle(server, 'out', fromServer(c, SYN_ACK))).packet
    synAck.set(dialled, 12)
    expect(await settle(client, 'in', synAck)).toMatchObject({
      action: 'drop',
      refusal: 'wit-address',
      reply: undefined,
    })
  })
})

describe('our own WIT that comes back', () => {
  it('is a relay’s where we saw ourselves at an address that is neither ours nor the node’s', async () => {
    const { client } = await twoPods()
    const service = Buffer.from([10, 96, 0, 7])
    const stranger = { ...client, address: Buffer.from([10, 244, 0, 99]) }
    await establish(connect(client, client, { clientPort: 1 }))
    // As if the own server half had taken the relay's address for one of the WIT's.
    for (const known of client.gate.peers.findByUid(client.identity.uid)) {
      client.gate.peers.add({ ...known, addresses: [...known.addresses, stranger.address] })
    }
    const backends = [{ address: '10.244.0.2', port: 80, guarded: true, pod: client.identity }]
    const ports = [{ protocol: 'TCP', port: 80, backends }] as const
    const directory = { '10.96.0.7': { kind: 'service', namespace: 'shop', name: 'self', ports } } as const
    const c = connect(client, client)
    const syn = judge(client, 'out', fromClient(c, SYN, { to: service })).packet
    stranger.address.copy(syn, 12)
    syn.set(client.address, 16)
    expect((await settle(client, 'in', syn)).action).toBe('pass')
    const synAck = (await settle(client, 'out', fromServer({ ...c, client: stranger }, SYN_ACK))).packet
    synAck.set(service, 12)
    synAck.set(client.address, 16)
    const verdict = await settle(client, 'in', synAck, 0, directory)
    expect({ action: verdict.action, flags: verdict.packet.readUInt8(33) }).toEqual({ action: 'pass', flags: 0x14 })
  })
})
