/**
 * The attacker on the path at its best: it recorded a whole handshake, sees the numbers of the one under way, and puts
 * them into what it recorded.
 */
import { describe, expect, it } from '@jest/globals'
import { MARK_RELEASED } from '../../../api/marks.ts'
import { PROOF_BYTES } from '../../../sidecar/handshake/frame.ts'
import {
  ACK,
  advance,
  type Connection,
  connect,
  establish,
  FRAME_AT,
  flip,
  fromClient,
  fromServer,
  judge,
  renew,
  SYN,
  SYN_ACK,
  settle,
  shakeHands,
  twoPods,
} from './pods.ts'

const frameOf = (bytes: Buffer): Buffer => Buffer.from(bytes.subarray(FRAME_AT))

/** The recorded frames under the numbers, addresses and ports of another connection. */
const synOf = (c: Connection, recorded: Buffer) => fromClient(c, SYN, { payload: frameOf(recorded) })
const synAckOf = (c: Connection, recorded: Buffer) => fromServer(c, SYN_ACK, { payload: frameOf(recorded) })
const proofOf = (c: Connection, recorded: Buffer) =>
  fromClient(c, ACK, { payload: frameOf(recorded), sequence: (c.clientIsn + 1 - PROOF_BYTES) >>> 0 })

const WHEN: readonly [string, (c: Connection) => Promise<void>][] = [
  ['at once', async () => undefined],
  ['after a second', async ({ client, server }) => advance([client, server], 1_000)],
  ['after the client’s WIT was renewed', async ({ client }) => void (await renew(client))],
  ['after the server’s WIT was renewed', async ({ server }) => void (await renew(server))],
  [
    'after both were renewed, twice',
    async ({ client, server }) => {
      for (const pod of [client, server, client, server]) await renew(pod)
    },
  ],
]

describe.each(WHEN)('a recorded handshake, put in again %s', (_when, passTime) => {
  /** A connection that ended, and another one that the attacker wants on the same tuple or on another one. */
  async function recorded(numbers: Partial<Connection>) {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const wire = await establish(c)
    await passTime(c)
    return { client, server, wire, next: connect(client, server, { clientIsn: 70_000, serverIsn: 90_000, ...numbers }) }
  }

  it.each<[string, Partial<Connection>]>([
    ['the same number of the client', { clientIsn: 1_000 }],
    ['the same number of the server', { serverIsn: 0xffff_ff00 }],
    ['new numbers', {}],
    ['another port of the client', { clientPort: 40_077 }],
    ['another port of the server', { serverPort: 81 }],
  ])('opens nothing at the server under %s', async (_what, numbers) => {
    const { server, wire, next } = await recorded(numbers)
    await settle(server, 'in', synOf(next, wire.syn))
    await settle(server, 'out', fromServer(next, SYN_ACK))
    const actions = [
      proofOf(next, wire.proof),
      fromClient(next, ACK),
      fromClient(next, ACK, { payload: Buffer.from('x') }),
    ]
    expect(actions.map((bytes) => judge(server, 'in', bytes).action)).toEqual(['drop', 'drop', 'drop'])
  })

  it.each<[string, Partial<Connection>]>([
    ['new numbers', {}],
    ['another port of the client', { clientPort: 40_077 }],
    ['another port of the server', { serverPort: 81 }],
  ])('releases no client under %s', async (_what, numbers) => {
    const { client, wire, next } = await recorded(numbers)
    judge(client, 'out', fromClient(next, SYN))
    expect(await settle(client, 'in', synAckOf(next, wire.synAck))).toMatchObject({
      action: 'drop',
      refusal: 'mac',
      reply: undefined,
    })
  })
})

describe('what belongs to another connection that is under way', () => {
  it('is no proof there, though both are of the same peers at the same time', async () => {
    const { client, server } = await twoPods()
    const [one, other] = [
      connect(client, server),
      connect(client, server, { clientPort: 40_001, clientIsn: 5, serverIsn: 6 }),
    ]
    const [first, second] = [await shakeHands(one), await shakeHands(other)]
    expect(judge(server, 'in', proofOf(other, first.proof))).toMatchObject({ action: 'drop', refusal: 'mac' })
    expect(judge(server, 'in', fromClient(other, ACK)).action).toBe('drop')
    judge(server, 'in', second.proof)
    expect(judge(server, 'in', fromClient(other, ACK)).action).toBe('release')
    expect(judge(server, 'in', fromClient(one, ACK)).action).toBe('drop')
  })

  it('is no SYN-ACK there', async () => {
    const { client, server } = await twoPods()
    const { synAck } = await shakeHands(connect(client, server))
    const other = connect(client, server, { clientPort: 40_001, clientIsn: 5, serverIsn: 6 })
    judge(client, 'out', fromClient(other, SYN))
    expect(judge(client, 'in', synAckOf(other, synAck))).toMatchObject({ action: 'drop', refusal: 'mac' })
  })

  it('is no proof from the server to the client that connected', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { proof } = await shakeHands(c)
    const back = connect(server, client, { clientPort: 40_002, serverPort: 81 })
    await shakeHands(back)
    expect(judge(client, 'in', proofOf(back, proof)).action).toBe('drop')
    expect(judge(client, 'in', fromClient(back, ACK)).action).toBe('drop')
  })

  it('a SYN-ACK’s MAC is no proof: who says something is part of what is said', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { synAck, proof } = await shakeHands(c)
    const reflected = Buffer.from(proof)
    synAck.copy(reflected, FRAME_AT + 24, FRAME_AT + 24, FRAME_AT + 56)
    expect(judge(server, 'in', reflected)).toMatchObject({ action: 'drop', refusal: 'mac' })
  })
})

describe('what was altered on the way', () => {
  it('a copy of the SYN with another nonce does not keep a client, released already, from proving again', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { syn, synAckIn } = await shakeHands(c)
    judge(server, 'in', flip(syn, FRAME_AT + 8))
    judge(server, 'out', fromServer(c, SYN_ACK))
    judge(server, 'in', flip(syn, FRAME_AT + 9))
    const actions: string[] = []
    for (let round = 0; round < 2; round++) {
      advance([client, server], 300)
      const { reply } = judge(server, 'in', fromClient(c, ACK, { payload: Buffer.from('late') }))
      const again = judge(client, 'in', reply ?? Buffer.alloc(0), (MARK_RELEASED | synAckIn.mark) >>> 0)
      actions.push(again.action)
    }
    expect(actions).toContain('release')
  })

  it('a SYN with another nonce gets an answer that its client does not take', async () => {
    const { client, server } = await twoPods()
    await establish(connect(client, server, { clientPort: 1 }))
    const c = connect(client, server)
    const syn = judge(client, 'out', fromClient(c, SYN)).packet
    expect(judge(server, 'in', flip(syn, FRAME_AT + 8)).action).toBe('pass')
    const synAck = judge(server, 'out', fromServer(c, SYN_ACK)).packet
    expect(judge(client, 'in', synAck)).toMatchObject({ action: 'drop', refusal: 'mac', reply: undefined })
  })

  it.each([
    ['SYN', 0],
    ['SYN-ACK', 1],
    ['proof', 2],
  ])('a %s of another version is none', async (_what, which) => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { syn, synAck, proof } = await shakeHands(c)
    const [bytes, at] = (
      [
        [syn, server],
        [synAck, client],
        [proof, server],
      ] as const
    )[which] ?? [syn, server]
    for (const version of [0, 2, 255]) {
      const other = Buffer.from(bytes)
      other.writeUInt8(version, FRAME_AT + 4)
      // What is no proof is data of a connection that is not released.
      expect(judge(at, 'in', other)).toMatchObject({ action: 'drop', refusal: which === 2 ? 'stale' : 'frame' })
    }
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('drop')
  })

  it('a proof that comes late is data of nobody: it ends where the connection’s data begins', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { proof } = await shakeHands(c)
    expect((proof.readUInt32BE(24) + proof.length - FRAME_AT) >>> 0).toBe(c.clientIsn + 1)
  })

  it('the client waits on, whatever is wrong before the MAC: only the verified server’s word ends its connection', async () => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { synAck } = await shakeHands(c)
    for (let at = FRAME_AT + 8; at < synAck.length; at++) {
      const verdict = judge(client, 'in', flip(synAck, at))
      // A changed WIT is one that has to be verified first.
      if (verdict.action === 'hold') continue
      expect({ at, action: verdict.action, reply: verdict.reply }).toEqual({ at, action: 'drop', reply: undefined })
    }
    expect(judge(client, 'in', synAck).action).toBe('release')
  })
})
