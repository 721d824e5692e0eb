/** What was recorded on the wire is put in again: at once, later, on another connection, under another numbering. */
import { describe, expect, it } from '@jest/globals'
import { applyMessage } from '../../../sidecar/datapath/control-messages.ts'
import {
  ACK,
  advance,
  connect,
  createPod,
  establish,
  flip,
  fromClient,
  fromServer,
  judge,
  NOBODY,
  RST,
  renew,
  resetsOf,
  SYN,
  SYN_ACK,
  segment,
  setPolicies,
  settle,
  shakeHands,
  type TestPod,
  twoPods,
} from './pods.ts'

const RELEASED = 0x8000_0000
const FRONTEND = { labels: { tier: 'frontend' } } as const

describe('recorded packets on the same numbering', () => {
  it('does not take a recorded proof for the server’s new sequence number, although SYN and client number are the same', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await establish(c)
    const again = { ...c, serverIsn: 7_000 }
    expect((await settle(c.server, 'in', wire.syn)).action).toBe('pass')
    await settle(c.server, 'out', fromServer(again, SYN_ACK))
    expect(judge(c.server, 'in', wire.proof).refusal).toBe('mac')
    expect(judge(c.server, 'in', fromClient(again, ACK)).action).toBe('drop')
  })

  it('does not release another numbering of the tuple by a recorded proof', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await establish(c)
    const again = { ...c, clientIsn: 5_000, serverIsn: 7_000 }
    const syn = Buffer.from(wire.syn)
    syn.writeUInt32BE(5_000, 24)
    expect((await settle(server, 'in', syn)).action).toBe('pass')
    await settle(server, 'out', fromServer(again, SYN_ACK))
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(again, ACK)).action).toBe('drop')
  })

  it('does not take a recorded proof once its sequence numbers can come up again', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await shakeHands(c)
    advance([server], 130_000)
    await settle(server, 'in', wire.syn)
    await settle(server, 'out', fromServer(c, SYN_ACK))
    expect(judge(server, 'in', wire.proof)).toMatchObject({ action: 'drop', refusal: 'mac' })
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('drop')
  })

  it('takes a proof that crosses from one minute into the next', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await shakeHands(c)
    advance([server], 59_000)
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })

  it('needs the proof again, not the recorded one, after the client’s WIT was renewed', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await establish(c)
    advance([client, server], 1_000)
    await renew(client)
    const next = { ...c, clientIsn: 90_000, serverIsn: 95_000 }
    const renewed = await shakeHands(next)
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(next, ACK)).action).toBe('drop')
    judge(server, 'in', renewed.proof)
    expect(judge(server, 'in', fromClient(next, ACK)).action).toBe('release')
  })

  it('lets a client whose identity was renewed between SYN and SYN-ACK finish, within 120 s', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const syn = judge(client, 'out', fromClient(c, SYN)).packet
    await settle(server, 'in', syn)
    const synAck = (await settle(server, 'out', fromServer(c, SYN_ACK))).packet
    await renew(client)
    const accepted = await settle(client, 'in', synAck)
    expect(accepted.action).toBe('release')
    judge(server, 'in', accepted.reply ?? Buffer.alloc(0))
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
    advance([client], 121_000)
    expect(judge(client, 'in', synAck)).toMatchObject({ action: 'drop', refusal: 'mac' })
  })

  it.each([
    ['at once', 0],
    ['a second later', 1_000],
  ])('keeps a pending connection through its SYN, repeated %s', async (_when, milliseconds) => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await shakeHands(c)
    advance([client, server], milliseconds)
    judge(server, 'in', wire.syn)
    judge(server, 'in', wire.proof)
    judge(server, 'in', wire.syn)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })

  it('keeps a pending connection through a recorded SYN with another number, and one with another nonce', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await shakeHands(c)
    const renumbered = Buffer.from(wire.syn)
    renumbered.writeUInt32BE(77, 24)
    const spoiled = Buffer.from(wire.syn)
    spoiled.fill(9, 48, 64)
    judge(server, 'in', renumbered)
    judge(server, 'in', spoiled)
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })

  it('keeps a proved connection through a recorded proof of an earlier one', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const early = await establish(connect(client, server))
    const c = connect(client, server, { clientIsn: 50_000, serverIsn: 60_000 })
    const wire = await shakeHands(c)
    judge(server, 'in', wire.proof)
    judge(server, 'in', early.proof)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })

  it('does not release a client by the SYN-ACK of its tuple’s earlier connection', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const early = await establish(connect(client, server))
    judge(client, 'out', fromClient(connect(client, server, { clientIsn: 50_000 }), SYN))
    const replayed = judge(client, 'in', early.synAck)
    expect({ action: replayed.action, reply: replayed.reply }).toEqual({ action: 'pass', reply: undefined })
  })
})

describe('packets moved to another flow', () => {
  it.each([
    ['source port', 20],
    ['destination port', 22],
  ])('takes no proof with another %s', async (_what, at) => {
    const { client, server } = await twoPods(FRONTEND)
    const { proof } = await shakeHands(connect(client, server))
    proof.writeUInt16BE(8_081, at)
    expect(judge(server, 'in', proof)).toMatchObject({ action: 'drop', refusal: 'mac' })
  })

  it('takes no proof for another server, which knows the client too', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const other = await createPod({ name: 'other', address: '10.244.0.4' })
    await establish(connect(client, other, { clientPort: 50_000 }))
    const { proof } = await shakeHands(connect(client, server))
    proof.set(other.address, 16)
    expect(judge(other, 'in', proof)).toMatchObject({ action: 'drop', refusal: 'mac' })
  })

  it('takes no SYN-ACK on another port of the client', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const { synAck } = await shakeHands(connect(client, server))
    judge(client, 'out', fromClient(connect(client, server, { clientPort: 40_001 }), SYN))
    synAck.writeUInt16BE(40_001, 22)
    expect(judge(client, 'in', synAck)).toMatchObject({ action: 'drop', refusal: 'mac' })
  })

  it('takes no SYN-ACK at another client', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const other = await createPod({ name: 'other', address: '10.244.0.4' })
    await establish(connect(other, server, { clientPort: 50_000 }))
    const { synAck } = await shakeHands(connect(client, server))
    judge(other, 'out', fromClient(connect(other, server), SYN))
    synAck.set(other.address, 16)
    expect(judge(other, 'in', synAck)).toMatchObject({ action: 'drop', refusal: 'mac' })
  })
})

describe('an ACK that its client keeps back', () => {
  it('is not released after the client’s WIT was declared void', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    judge(server, 'in', (await shakeHands(c)).proof)
    applyMessage(server.gate, { type: 'void', uid: client.identity.uid, issuedBefore: 2_000_000_000 })
    expect(judge(server, 'in', fromClient(c, ACK))).toMatchObject({ action: 'drop', refusal: 'wit-void' })
  })

  it('is not released after a policy denied its connection', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    judge(server, 'in', (await shakeHands(c)).proof)
    setPolicies(server.gate, server.identity, NOBODY)
    expect(resetsOf(judge(server, 'in', fromClient(c, ACK)))).toMatchObject({
      own: { flags: RST | ACK, sequence: 1_001 },
      reply: { flags: RST, sequence: 0xffff_ff01 },
    })
  })

  it('is not released after labels that the policy asks for were taken from its client', async () => {
    const { client, server } = await twoPods(FRONTEND)
    setPolicies(
      server.gate,
      server.identity,
      NOBODY.replace('ingress: []', 'ingress: [{ from: [{ podSelector: { matchLabels: { tier: frontend } } }] }]'),
    )
    const c = connect(client, server)
    judge(server, 'in', (await shakeHands(c)).proof)
    applyMessage(server.gate, {
      type: 'relabel',
      uid: client.identity.uid,
      issuedBefore: 2_000_000_000,
      identity: { ...client.identity, labels: {} },
      index: 900,
    })
    expect(resetsOf(judge(server, 'in', fromClient(c, ACK)))).toMatchObject({
      own: { flags: RST | ACK, sequence: 1_001 },
      reply: { flags: RST, sequence: 0xffff_ff01 },
    })
  })

  it('is not released, without a WIT, by the repeated SYN-ACK after a policy denied its connection', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const pod = { ...client.identity, name: 'plain' }
    const directory = { '10.244.0.2': { kind: 'pod', guarded: false, pod } } as const
    await settle(server, 'in', fromClient(c, SYN), 0, directory)
    expect(judge(server, 'out', fromServer(c, SYN_ACK)).action).toBe('release')
    expect(judge(server, 'out', fromServer(c, SYN_ACK)).action).toBe('release')
    setPolicies(server.gate, server.identity, NOBODY)
    expect(judge(server, 'out', fromServer(c, SYN_ACK))).toMatchObject({ action: 'refuse', refusal: 'policy' })
  })
})

describe('forged packets on a released connection', () => {
  async function released() {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    const wire = await establish(c)
    return { c, wire, clientMark: RELEASED | wire.synAckIn.mark, serverMark: RELEASED | wire.release.mark }
  }

  it('lets the repeated SYN-ACK bring the proof again, with the same identity', async () => {
    const { c, wire, clientMark } = await released()
    const again = [1, 2].map(() => judge(c.client, 'in', wire.synAck, clientMark >>> 0))
    expect(again.map(({ action, mark }) => ({ action, mark }))).toEqual([
      { action: 'release', mark: clientMark & 0xfffff },
      { action: 'release', mark: clientMark & 0xfffff },
    ])
    expect(again.map(({ reply }) => reply)).toContainEqual(wire.proof)
  })

  it('leaves mark and connection alone for a SYN-ACK without frame', async () => {
    const { c, clientMark } = await released()
    const forged = judge(c.client, 'in', fromServer(c, SYN_ACK), clientMark >>> 0)
    expect({ action: forged.action, reply: forged.reply }).toEqual({ action: 'pass', reply: undefined })
    expect(forged.packet).toEqual(fromServer(c, SYN_ACK))
  })

  it('drops a SYN-ACK of another Pod with a valid WIT that answers the same SYN', async () => {
    const { c, wire, clientMark } = await released()
    const mallory = await createPod({ name: 'mallory', address: '10.244.0.9' })
    const towardsMallory = Buffer.from(wire.syn)
    towardsMallory.set(mallory.address, 16)
    await settle(mallory, 'in', towardsMallory)
    const synAck = (await settle(mallory, 'out', fromServer({ ...c, server: mallory }, SYN_ACK))).packet
    synAck.set(c.server.address, 12)
    const verdict = await settle(c.client, 'in', synAck, clientMark >>> 0)
    expect({ action: verdict.action, reply: verdict.reply }).toEqual({ action: 'drop', reply: undefined })
  })

  it('drops a SYN-ACK of another Pod that may stand behind the dialled Service, too', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const mallory = await createPod({ name: 'mallory', address: '10.244.0.9' })
    const service = Buffer.from([10, 96, 0, 7])
    const syn = judge(client, 'out', fromClient(connect(client, server), SYN, { to: service })).packet
    const answerOf = async (pod: TestPod) => {
      const toPod = Buffer.from(syn)
      toPod.set(pod.address, 16)
      await settle(pod, 'in', toPod)
      const synAck = (await settle(pod, 'out', fromServer(connect(client, pod), SYN_ACK))).packet
      synAck.set(service, 12)
      return synAck
    }
    const released = await settle(client, 'in', await answerOf(server))
    expect(released).toMatchObject({ action: 'release' })
    const mark = (RELEASED | released.mark) >>> 0
    expect(await settle(client, 'in', await answerOf(mallory), mark)).toMatchObject({ action: 'drop', refusal: 'mac' })
  })

  it('drops a SYN-ACK that egress policy denies by now: who revokes is the review, not the network', async () => {
    const { c, wire, clientMark } = await released()
    const none = NOBODY.replace('Ingress', 'Egress').replace('ingress: []', 'egress: []')
    setPolicies(c.client.gate, c.client.identity, none)
    const verdict = judge(c.client, 'in', wire.synAck, clientMark >>> 0)
    expect(verdict).toMatchObject({ action: 'drop', refusal: 'policy', reply: undefined })
  })

  it.each([
    ['a SYN without frame', Buffer.alloc(0)],
    ['a SYN with a bad frame', Buffer.from('SYNG\x01\x01\x00\x20--------')],
    ['a SYN with Fast Open data', Buffer.from('GET / HTTP/1.1')],
  ])('answers %s in silence, or lets the kernel answer it without data', async (_what, payload) => {
    const { c, serverMark } = await released()
    const directory = { '10.244.0.2': { kind: 'pod', guarded: true, pod: c.client.identity } } as const
    const forged = fromClient(c, SYN, { sequence: 99, payload })
    expect((await settle(c.server, 'in', forged, serverMark >>> 0, directory)).action).toBe('drop')
  })

  it('asks the kernel, with the connection’s mark untouched, about the recorded SYN', async () => {
    const { c, wire, serverMark } = await released()
    const verdict = judge(c.server, 'in', wire.syn, serverMark >>> 0)
    expect({ action: verdict.action, mark: verdict.mark }).toEqual({ action: 'pass', mark: 0 })
    expect(judge(c.server, 'in', fromClient(c, ACK)).action).toBe('release')
  })
})

describe('packets of nobody’s connection', () => {
  it('does not refuse a damaged copy of a SYN with a reset that would end the connection of the good one', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const { syn } = await shakeHands(connect(client, server))
    expect(judge(server, 'in', flip(syn, 45))).toMatchObject({ action: 'drop', refusal: 'frame' })
  })

  it('releases no ACK whose numbers are not the proved ones', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    judge(server, 'in', (await shakeHands(c)).proof)
    const refused = judge(server, 'in', fromClient(c, ACK, { acknowledgement: 5 }))
    expect(refused).toMatchObject({ action: 'refuse', refusal: 'stale' })
    // No reset: it would have the number that the client waits for.
    for (const sequence of [c.clientIsn, 0xc000_0000]) {
      expect(judge(server, 'in', fromClient(c, ACK, { sequence }))).toMatchObject({ action: 'drop', refusal: 'stale' })
    }
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })

  it('is not made to repeat its SYN-ACK by whoever does not know its number', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    await shakeHands(c)
    expect(judge(server, 'in', fromClient(c, ACK, { acknowledgement: 5 })).reply).toBeUndefined()
    expect(judge(server, 'in', fromClient(c, ACK)).reply?.length).toBeGreaterThan(100)
  })

  it('keeps sending frames to a server in whose name somebody guessed at an acknowledgement', async () => {
    const { client, server } = await twoPods(FRONTEND)
    const c = connect(client, server)
    judge(client, 'out', fromClient(c, SYN))
    judge(client, 'in', fromServer(c, SYN_ACK, { acknowledgement: c.clientIsn + 401 }))
    expect(judge(client, 'out', fromClient({ ...c, clientPort: 40_001 }, SYN)).packet.length).toBeGreaterThan(100)
  })

  it('judges a running connection by the newest WIT at its address, though an older one was shown later', async () => {
    const { server } = await twoPods(FRONTEND)
    setPolicies(
      server.gate,
      server.identity,
      NOBODY.replace('ingress: []', 'ingress: [{ from: [{ podSelector: { matchLabels: { tier: old } } }] }]'),
    )
    const now = Math.floor(server.gate.nowMilliseconds / 1000)
    const present = await createPod({ name: 'present', address: '10.244.0.7' })
    const past = await createPod({ name: 'past', address: '10.244.0.7', labels: { tier: 'old' }, issuedAt: now - 600 })
    for (const pod of [present, past]) {
      const c = connect(pod, server)
      await settle(server, 'in', judge(pod, 'out', fromClient(c, SYN)).packet)
    }
    server.established = true
    const midstream = segment({
      from: present.address,
      to: server.address,
      fromPort: 1,
      toPort: 80,
      sequence: 1,
      acknowledgement: 1,
      flags: ACK,
    })
    expect(judge(server, 'in', midstream)).toMatchObject({ action: 'refuse', refusal: 'policy' })
  })
})
