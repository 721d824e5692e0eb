/** What is sent while a connection waits, and what is wrong on one that is released. */
import { describe, expect, it } from '@jest/globals'
import { MARK_RELEASED, MARK_REVOKED } from '../../../api/marks.ts'
import { applySettings } from '../../../sidecar/datapath/gate.ts'
import {
  ACK,
  advance,
  connect,
  establish,
  flip,
  fromClient,
  fromServer,
  judge,
  NOBODY,
  RST,
  resetsOf,
  SYN,
  SYN_ACK,
  setPolicies,
  settle,
  shakeHands,
  twoPods,
} from './pods.ts'

/** A client without a sidecar whose SYN the server's policies allowed. */
async function plainClient() {
  const { client, server } = await twoPods()
  const pod = { ...client.identity, name: 'plain' }
  const directory = { '10.244.0.2': { kind: 'pod', guarded: false, pod } } as const
  const c = connect(client, server)
  const syn = await settle(server, 'in', fromClient(c, SYN, { payload: Buffer.from('GET / HTTP/1.0') }), 0, directory)
  return { c, server, syn }
}

describe('a client that shows no WIT and is allowed', () => {
  it('has its SYN passed without the data that it carries', async () => {
    const { syn } = await plainClient()
    expect({ action: syn.action, bytes: syn.packet.length }).toEqual({ action: 'pass', bytes: 40 })
  })

  it('is not released by an ACK that it kept back until policies changed', async () => {
    const { c, server } = await plainClient()
    expect(judge(server, 'out', fromServer(c, SYN_ACK)).action).toBe('release')
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
    setPolicies(server.gate, server.identity, NOBODY)
    expect(judge(server, 'in', fromClient(c, ACK))).toMatchObject({ action: 'drop', refusal: 'policy' })
  })
})

/** The server's kernel waits for the client's next number, and the client's for the server's. */
const RESETS = {
  action: 'pass',
  own: { flags: RST | ACK, sequence: 1_001 },
  reply: { flags: RST, sequence: 0xffff_ff01 },
}

describe('a proof that its client keeps back', () => {
  it('releases nothing after a policy denied its connection', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { proof } = await shakeHands(c)
    setPolicies(server.gate, server.identity, NOBODY)
    expect(resetsOf(judge(server, 'in', proof))).toEqual(RESETS)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('drop')
  })

  it('gets no answer from a server that refuses in silence, whose kernel is reset all the same', async () => {
    const { client, server } = await twoPods()
    const { proof } = await shakeHands(connect(client, server))
    setPolicies(server.gate, server.identity, NOBODY)
    applySettings(server.gate, { ...server.gate.settings, refusal: 'drop' })
    expect(resetsOf(judge(server, 'in', proof))).toEqual({ ...RESETS, reply: undefined })
  })
})

describe('a connection that a review ended at its client', () => {
  it('is not proved again for a server that repeats its SYN-ACK, though policy allows both again: both kernels are reset', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { synAck, synAckIn } = await shakeHands(c)
    expect(synAckIn.action).toBe('release')
    expect(resetsOf(judge(client, 'in', synAck, MARK_REVOKED | 1))).toEqual({
      action: 'pass',
      own: { flags: RST | ACK, sequence: 0xffff_ff00 },
      reply: { flags: RST, sequence: 1_001 },
    })
  })
})

describe('a server that is sent data without a proof', () => {
  it('asks for the proof five times a second at most, however much comes', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    await shakeHands(c)
    let asked = 0
    for (let packet = 0; packet < 100; packet++) {
      if (judge(server, 'in', fromClient(c, ACK, { payload: Buffer.from('data') })).reply) asked++
      advance([server], 10)
    }
    expect(asked).toBe(5)
  })
})

describe('a SYN-ACK that is wrong on a released connection', () => {
  it.each(['enforce', 'audit', 'off'] as const)('changes nothing, in mode %s', async (mode) => {
    const { client, server } = await twoPods({ settings: { mode } }, { settings: { mode } })
    const c = connect(client, server)
    const wire = await establish(c)
    const mark = (MARK_RELEASED | wire.synAckIn.mark) >>> 0
    for (const at of [45, 46, 40 + 24, 40 + 61]) {
      const verdict = judge(client, 'in', flip(wire.synAck, at), mark)
      expect({ at, action: verdict.action, reply: verdict.reply }).toEqual({ at, action: 'drop', reply: undefined })
    }
  })

  it('is dropped even where the verified server says that it sees us elsewhere: what runs is not ended', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const wire = await establish(c)
    const relay = { ...client, address: Buffer.from([10, 244, 0, 9]) }
    for (const known of server.gate.peers.findByUid(client.identity.uid)) {
      server.gate.peers.add({ ...known, addresses: [...known.addresses, relay.address] })
    }
    const syn = Buffer.from(wire.syn)
    syn.set(relay.address, 12)
    expect(judge(server, 'in', syn).action).toBe('pass')
    const synAck = judge(server, 'out', fromServer({ ...c, client: relay }, SYN_ACK)).packet
    synAck.set(client.address, 16)
    const verdict = judge(client, 'in', synAck, (MARK_RELEASED | wire.synAckIn.mark) >>> 0)
    expect(verdict).toMatchObject({ action: 'drop', refusal: 'relayed', reply: undefined })
  })
})
