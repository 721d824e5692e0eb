/** WITs of others, WITs that do not hold, relays, stripped frames, and every frame type where it does not belong. */
import { createHmac, randomBytes } from 'node:crypto'
import { deflateRawSync } from 'node:zlib'
import { describe, expect, it } from '@jest/globals'
import type { DirectoryEntry } from '../../../api/identity.ts'
import { createSigningKey, exportPublicJwk } from '../../../certs/authority.ts'
import { issueWit } from '../../../certs/wit.ts'
import { decodeWitParts } from '../../../certs/wit-parts.ts'
import { encodeSynFrame, encodeWitSection } from '../../../sidecar/handshake/frame.ts'
import {
  ACK,
  authority,
  connect,
  createPod,
  establish,
  FRAME_AT,
  flip,
  fromClient,
  fromServer,
  judge,
  NOW_SECONDS,
  SYN,
  SYN_ACK,
  setPolicies,
  settle,
  shakeHands,
  type TestPod,
} from './pods.ts'

async function threePods() {
  const client = await createPod({ name: 'client', address: '10.244.0.2', labels: { tier: 'frontend' } })
  const server = await createPod({ name: 'server', address: '10.244.0.3' })
  const mallory = await createPod({ name: 'mallory', address: '10.244.0.9' })
  return { client, server, mallory }
}

const base64 = (value: string | Uint8Array): string => Buffer.from(value).toString('base64url')

/** A SYN that shows `compact`, from the client's address. */
function synShowing(client: TestPod, server: TestPod, section: Uint8Array): Buffer {
  return fromClient(connect(client, server), SYN, { payload: encodeSynFrame(section) })
}

function sectionOf(header: unknown, payload: Uint8Array, signature: Uint8Array): Buffer {
  return encodeWitSection({ header: Buffer.from(JSON.stringify(header)), payload, signature })
}

async function issueFor(pod: TestPod, issuedAt: number, key = authority): Promise<Buffer> {
  const compact = await issueWit(key, {
    identity: pod.identity,
    cnf: exportPublicJwk(createSigningKey().privateKey),
    trustDomain: 'cluster.local',
    issuer: 'https://issuer',
    issuedAt,
    lifetimeSeconds: 3600,
    jti: randomBytes(16).toString('base64url'),
  })
  return encodeWitSection(decodeWitParts(compact))
}

describe('a WIT that does not hold opens nothing', () => {
  const header = { alg: 'ES256', kid: authority.kid, typ: 'wit+jwt', zip: 'DEF' }

  async function attempt(makeSection: (client: TestPod) => Promise<Uint8Array> | Uint8Array) {
    const { client, server } = await threePods()
    const verdict = await settle(server, 'in', synShowing(client, server, await makeSection(client)))
    const c = connect(client, server)
    const answered = judge(server, 'out', fromServer(c, SYN_ACK))
    const acknowledged = judge(server, 'in', fromClient(c, ACK))
    expect([answered.action, acknowledged.action]).toEqual(['drop', 'refuse'])
    return verdict.refusal
  }

  it('expired', async () => {
    expect(await attempt((client) => issueFor(client, NOW_SECONDS - 4_000))).toBe('wit-invalid')
  })

  it('not yet valid', async () => {
    expect(await attempt((client) => issueFor(client, NOW_SECONDS + 1_000))).toBe('wit-invalid')
  })

  it('signed by a key that the trust bundle lacks', async () => {
    expect(await attempt((client) => issueFor(client, NOW_SECONDS, createSigningKey()))).toBe('wit-invalid')
  })

  it('alg none', async () => {
    const forged = (client: TestPod) => sectionOf({ ...header, alg: 'none' }, partsOf(client).payload, Buffer.alloc(0))
    expect(await attempt(forged)).toBe('wit-invalid')
  })

  it('alg HS256 under the public key', async () => {
    const forged = (client: TestPod) => {
      const payload = partsOf(client).payload
      const input = `${base64(JSON.stringify({ ...header, alg: 'HS256' }))}.${base64(payload)}`
      const mac = createHmac('sha256', JSON.stringify(exportPublicJwk(authority.privateKey)))
        .update(input)
        .digest()
      return sectionOf({ ...header, alg: 'HS256' }, payload, mac)
    }
    expect(await attempt(forged)).toBe('wit-invalid')
  })

  it('a payload of another WIT under this signature', async () => {
    const other = await createPod({ name: 'other', address: '10.244.0.5', labels: { tier: 'admin' } })
    const forged = (client: TestPod) => encodeWitSection({ ...partsOf(client), payload: partsOf(other).payload })
    expect(await attempt(forged)).toBe('wit-invalid')
  })

  it('a deflate bomb', async () => {
    const bomb = deflateRawSync(Buffer.alloc(900_000))
    expect(await attempt((client) => sectionOf(header, bomb, partsOf(client).signature))).toBe('wit-invalid')
  })

  it('larger than a frame may be', async () => {
    expect(await attempt((client) => sectionOf(header, Buffer.alloc(1_300), partsOf(client).signature))).toBe('frame')
  })

  it('of another Pod, which has another address', async () => {
    const mallory = await createPod({ name: 'mallory', address: '10.244.0.9' })
    expect(await attempt(() => mallory.section)).toBe('wit-address')
  })
})

function partsOf(pod: TestPod) {
  return decodeWitParts(pod.compact)
}

describe('a recorded WIT of another Pod, shown from that Pod’s address', () => {
  it('opens nothing without its key: the proof by another key is none', async () => {
    const { client, server, mallory } = await threePods()
    const c = connect(client, server)
    const { syn, synAck } = await shakeHands(c)
    await settle(server, 'in', syn)
    // Mallory answers the SYN-ACK as if it were hers, then names the client's WIT in her proof.
    await establish(connect(mallory, server, { clientPort: 1 }))
    const own = await shakeHands(connect(mallory, server))
    const forged = Buffer.from(own.proof)
    forged.set(client.address, 12)
    expect(judge(server, 'in', forged)).toMatchObject({ action: 'drop', refusal: 'wit-address' })
    const clientProof = (await settle(client, 'in', synAck)).reply ?? Buffer.alloc(0)
    clientProof.copy(forged, FRAME_AT + 56, FRAME_AT + 56)
    expect(judge(server, 'in', forged)).toMatchObject({ action: 'drop', refusal: 'mac' })
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('drop')
  })

  it('a second WIT with another uid on a pending flow is ignored', async () => {
    const { client, server } = await threePods()
    const twin = await createPod({ name: 'twin', address: '10.244.0.2' })
    const c = connect(client, server)
    const wire = await shakeHands(c)
    const second = await settle(server, 'in', synShowing(twin, server, twin.section))
    expect(second).toMatchObject({ action: 'drop', refusal: 'mac' })
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(c, ACK)).mark).toBe(wireIndex(server, client))
  })
})

function wireIndex(at: TestPod, peer: TestPod): number | undefined {
  return at.gate.peers.findByUid(peer.identity.uid)[0]?.index
}

describe('relays', () => {
  it('a third Pod that passes a SYN on to another server than was dialled is found out by the server’s WIT', async () => {
    const { client, server } = await threePods()
    const other = await createPod({ name: 'other', address: '10.244.0.4' })
    await establish(connect(client, server, { clientPort: 1 }))
    const syn = judge(client, 'out', fromClient(connect(client, server), SYN)).packet
    syn.set(other.address, 16)
    await settle(other, 'in', syn)
    const synAck = (await settle(other, 'out', fromServer(connect(client, other), SYN_ACK))).packet
    synAck.set(server.address, 12)
    const verdict = await settle(client, 'in', synAck)
    expect(verdict).toMatchObject({ action: 'drop', refusal: 'wit-address', reply: undefined })
  })

  it('a third Pod that relays under its own address is found out by the address that the server saw', async () => {
    const { client, server, mallory } = await threePods()
    const syn = judge(client, 'out', fromClient(connect(client, server), SYN)).packet
    syn.set(mallory.address, 12)
    expect(await settle(server, 'in', syn)).toMatchObject({ action: 'refuse', refusal: 'wit-address' })
  })

  it('a server that saw the connection come from another address is refused, though its MAC holds', async () => {
    const { client, server, mallory } = await threePods()
    const c = connect(client, server)
    // The relay masquerades, and the server accepts the client's WIT there: its node's, say.
    const syn = judge(client, 'out', fromClient(c, SYN)).packet
    await settle(server, 'in', syn)
    for (const known of server.gate.peers.findByUid(client.identity.uid)) {
      server.gate.peers.add({ ...known, addresses: [mallory.address] })
    }
    syn.set(mallory.address, 12)
    expect((await settle(server, 'in', syn)).action).toBe('pass')
    const synAck = (await settle(server, 'out', fromServer({ ...c, client: mallory }, SYN_ACK))).packet
    synAck.set(client.address, 16)
    const verdict = await settle(client, 'in', synAck)
    expect({ action: verdict.action, flags: verdict.packet.readUInt8(33) }).toEqual({ action: 'pass', flags: 0x14 })
  })

  async function reflected(directory: Readonly<Record<string, DirectoryEntry>>) {
    const { client } = await threePods()
    const service = { ...client, address: Buffer.from([10, 96, 0, 7]) }
    const c = connect(client, service)
    const syn = judge(client, 'out', fromClient(c, SYN)).packet
    syn.set(client.address, 16)
    await settle(client, 'in', syn)
    const synAck = (await settle(client, 'out', fromServer({ ...c, server: client }, SYN_ACK))).packet
    synAck.set(service.address, 12)
    return settle(client, 'in', synAck, 0, directory)
  }

  it('its own WIT comes back to a Pod only through a Service that has it as a backend', async () => {
    const backend = (uid: string): DirectoryEntry => {
      const pod = {
        namespace: 'shop',
        name: 'x',
        uid,
        serviceAccount: '',
        labels: {},
        namespaceLabels: {},
        addresses: [],
        ports: [],
      }
      const backends = [{ address: '10.244.0.2', port: 80, guarded: true, pod }]
      return { kind: 'service', namespace: 'shop', name: 'web', ports: [{ protocol: 'TCP', port: 80, backends }] }
    }
    const outcomes = []
    for (const entry of [backend('uid-client'), backend('uid-server'), { kind: 'external' } as const]) {
      const verdict = await reflected({ '10.96.0.7': entry })
      outcomes.push({ action: verdict.action, flags: verdict.packet.readUInt8(33) })
    }
    const refused = { action: 'pass', flags: 0x14 }
    expect(outcomes).toEqual([{ action: 'release', flags: SYN_ACK }, refused, refused])
  })

  it('a hairpin through a Service is allowed by a policy that allows nobody, and still proved', async () => {
    const { client } = await threePods()
    setPolicies(
      client.gate,
      client.identity,
      `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nobody, namespace: shop }
spec: { podSelector: {}, policyTypes: [Ingress], ingress: [] }
`,
    )
    const c = connect(client, client)
    const syn = judge(client, 'out', fromClient(c, SYN)).packet
    expect((await settle(client, 'in', syn)).action).toBe('pass')
    await settle(client, 'out', fromServer(c, SYN_ACK))
    expect(judge(client, 'in', fromClient(c, ACK)).action).toBe('drop')
  })
})

describe('frames that were removed on the path', () => {
  it('a guarded Pod that shows none is refused as client', async () => {
    const { client, server } = await threePods()
    const directory = { '10.244.0.2': { kind: 'pod', guarded: true, pod: client.identity } } as const
    const verdict = await settle(server, 'in', fromClient(connect(client, server), SYN), 0, directory)
    expect(verdict.refusal).toBe('no-wit')
    expect(judge(server, 'out', fromServer(connect(client, server), SYN_ACK)).action).toBe('drop')
  })

  it('a guarded Pod that shows none is refused as server', async () => {
    const { client, server } = await threePods()
    const directory = { '10.244.0.3': { kind: 'pod', guarded: true, pod: server.identity } } as const
    const c = connect(client, server)
    judge(client, 'out', fromClient(c, SYN))
    const verdict = await settle(client, 'in', fromServer(c, SYN_ACK), 0, directory)
    expect({ action: verdict.action, flags: verdict.packet.readUInt8(33) }).toEqual({ action: 'pass', flags: 0x14 })
  })

  it('a SYN without frame does not take its identity from the same SYN with one', async () => {
    const { client, server } = await threePods()
    const c = connect(client, server)
    const { syn, proof } = await shakeHands(c)
    const plain = fromClient(c, SYN, { payload: Buffer.from('GET / HTTP/1.0') })
    const passed = judge(server, 'in', plain)
    expect({ action: passed.action, bytes: passed.packet.length }).toEqual({ action: 'pass', bytes: 40 })
    expect((await settle(server, 'out', fromServer(c, SYN_ACK))).packet.length).toBeGreaterThan(100)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('drop')
    judge(server, 'in', proof)
    expect(judge(server, 'in', syn).action).toBe('pass')
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })
})

describe('both ends open at once', () => {
  it('each end is released by the other’s verified SYN-ACK only', async () => {
    const { client, server } = await threePods()
    const there = connect(client, server, { clientPort: 7_000, serverPort: 7_001, clientIsn: 10, serverIsn: 20 })
    const back = {
      ...there,
      client: server,
      server: client,
      clientPort: 7_001,
      serverPort: 7_000,
      clientIsn: 20,
      serverIsn: 10,
    }
    const synThere = judge(client, 'out', fromClient(there, SYN)).packet
    const synBack = judge(server, 'out', fromClient(back, SYN)).packet
    expect([(await settle(server, 'in', synThere)).action, (await settle(client, 'in', synBack)).action]).toEqual([
      'pass',
      'pass',
    ])
    expect(judge(server, 'in', fromClient(there, ACK, { acknowledgement: 21 })).action).not.toBe('release')
    const answer = (await settle(server, 'out', fromServer(there, SYN_ACK))).packet
    const forged = fromServer(there, SYN_ACK, { payload: Buffer.from(answer.subarray(FRAME_AT)) })
    expect(judge(client, 'in', flip(forged, FRAME_AT + 30)).action).toBe('drop')
    expect(judge(client, 'in', answer).action).toBe('release')
  })
})

describe('frames in wrong places, and damaged ones', () => {
  it('no frame type but its own does anything in a SYN, a SYN-ACK or data', async () => {
    const { client, server } = await threePods()
    const c = connect(client, server)
    const wire = await shakeHands(c)
    const resync = Buffer.from('SYNG\x01\x04\x00\x08', 'latin1')
    const frames = [wire.syn, wire.synAck, wire.proof].map((bytes) => bytes.subarray(FRAME_AT)).concat([resync])
    const released: string[] = []
    for (const [type, payload] of frames.entries()) {
      const attempts = {
        syn: type !== 0 && judge(server, 'in', fromClient(c, SYN, { payload, sequence: 5 })),
        'syn-ack': type !== 1 && judge(client, 'in', fromServer(c, SYN_ACK, { payload })),
        data: judge(server, 'in', fromClient(c, ACK, { payload })),
        'data to the client': judge(client, 'in', fromServer(c, ACK, { payload })),
      }
      for (const [name, verdict] of Object.entries(attempts)) {
        if (verdict !== false && verdict.action === 'release') released.push(`${name} with frame ${type + 1}`)
      }
    }
    expect(released).toEqual([])
    expect(judge(server, 'out', fromServer({ ...c, clientIsn: 5 }, SYN_ACK)).action).toBe('drop')
  })

  it('every prefix and every flipped byte of each frame neither throws nor releases', async () => {
    const { client, server } = await threePods()
    const c = connect(client, server)
    const wire = await shakeHands(c)
    const cases = [
      { at: server, flags: SYN, bytes: wire.syn },
      { at: client, flags: SYN_ACK, bytes: wire.synAck },
      { at: server, flags: ACK, bytes: wire.proof },
    ]
    let tried = 0
    for (const { at, flags, bytes } of cases) {
      const frame = bytes.subarray(FRAME_AT)
      const damaged: Buffer[] = []
      for (let end = 0; end < frame.length; end++) damaged.push(Buffer.from(frame.subarray(0, end)))
      for (let index = 0; index < frame.length; index++) damaged.push(flip(frame, index, 0x41))
      for (const payload of damaged) {
        const make = flags === SYN_ACK ? fromServer : fromClient
        const sequence = flags === ACK ? (c.clientIsn + 1 - 88) >>> 0 : undefined
        const verdict = judge(at, 'in', make(c, flags, { payload, ...(sequence === undefined ? {} : { sequence }) }))
        if (verdict.action === 'release') throw new Error(`released by ${payload.toString('hex')}`)
        tried++
      }
    }
    expect(tried).toBe(2 * cases.reduce((sum, { bytes }) => sum + bytes.length - FRAME_AT, 0))
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('drop')
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })
})
