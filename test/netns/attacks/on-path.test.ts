/** An attacker through whose hands every packet goes: records, alters, removes and puts in again, diverts. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import {
  ACK,
  createField,
  type Field,
  type Forged,
  forge,
  frameType,
  type Outcome,
  type Peer,
  PORT,
  pause,
  type Seen,
  SYN,
  TO_PATH,
  type Treatment,
} from './attacker.ts'

const WIT_SECONDS = 20
/** What is tampered with for so long was not only late. Time for a SYN and its second repetition. */
const PATIENCE_SECONDS = 4

let field: Field
let client: Peer
let server: Peer
let other: Peer
let nextPort = 44_000

beforeAll(async () => {
  field = await createField({ witLifetimeSeconds: WIT_SECONDS })
  client = await field.peer('guarded', 'client')
  server = await field.peer('guarded', 'server')
  other = await field.peer('guarded', 'other')
  for (const peer of [client, server, other]) await peer.ask({ do: 'listen', port: PORT })
}, 60_000)
afterAll(async () => await field?.stop())
afterEach(async () => await field.path.letPass())

const NOTHING = { accepted: 0, text: '' }
const heardBy = (peer: Peer, from: number) => peer.ask({ do: 'heard', from })
const say = (name: string, text: string, seconds?: number) =>
  client.ask({ do: 'say', name, text, ...(seconds !== undefined && { seconds }) })

async function open(from: number, seconds?: number): Promise<Outcome> {
  const to = { address: server.address, port: PORT }
  return await client.ask({ do: 'open', name: String(from), ...to, from, ...(seconds !== undefined && { seconds }) })
}

/** A connection that comes to be and carries data: the control of every test. */
async function connects(): Promise<void> {
  const from = nextPort++
  expect(await open(from)).toEqual({ opened: true })
  expect(await say(String(from), 'hello')).toEqual({ echoed: 'hello' })
  await client.ask({ do: 'end', name: String(from) })
  await server.ask({ do: 'end accepted', from })
}

const sees = (type: number) => field.path.sees((packet) => frameType(packet) === type)

/** Each on a connection of its own, all at once: most of them wait until their client gives up. */
const TAMPERINGS: readonly (readonly [string, Treatment])[] = [
  ['without the SYN’s frame', { strip: ['syn'] }],
  ['without the SYN-ACK’s', { strip: ['syn-ack'] }],
  ['without both', { strip: ['syn', 'syn-ack'] }],
  ['without the proof’s', { strip: ['proof'] }],
  ['without any', { strip: ['syn', 'syn-ack', 'proof'] }],
  ['with another version in a SYN', { alter: { kind: 'syn', at: 4, mask: 3 } }],
  ['with another nonce_c in a SYN', { alter: { kind: 'syn', at: 9, mask: 1 } }],
  ['with another byte in the client’s WIT', { alter: { kind: 'syn', at: 200, mask: 1 } }],
  ['with another nonce_s', { alter: { kind: 'syn-ack', at: 9, mask: 1 } }],
  ['with another MAC of a SYN-ACK', { alter: { kind: 'syn-ack', at: 30, mask: 1 } }],
  ['with another client’s address in a SYN-ACK', { alter: { kind: 'syn-ack', at: 61, mask: 1 } }],
  ['with another server’s port in a SYN-ACK', { alter: { kind: 'syn-ack', at: 69, mask: 1 } }],
  ['with another byte in the server’s WIT', { alter: { kind: 'syn-ack', at: 300, mask: 1 } }],
  ['with another nonce_c in a proof', { alter: { kind: 'proof', at: 9, mask: 1 } }],
  ['with another MAC of a proof', { alter: { kind: 'proof', at: 30, mask: 1 } }],
  ['with another hash of the WIT in a proof', { alter: { kind: 'proof', at: 60, mask: 1 } }],
]

describe('a connection whose frames are tampered with on the way', () => {
  const outcomes = new Map<string, { readonly said: Outcome; readonly heard: unknown }>()

  beforeAll(async () => {
    await connects()
    const tampered = TAMPERINGS.map(([what, how]) => ({ what, how: { ...how, port: nextPort++ } }))
    for (const { how } of tampered) await field.path.treat(how)
    await Promise.all(
      tampered.map(async ({ what, how: { port } }) => {
        const [, said] = await Promise.all([
          open(port, PATIENCE_SECONDS),
          say(String(port), 'secret', PATIENCE_SECONDS + 1),
        ])
        outcomes.set(what, { said, heard: await heardBy(server, port) })
        await client.ask({ do: 'reset', name: String(port) })
      }),
    )
    await field.path.letPass()
  }, 30_000)

  it.each(TAMPERINGS)('%s: the server’s application meets nobody', (what) => {
    expect(outcomes.get(what)).toEqual({ said: { error: expect.any(String) }, heard: NOTHING })
  })

  it('and once nobody tampers, the next one meets it', connects)
})

describe('a recorded handshake, put in again with the numbers of the one under way', () => {
  /** Records one whole handshake. */
  async function record(): Promise<Record<'syn' | 'synAck' | 'proof', Seen>> {
    await field.path.seen()
    await connects()
    const [syn, synAck, proof] = [await sees(1), await sees(2), await sees(3)]
    return { syn, synAck, proof }
  }

  /** As the client, on any port: SYN, then proof, ACK and data with what the server's kernel answered. */
  async function replay(recorded: { syn: Seen; proof: Seen }, from: number): Promise<void> {
    await field.path.seen()
    const tuple = { from: client.address, fromPort: from, to: server.address, toPort: PORT }
    const put = async (packet: Omit<Forged, keyof typeof tuple>) =>
      await field.path.send([forge({ ...tuple, ...packet })])
    // What the server answers must not reach the client, whose kernel would reset it.
    await field.path.treat({ drop: ['syn-ack', 'rst'], from: server.address })
    // Behind the numbers of the recorded connection, for which the server may be in TIME_WAIT.
    const first = (recorded.syn.sequence + 0x100000) >>> 0
    const after = (first + 1) >>> 0
    const putSyn = () => put({ flags: SYN, sequence: first, payload: recorded.syn.payload })
    await putSyn()
    // As a client does: a server may drop a SYN that comes at a bad moment.
    const repeats = setInterval(() => void putSyn(), 1_000)
    const isAnswer = (packet: Seen) => packet.destinationPort === from && frameType(packet) === 2
    const answer = await field.path.sees(isAnswer).finally(() => clearInterval(repeats))
    const acknowledgement = answer.sequence + 1
    await put({ flags: ACK, sequence: (after - 88) >>> 0, acknowledgement, payload: recorded.proof.payload })
    await put({ flags: ACK, sequence: after, acknowledgement })
    await put({ flags: ACK, sequence: after, acknowledgement, payload: Buffer.from('replayed') })
    await pause(200)
    await field.path.letPass()
  }

  it('at once, after a second, and after the WIT was renewed: the server’s application meets nobody', async () => {
    const recorded = await record()
    for (const wait of [0, 1_000, (WIT_SECONDS / 2 + 2) * 1_000]) {
      await pause(wait)
      for (const from of [recorded.syn.sourcePort, nextPort++]) {
        await heardBy(server, from)
        await replay(recorded, from)
        expect({ wait, heard: await heardBy(server, from) }).toEqual({ wait, heard: NOTHING })
      }
    }
    const renewed = await record()
    expect(renewed.syn.payload.subarray(24).equals(recorded.syn.payload.subarray(24))).toBe(false)
  }, 60_000)

  it('the very packets, on the running connection: it lives on and its application hears nothing twice', async () => {
    await field.path.seen()
    const from = nextPort++
    expect(await open(from)).toEqual({ opened: true })
    expect(await say(String(from), 'first')).toEqual({ echoed: 'first' })
    const seen = await field.path.seen()
    await heardBy(server, from)
    for (const wait of [0, 1_000]) {
      await pause(wait)
      for (const packet of seen.filter((one) => frameType(one) > 0)) await field.path.send([packet.bytes, packet.bytes])
      await pause(200)
      expect(await say(String(from), 'again')).toEqual({ echoed: 'again' })
      expect(await heardBy(server, from)).toEqual({ accepted: 0, text: 'again' })
    }
    await client.ask({ do: 'end', name: String(from) })
  })

  it('a recorded SYN-ACK in place of the server’s releases no client', async () => {
    const { synAck } = await record()
    for (const wait of [0, 1_000]) {
      await pause(wait)
      const from = nextPort++
      await field.path.seen()
      await field.path.treat({ drop: ['syn-ack'] })
      const opened = open(from)
      const syn = await field.path.sees((packet) => packet.sourcePort === from)
      const tuple = { from: server.address, fromPort: PORT, to: client.address, toPort: from }
      const numbers = { sequence: synAck.sequence, acknowledgement: syn.sequence + 1 }
      await field.path.send([forge({ ...tuple, ...numbers, flags: synAck.flags, payload: synAck.payload })])
      await pause(300)
      const answered = (await field.path.seen()).filter(
        (packet) => packet.sourcePort === from && frameType(packet) !== 1,
      )
      expect(answered).toEqual([])
      await field.path.letPass()
      expect(await opened).toEqual({ opened: true })
      await client.ask({ do: 'reset', name: String(from) })
    }
  })

  it('a proof moved to another connection under way, with that one’s numbers, opens neither', async () => {
    await field.path.seen()
    await field.path.treat({ drop: ['proof', 'ack', 'data'], from: client.address })
    const [one, two] = [nextPort++, nextPort++]
    for (const from of [one, two]) await open(from)
    const proofOf = (port: number) => field.path.sees((packet) => packet.sourcePort === port && frameType(packet) === 3)
    const [proof, numbers] = [await proofOf(one), await proofOf(two)]
    const tuple = { from: client.address, fromPort: two, to: server.address, toPort: PORT }
    const { sequence, acknowledgement } = numbers
    await field.path.send([
      forge({ ...tuple, flags: ACK, sequence, acknowledgement, payload: proof.payload }),
      forge({ ...tuple, flags: ACK, sequence: sequence + 88, acknowledgement }),
      forge({ ...tuple, flags: ACK, sequence: sequence + 88, acknowledgement, payload: Buffer.from('moved') }),
    ])
    await pause(300)
    for (const from of [one, two]) expect(await heardBy(server, from)).toEqual(NOTHING)
    await field.path.letPass()
    for (const from of [one, two]) expect(await say(String(from), 'hello')).toEqual({ echoed: 'hello' })
  })
})

describe('diverted connections', () => {
  /** Sends the client's connections to the server to `to` in place of it, from `source` where one is given. */
  async function diverted(to: string, masquerade: boolean, probe: () => Promise<void>): Promise<void> {
    const nat = (verb: string) =>
      field.onNode(
        ...['iptables', '-t', 'nat', verb, 'PREROUTING', '-s', client.address, '-d', server.address, '-p', 'tcp'],
        ...['--dport', String(PORT), '-j', 'DNAT', '--to-destination', to],
      )
    const source = (verb: string) =>
      field.onNode(
        ...['iptables', '-t', 'nat', verb, 'POSTROUTING', '-s', client.address, '-d', to, '-p', 'tcp'],
        ...['--dport', String(PORT), '-j', 'MASQUERADE'],
      )
    await nat('-I')
    if (masquerade) await source('-I')
    try {
      await probe()
    } finally {
      await nat('-D')
      if (masquerade) await source('-D')
    }
  }

  async function opensNothing(): Promise<void> {
    const from = nextPort++
    const opened = await open(from, PATIENCE_SECONDS)
    expect(opened.error).toMatch(/^(timeout|ECONNREFUSED|ECONNRESET)$/)
    await client.ask({ do: 'reset', name: String(from) })
    for (const peer of [client, server, other]) expect(await heardBy(peer, from)).toEqual(NOTHING)
  }

  it('to another guarded Pod: its WIT is not who was dialled', async () => {
    await connects()
    await diverted(other.address, false, opensNothing)
    await connects()
  }, 30_000)

  it('to the right server from a relay’s address: a WIT speaks from its own address alone', async () => {
    await connects()
    await diverted(server.address, true, opensNothing)
    await connects()
  }, 30_000)

  it('back to the client itself, which dialled no Service of its own: its own WIT does not do', async () => {
    await diverted(client.address, true, opensNothing)
    await connects()
  }, 30_000)
})

describe('both ends open at once', () => {
  const crossing = async (treatment: Treatment, seconds: number): Promise<Outcome[]> => {
    const [here, there] = [nextPort++, nextPort++]
    const rule = ['-p', 'tcp', '--dport', `${here}:${there}`, ...TO_PATH]
    await field.onNode('iptables', '-t', 'mangle', '-I', 'FORWARD', ...rule)
    await field.path.treat({ delay: ['syn'] })
    const opened = [
      client.ask({ do: 'open', name: 'crossed', address: server.address, port: there, from: here, seconds }),
      server.ask({ do: 'open', name: 'crossed', address: client.address, port: here, from: there, seconds }),
    ]
    for (const port of [here, there]) await field.path.sees((packet) => packet.sourcePort === port)
    await field.path.goOn(treatment)
    const results = await Promise.all(opened)
    await field.path.letPass()
    await field.onNode('iptables', '-t', 'mangle', '-D', 'FORWARD', '1')
    for (const peer of [client, server]) await peer.ask({ do: 'reset', name: 'crossed' })
    return results
  }

  it('they meet where both proved who they are', async () => {
    expect(await crossing({}, 25)).toEqual([{ opened: true }, { opened: true }])
  }, 30_000)

  it('they do not where frames are removed on the way', async () => {
    const results = await crossing({ strip: ['syn-ack'] }, PATIENCE_SECONDS)
    expect(results.map(({ error }) => error !== undefined)).toEqual([true, true])
  }, 30_000)
})
