import { describe, expect, it } from '@jest/globals'
import { MARK_PROVED } from '../../../api/marks.ts'
import { MAXIMUM_RECENT_SYNS } from '../../../sidecar/datapath/bounds.ts'
import { applyMessage } from '../../../sidecar/datapath/control-messages.ts'
import { verifyTransportChecksum } from '../../../sidecar/packet/checksum.ts'
import { createPacket, decodePacket } from '../../../sidecar/packet/decode.ts'
import { keyOf } from './keys.ts'
import {
  ACK,
  connect,
  createPod,
  fromClient,
  fromServer,
  judge,
  NOBODY,
  RST,
  SYN,
  SYN_ACK,
  segment,
  setPolicies,
  settle,
  type TestPod,
  twoPods,
} from './pods.ts'

const CLIENT_ISN = 1_000
const SERVER_ISN = 0xffff_ff00

/** NOP, NOP, timestamps (0x11, 0x22), NOP, window scale 7. */
const WITH_OPTIONS = Buffer.from('0101080a000000110000002201030307', 'hex')
const ANSWERED_TIMESTAMPS = Buffer.from('0101080a0000002200000011', 'hex')

const ONLY_FRONTEND = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-frontend, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{ from: [{ podSelector: { matchLabels: { tier: frontend } } }], ports: [{ port: 80 }] }]
`

function synFrom(client: TestPod, server: TestPod, port = 80, sourcePort = 40_000): Buffer {
  return segment({
    from: client.address,
    to: server.address,
    fromPort: sourcePort,
    toPort: port,
    sequence: CLIENT_ISN,
    flags: SYN,
  })
}

function synAckFrom(client: TestPod, server: TestPod, port = 80, sourcePort = 40_000): Buffer {
  return segment({
    from: server.address,
    to: client.address,
    fromPort: port,
    toPort: sourcePort,
    sequence: SERVER_ISN,
    acknowledgement: CLIENT_ISN + 1,
    flags: SYN_ACK,
  })
}

/** The client kernel's own ACK, or data behind it. */
function ackFrom(client: TestPod, server: TestPod, payload = '', sourcePort = 40_000): Buffer {
  return segment({
    from: client.address,
    to: server.address,
    fromPort: sourcePort,
    toPort: 80,
    sequence: CLIENT_ISN + 1,
    acknowledgement: (SERVER_ISN + 1) >>> 0,
    flags: ACK,
    payload: Buffer.from(payload),
  })
}

function expectIntact(bytes: Buffer, payloadBytes?: number): void {
  const packet = createPacket()
  expect(decodePacket(bytes, packet)).toBe('ok')
  expect(verifyTransportChecksum(bytes, packet)).toBe(true)
  if (payloadBytes !== undefined) expect(packet.payloadBytes).toBe(payloadBytes)
}

const podsWith = (policies = ONLY_FRONTEND, labels = { tier: 'frontend' }) => twoPods({ labels }, { policies })

/** Runs a handshake up to the proof; returns each packet as it was on the wire. */
async function handshake(client: TestPod, server: TestPod) {
  const syn = (await settle(client, 'out', synFrom(client, server))).packet
  const synIn = await settle(server, 'in', syn)
  const synAck = (await settle(server, 'out', synAckFrom(client, server))).packet
  const synAckIn = await settle(client, 'in', synAck)
  return { syn, synIn, synAck, synAckIn, proof: synAckIn.reply ?? Buffer.alloc(0) }
}

describe('a handshake between two guarded Pods', () => {
  it('shows both WITs, releases the client at the SYN-ACK and the server at the proof', async () => {
    const { client, server } = await podsWith()
    const { syn, synIn, synAck, synAckIn, proof } = await handshake(client, server)
    expectIntact(syn, 24 + client.section.length)
    expect(synIn.action).toBe('pass')
    expectIntact(synIn.packet, 0)
    expectIntact(synAck, 70 + server.section.length)
    expect({ action: synAckIn.action, marked: synAckIn.mark > 0 }).toEqual({ action: 'release', marked: true })
    expectIntact(synAckIn.packet, 0)
    expectIntact(proof, 88)

    expect(judge(server, 'in', ackFrom(client, server)).action).toBe('drop')
    const proved = judge(server, 'in', proof)
    expect({ action: proved.action, marked: proved.mark > 0 }).toEqual({ action: 'release', marked: true })
    expect(judge(server, 'in', ackFrom(client, server, 'GET /'))).toMatchObject({
      action: 'release',
      mark: proved.mark,
    })
  })

  it.each([
    ['both offered them', WITH_OPTIONS, 500],
    ['the server did not', Buffer.alloc(0), 64_000],
  ])(
    'gives the server’s kernel the proof as the client kernel’s own ACK, with scaled window and timestamps where %s',
    async (_when, answered, window) => {
      const { client, server } = await podsWith()
      const c = connect(client, server)
      const syn = (await settle(client, 'out', fromClient(c, SYN, { options: WITH_OPTIONS }))).packet
      await settle(server, 'in', syn)
      const synAck = (await settle(server, 'out', fromServer(c, SYN_ACK, { options: answered }))).packet
      const { reply, mark } = await settle(client, 'in', synAck)
      expect(mark & MARK_PROVED).toBe(MARK_PROVED)
      const own = fromClient(c, ACK, { window, options: answered.length > 0 ? ANSWERED_TIMESTAMPS : answered })
      expect(judge(server, 'in', reply ?? Buffer.alloc(0)).packet).toEqual(own)
    },
  )

  it('does not let the proof stand for the kernel’s ACK where the SYN’s window is not known any more', async () => {
    const { client, server } = await podsWith()
    const c = connect(client, server)
    await settle(server, 'in', (await settle(client, 'out', fromClient(c, SYN))).packet)
    const synAck = (await settle(server, 'out', fromServer(c, SYN_ACK))).packet
    for (let i = 0; i < MAXIMUM_RECENT_SYNS; i++) client.gate.recentSyns.note(keyOf(1, i), i, 0)
    const { action, mark, reply } = await settle(client, 'in', synAck)
    expect({ action, proved: mark & MARK_PROVED }).toEqual({ action: 'release', proved: 0 })
    expect(judge(server, 'in', reply ?? Buffer.alloc(0)).action).toBe('release')
  })

  it('ends its proof where the data begins, so that a late copy is an old duplicate', async () => {
    const { client, server } = await podsWith()
    const { proof } = await handshake(client, server)
    const packet = createPacket()
    decodePacket(proof, packet)
    expect((packet.sequence + packet.payloadBytes) >>> 0).toBe(CLIENT_ISN + 1)
    expect(packet.acknowledgement).toBe((SERVER_ISN + 1) >>> 0)
  })

  it('needs no verification and holds nothing once the peers know each other', async () => {
    const { client, server } = await podsWith()
    await settle(server, 'in', (await handshake(client, server)).proof)
    const syn = judge(client, 'out', synFrom(client, server, 80, 40_001)).packet
    expect(judge(server, 'in', syn).action).toBe('pass')
    const synAck = judge(server, 'out', synAckFrom(client, server, 80, 40_001)).packet
    const accepted = judge(client, 'in', synAck)
    expect(accepted.action).toBe('release')
    judge(server, 'in', accepted.reply ?? Buffer.alloc(0))
    expect(judge(server, 'in', ackFrom(client, server, '', 40_001)).action).toBe('release')
  })

  it('accepts a proof after the half-open slot was reused: the proof alone carries all that is needed', async () => {
    const { client, server } = await podsWith()
    const { proof } = await handshake(client, server)
    for (let port = 0; port < 9_000; port++) server.gate.halfOpen.claim(keyOf(1, port))
    judge(server, 'in', proof)
    expect(judge(server, 'in', ackFrom(client, server)).action).toBe('release')
  })

  it('refuses at the SYN what the ingress policy denies, with the frame removed', async () => {
    const { client, server } = await podsWith(ONLY_FRONTEND, { tier: 'backend' })
    const syn = (await settle(client, 'out', synFrom(client, server))).packet
    const refused = await settle(server, 'in', syn)
    expect({ action: refused.action, refusal: refused.refusal }).toEqual({ action: 'refuse', refusal: 'policy' })
    expectIntact(refused.packet, 0)
    expect(server.reports).toEqual([
      {
        direction: 'ingress',
        refusal: 'policy',
        enforced: true,
        protocol: 'TCP',
        source: '10.244.0.2',
        sourcePort: 40_000,
        destination: '10.244.0.3',
        destinationPort: 80,
        peer: 'shop/client',
        policies: ['shop/only-frontend'],
      },
    ])
  })

  it('refuses at the SYN-ACK what the egress policy denies: a reset for each end', async () => {
    const client = await createPod({
      name: 'client',
      address: '10.244.0.2',
      policies: ONLY_FRONTEND.replace('Ingress', 'Egress').replace('ingress:', 'egress:').replace('from:', 'to:'),
    })
    const server = await createPod({ name: 'server', address: '10.244.0.3', labels: { tier: 'backend' } })
    const { synAckIn } = await handshake(client, server)
    const packet = createPacket()
    expect(synAckIn.action).toBe('pass')
    decodePacket(synAckIn.packet, packet)
    expect({ flags: packet.flags, payload: packet.payloadBytes }).toEqual({ flags: 0x14, payload: 0 })
    decodePacket(synAckIn.reply ?? Buffer.alloc(0), packet)
    expect({ flags: packet.flags, sequence: packet.sequence }).toEqual({ flags: 0x04, sequence: CLIENT_ISN + 1 })
    // As the connection was opened, though it is the answer that is refused.
    expect(client.reports).toMatchObject([
      {
        direction: 'egress',
        source: '10.244.0.2',
        sourcePort: 40_000,
        destination: '10.244.0.3',
        destinationPort: 80,
        peer: 'shop/server',
      },
    ])
  })

  it('asks for a lost proof by repeating the SYN-ACK, and the client proves again', async () => {
    const { client, server } = await podsWith()
    await handshake(client, server)
    const data = ackFrom(client, server, 'GET /')
    const early = judge(server, 'in', data)
    expect(early.action).toBe('drop')
    const again = judge(client, 'in', early.reply ?? Buffer.alloc(0))
    expect(again.action).toBe('release')
    judge(server, 'in', again.reply ?? Buffer.alloc(0))
    expect(judge(server, 'in', data).action).toBe('release')
    expect(judge(server, 'in', data).reply).toBeUndefined()
  })

  it('repeats SYN and SYN-ACK with the same nonces', async () => {
    const { client, server } = await podsWith()
    const first = await handshake(client, server)
    const second = await handshake(client, server)
    expect(second.syn).toEqual(first.syn)
    expect(second.synAck).toEqual(first.synAck)
    expect(second.proof).toEqual(first.proof)
  })

  it('sends the third SYN plain, and the fourth with the frame again', async () => {
    const { client, server } = await podsWith()
    const sizes = []
    for (let sent = 0; sent < 4; sent++) sizes.push(judge(client, 'out', synFrom(client, server)).packet.length)
    const framed = 40 + 24 + client.section.length
    expect(sizes).toEqual([framed, framed, 40, framed])
  })
})

describe('what does not fit the handshake', () => {
  it.each([
    ['the nonce', 40 + 8],
    ['the MAC', 40 + 24],
    ['the server address', 58 + 40 + 6],
    ['the client port', 58 + 40 + 4],
  ])('drops a SYN-ACK with %s altered', async (_what, at) => {
    const { client, server } = await podsWith()
    const { synAck } = await handshake(client, server)
    const altered = Buffer.from(synAck)
    altered.writeUInt8(altered.readUInt8(at) ^ 1, at)
    const verdict = await settle(client, 'in', altered)
    expect({ action: verdict.action, reply: verdict.reply }).toEqual({ action: 'drop', reply: undefined })
  })

  it.each([
    ['nonce_c', 40 + 8],
    ['MAC', 40 + 24],
    ['hash of WIT_c', 40 + 56],
    ['sequence number', 27],
    ['acknowledgement', 31],
    ['source port', 21],
  ])('drops a proof with another %s', async (_what, at) => {
    const { client, server } = await podsWith()
    const { proof } = await handshake(client, server)
    const altered = Buffer.from(proof)
    altered.writeUInt8(altered.readUInt8(at) ^ 1, at)
    judge(server, 'in', altered)
    expect(judge(server, 'in', ackFrom(client, server)).action).toBe('drop')
  })

  it('refuses a WIT from an address that it does not name', async () => {
    const { client, server } = await podsWith()
    const { syn } = await handshake(client, server)
    const moved = Buffer.from(syn)
    moved.writeUInt8(9, 15)
    const verdict = await settle(server, 'in', moved)
    expect({ action: verdict.action, refusal: verdict.refusal }).toEqual({ action: 'refuse', refusal: 'wit-address' })
  })

  it('resets a connection that a third Pod relays: the server saw another address than ours', async () => {
    const { client, server } = await podsWith()
    const relay = await createPod({ name: 'relay', address: '10.244.0.9' })
    // The relay opens a connection of its own with the client's WIT removed, and passes the answer on as its own.
    const syn = (await settle(relay, 'out', synFrom(relay, server))).packet
    server.gate.policy = relay.gate.policy
    await settle(server, 'in', syn)
    const synAck = (await settle(server, 'out', synAckFrom(relay, server))).packet
    synAck.set(client.address, 16)
    expect((await settle(client, 'in', synAck)).action).toBe('drop')
  })

  it('refuses an unknown WIT that does not verify, and remembers it', async () => {
    const { client, server } = await podsWith()
    const { syn } = await handshake(client, server)
    const forged = Buffer.from(syn)
    forged.writeUInt8(forged.readUInt8(forged.length - 1) ^ 1, forged.length - 1)
    expect((await settle(server, 'in', forged)).refusal).toBe('wit-invalid')
    expect(judge(server, 'in', forged).refusal).toBe('wit-invalid')
  })

  it('drops in silence what is wrong on a released connection: it must live on', async () => {
    const { client, server } = await podsWith(ONLY_FRONTEND, { tier: 'backend' })
    const syn = (await settle(client, 'out', synFrom(client, server))).packet
    expect((await settle(server, 'in', syn, 0x80000001)).action).toBe('drop')
  })

  it('drops a SYN-ACK of the own kernel whose SYN this process never saw', async () => {
    const { client, server } = await podsWith()
    expect(judge(server, 'out', synAckFrom(client, server)).action).toBe('drop')
  })

  it('gives a SYN with a void WIT no answer, so that the repeated one can carry the new WIT', async () => {
    const { client, server } = await podsWith()
    const { syn } = await handshake(client, server)
    for (const peer of server.gate.peers.findByUid('uid-client')) peer.refused = 'wit-void'
    expect(judge(server, 'in', syn)).toMatchObject({ action: 'drop', refusal: 'wit-void' })
  })
})

describe('peers that show no WIT', () => {
  const plainPod = { ...({ kind: 'pod', guarded: false } as const) }

  it('judges an unguarded Pod by its labels in the directory, and answers without a frame', async () => {
    const { client, server } = await podsWith()
    const pod = { ...client.identity, name: 'plain', labels: { tier: 'frontend' } }
    const directory = { '10.244.0.2': { ...plainPod, pod } }
    const allowed = await settle(server, 'in', synFrom(client, server), 0, directory)
    expect(allowed.action).toBe('pass')
    const synAck = judge(server, 'out', synAckFrom(client, server))
    expect({ action: synAck.action, mark: synAck.mark, bytes: synAck.packet.length }).toEqual({
      action: 'release',
      mark: 0,
      bytes: 40,
    })
  })

  it.each([
    ['reset', 'a reset for each end'],
    ['drop', 'silence'],
  ] as const)(
    'refuses at the SYN-ACK what a policy denies since the SYN, with the setting "%s": %s',
    async (refusal, _what) => {
      const { client, server } = await twoPods({}, { settings: { refusal } })
      const directory = { '10.244.0.2': { ...plainPod, pod: client.identity } }
      expect((await settle(server, 'in', synFrom(client, server), 0, directory)).action).toBe('pass')
      setPolicies(server.gate, server.identity, NOBODY)
      const verdict = judge(server, 'out', synAckFrom(client, server))
      expect(
        server.reports.map(({ refusal, source, destinationPort, policies }) => ({
          refusal,
          source,
          destinationPort,
          policies,
        })),
      ).toEqual([{ refusal: 'policy', source: '10.244.0.2', destinationPort: 80, policies: ['shop/nobody'] }])
      if (refusal === 'drop') {
        return expect(verdict).toMatchObject({ action: 'drop', refusal: 'policy', reply: undefined })
      }
      expect(verdict).toMatchObject({ action: 'refuse', refusal: 'policy' })
      expect(verdict.reply?.length).toBe(40)
      // What a closed port answers to the SYN: the client's kernel takes it.
      const reset = createPacket()
      const bytes = verdict.reply ?? Buffer.alloc(0)
      expectIntact(bytes, 0)
      expect(decodePacket(bytes, reset)).toBe('ok')
      expect({ flags: reset.flags, ports: [reset.sourcePort, reset.destinationPort] }).toEqual({
        flags: RST | ACK,
        ports: [80, 40_000],
      })
      expect(reset.acknowledgement).toBe(CLIENT_ISN + 1)
    },
  )

  it('asks the directory again at the SYN-ACK where it forgot the client after a change of policies', async () => {
    const { client, server } = await twoPods()
    const directory = { '10.244.0.2': { ...plainPod, pod: client.identity } }
    await settle(server, 'in', synFrom(client, server), 0, directory)
    setPolicies(server.gate, server.identity, '')
    applyMessage(server.gate, { type: 'forget-address', address: '10.244.0.2' })
    const verdict = judge(server, 'out', synAckFrom(client, server))
    expect(verdict.outcome.need).toMatchObject({ kind: 'resolve', address: '10.244.0.2' })
    expect((await settle(server, 'out', synAckFrom(client, server), 0, directory)).action).toBe('release')
  })

  it('drops the SYN of a guarded Pod whose frame was removed: no downgrade', async () => {
    const { client, server } = await podsWith()
    const directory = { '10.244.0.2': { kind: 'pod' as const, guarded: true, pod: client.identity } }
    const verdict = await settle(server, 'in', synFrom(client, server), 0, directory)
    expect(verdict).toMatchObject({ action: 'drop', refusal: 'no-wit' })
  })

  it('lets only ipBlock rules match while the issuer is away', async () => {
    const { client, server } = await podsWith()
    expect(await settle(server, 'in', synFrom(client, server))).toMatchObject({
      action: 'refuse',
      refusal: 'peer-unknown',
    })
  })

  it('sends a server that acknowledged frame bytes no frame again', async () => {
    const { client, server } = await podsWith()
    const frameBytes = judge(client, 'out', synFrom(client, server)).packet.length - 40
    const taken = segment({
      from: server.address,
      to: client.address,
      fromPort: 80,
      toPort: 40_000,
      sequence: SERVER_ISN,
      acknowledgement: CLIENT_ISN + 1 + frameBytes,
      flags: SYN_ACK,
    })
    expect(judge(client, 'in', taken).action).toBe('pass')
    expect(judge(client, 'out', synFrom(client, server)).packet.length).toBe(40)
  })
})

describe('a Pod that is not ready', () => {
  it('drops what arrives in silence and holds what its applications open', async () => {
    const { client, server } = await podsWith()
    const { syn } = await handshake(client, server)
    server.gate.ready = false
    expect(judge(server, 'in', syn).action).toBe('drop')
    client.gate.ready = false
    expect(judge(client, 'out', synFrom(client, server)).outcome.need).toEqual({ kind: 'ready' })
  })
})

describe('modes', () => {
  it('audit counts and tells a denial, and lets the connection go on with its identity', async () => {
    const client = await createPod({ name: 'client', address: '10.244.0.2' })
    const server = await createPod({
      name: 'server',
      address: '10.244.0.3',
      policies: ONLY_FRONTEND,
      settings: { mode: 'audit' },
    })
    const { proof } = await handshake(client, server)
    await settle(server, 'in', proof)
    expect(judge(server, 'in', ackFrom(client, server)).action).toBe('release')
    // At its SYN, and not once more at its proof.
    expect(server.gate.counters.values()['would_deny_total|ingress|policy']).toBe(1)
    expect(server.reports.map(({ enforced }) => enforced)).toEqual([false])
    const { rows, unlisted } = server.gate.denials.snapshot()
    expect([rows.map(({ pod, port, count, enforced }) => [pod?.name, port, count, enforced]), unlisted]).toEqual([
      [['client', 80, 1, false]],
      0,
    ])
  })

  it('off lets pass without a word, and still shows and verifies WITs', async () => {
    const client = await createPod({ name: 'client', address: '10.244.0.2', settings: { mode: 'off' } })
    const server = await createPod({
      name: 'server',
      address: '10.244.0.3',
      policies: ONLY_FRONTEND,
      settings: { mode: 'off' },
    })
    const { syn, proof } = await handshake(client, server)
    expect(syn.length).toBeGreaterThan(40)
    await settle(server, 'in', proof)
    expect(judge(server, 'in', ackFrom(client, server)).action).toBe('release')
    expect(server.reports).toEqual([])
  })
})
