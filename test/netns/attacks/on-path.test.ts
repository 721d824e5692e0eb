/** An attacker through whose hands every packet goes: records, alters, removes and puts in again, diverts. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import {
  ACK,
  createField,
  type Field,
  type Forged,
  forge,
  frameType,
  type Kind,
  type Peer,
  PORT,
  pause,
  type Seen,
  SYN,
  type Treatment,
} from './attacker.ts'

const WIT_SECONDS = 30

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
afterEach(async () => await field.path.treat({}))

const NOTHING = { accepted: 0, text: '' }
const heardBy = (peer: Peer) => peer.ask({ do: 'heard' })
const say = (name: string, text: string) => client.ask({ do: 'say', name, text })

async function open(from = nextPort++, name = String(from)): Promise<unknown> {
  return await client.ask({ do: 'open', name, address: server.address, port: PORT, from })
}

/** A connection that comes to be and carries data: the control of every test. */
async function connects(from = nextPort++): Promise<void> {
  expect(await open(from)).toEqual({ opened: true })
  expect(await say(String(from), 'hello')).toEqual({ echoed: 'hello' })
  await client.ask({ do: 'end', name: String(from) })
}

/** The first packet of a kind that the path saw lately. */
function find(seen: readonly Seen[], matches: (packet: Seen) => boolean): Seen {
  const found = seen.find(matches)
  if (!found) throw new Error('the path saw no such packet')
  return found
}

const isType = (type: number) => (packet: Seen) => frameType(packet) === type

describe('frames that are removed or altered on the way', () => {
  it.each<[string, readonly Kind[]]>([
    ['the SYN’s', ['syn']],
    ['the SYN-ACK’s', ['syn-ack']],
    ['both', ['syn', 'syn-ack']],
    ['the proof’s', ['proof']],
    ['all', ['syn', 'syn-ack', 'proof']],
  ])('removed: %s: the server’s application meets nobody', async (_what, strip) => {
    await connects()
    await heardBy(server)
    await field.path.treat({ strip })
    const from = nextPort++
    await open(from)
    const [said] = await Promise.all([say(String(from), 'secret'), pause(500)])
    expect(said).toMatchObject({ error: expect.any(String) })
    expect(await heardBy(server)).toEqual(NOTHING)
    await field.path.treat({})
    await client.ask({ do: 'reset', name: String(from) })
    await connects()
  })

  it.each<[string, NonNullable<Treatment['alter']>]>([
    ['the version of a SYN', { kind: 'syn', at: 4, mask: 3 }],
    ['nonce_c in a SYN', { kind: 'syn', at: 9, mask: 1 }],
    ['a byte of the client’s WIT', { kind: 'syn', at: 200, mask: 1 }],
    ['nonce_s', { kind: 'syn-ack', at: 9, mask: 1 }],
    ['the MAC of a SYN-ACK', { kind: 'syn-ack', at: 30, mask: 1 }],
    ['the client’s address in a SYN-ACK', { kind: 'syn-ack', at: 61, mask: 1 }],
    ['the server’s port in a SYN-ACK', { kind: 'syn-ack', at: 69, mask: 1 }],
    ['a byte of the server’s WIT', { kind: 'syn-ack', at: 300, mask: 1 }],
    ['nonce_c in a proof', { kind: 'proof', at: 9, mask: 1 }],
    ['the MAC of a proof', { kind: 'proof', at: 30, mask: 1 }],
    ['the WIT’s hash in a proof', { kind: 'proof', at: 60, mask: 1 }],
  ])('altered: %s: the server’s application meets nobody', async (_what, alter) => {
    await heardBy(server)
    await field.path.treat({ alter })
    const from = nextPort++
    const opened = open(from)
    await pause(1_500)
    expect(await heardBy(server)).toEqual(NOTHING)
    await field.path.treat({})
    await opened
    await client.ask({ do: 'reset', name: String(from) })
    await connects()
  })
})

describe('a recorded handshake, put in again with the numbers of the one under way', () => {
  /** Records one whole handshake. */
  async function record(): Promise<Record<'syn' | 'synAck' | 'proof', Seen>> {
    await field.path.seen()
    await connects()
    const seen = await field.path.seen()
    return { syn: find(seen, isType(1)), synAck: find(seen, isType(2)), proof: find(seen, isType(3)) }
  }

  /** As the client, on any port: SYN, then proof, ACK and data with what the server's kernel answered. */
  async function replay(recorded: { syn: Seen; proof: Seen }, from: number): Promise<void> {
    await field.path.seen()
    const tuple = { from: client.address, fromPort: from, to: server.address, toPort: PORT }
    const put = async (packet: Omit<Forged, keyof typeof tuple>) =>
      await field.path.send([forge({ ...tuple, ...packet })])
    // What the server answers must not reach the client, whose kernel would reset it.
    await field.path.treat({ drop: ['syn-ack', 'rst'], from: server.address })
    await put({ flags: SYN, sequence: 1_000, payload: recorded.syn.payload })
    await pause(200)
    const answers = (await field.path.seen()).filter(
      (packet) => packet.destinationPort === from && frameType(packet) === 2,
    )
    const acknowledgement = (answers[0]?.sequence ?? 0) + 1
    await put({ flags: ACK, sequence: 1_001 - 88, acknowledgement, payload: recorded.proof.payload })
    await put({ flags: ACK, sequence: 1_001, acknowledgement })
    await put({ flags: ACK, sequence: 1_001, acknowledgement, payload: Buffer.from('replayed') })
    await pause(200)
    await field.path.treat({})
  }

  it('at once, after a second, and after the WIT was renewed: the server’s application meets nobody', async () => {
    const recorded = await record()
    for (const wait of [0, 1_000, (WIT_SECONDS / 2 + 2) * 1_000]) {
      await pause(wait)
      await heardBy(server)
      for (const from of [recorded.syn.sourcePort, nextPort++]) await replay(recorded, from)
      expect({ wait, heard: await heardBy(server) }).toEqual({ wait, heard: NOTHING })
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
    await heardBy(server)
    for (const wait of [0, 1_000]) {
      await pause(wait)
      for (const packet of seen.filter((one) => frameType(one) > 0)) await field.path.send([packet.bytes, packet.bytes])
      await pause(200)
      expect(await say(String(from), 'again')).toEqual({ echoed: 'again' })
      expect(await heardBy(server)).toEqual({ accepted: 0, text: 'again' })
    }
    await client.ask({ do: 'end', name: String(from) })
  })

  it('a recorded SYN-ACK in place of the server’s releases no client', async () => {
    const { synAck } = await record()
    await heardBy(server)
    for (const wait of [0, 1_000]) {
      await pause(wait)
      const from = nextPort++
      await field.path.seen()
      await field.path.treat({ drop: ['syn-ack'] })
      const opened = open(from)
      await pause(200)
      const syn = find(await field.path.seen(), (packet) => packet.sourcePort === from)
      const tuple = { from: server.address, fromPort: PORT, to: client.address, toPort: from }
      const numbers = { sequence: synAck.sequence, acknowledgement: syn.sequence + 1 }
      await field.path.send([forge({ ...tuple, ...numbers, flags: synAck.flags, payload: synAck.payload })])
      await pause(300)
      const answered = (await field.path.seen()).filter(
        (packet) => packet.sourcePort === from && frameType(packet) !== 1,
      )
      expect(answered).toEqual([])
      await field.path.treat({})
      expect(await opened).toEqual({ opened: true })
      await client.ask({ do: 'reset', name: String(from) })
    }
  })

  it('a proof moved to another connection under way, with that one’s numbers, opens neither', async () => {
    await heardBy(server)
    await field.path.seen()
    await field.path.treat({ drop: ['proof', 'ack', 'data'], from: client.address })
    const [one, two] = [nextPort++, nextPort++]
    for (const from of [one, two]) await open(from)
    const seen = await field.path.seen()
    const proofOf = (port: number) => find(seen, (packet) => packet.sourcePort === port && frameType(packet) === 3)
    const [proof, numbers] = [proofOf(one), proofOf(two)]
    const tuple = { from: client.address, fromPort: two, to: server.address, toPort: PORT }
    const { sequence, acknowledgement } = numbers
    await field.path.send([
      forge({ ...tuple, flags: ACK, sequence, acknowledgement, payload: proof.payload }),
      forge({ ...tuple, flags: ACK, sequence: sequence + 88, acknowledgement }),
      forge({ ...tuple, flags: ACK, sequence: sequence + 88, acknowledgement, payload: Buffer.from('moved') }),
    ])
    await pause(300)
    expect(await heardBy(server)).toEqual(NOTHING)
    await field.path.treat({})
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
    for (const peer of [client, server, other]) await heardBy(peer)
    const from = nextPort++
    const opened = (await open(from)) as { opened?: boolean; error?: string }
    expect(opened.error).toMatch(/^(timeout|ECONNREFUSED|ECONNRESET)$/)
    await client.ask({ do: 'reset', name: String(from) })
    for (const peer of [client, server, other]) expect(await heardBy(peer)).toEqual(NOTHING)
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
  const crossing = async (treatment: Treatment): Promise<unknown[]> => {
    const [here, there] = [nextPort++, nextPort++]
    await field.onNode(
      'iptables',
      '-t',
      'mangle',
      '-I',
      'FORWARD',
      '-p',
      'tcp',
      '--dport',
      `${here}:${there}`,
      '-m',
      'ttl',
      '!',
      '--ttl-eq',
      '99',
      '-j',
      'NFQUEUE',
      '--queue-num',
      '77',
    )
    await field.path.treat({ delay: ['syn'] })
    const opened = [
      client.ask({ do: 'open', name: 'crossed', address: server.address, port: there, from: here }),
      server.ask({ do: 'open', name: 'crossed', address: client.address, port: here, from: there }),
    ]
    await pause(300)
    await field.path.goOn(treatment)
    const results = await Promise.all(opened)
    await field.path.treat({})
    await field.onNode('iptables', '-t', 'mangle', '-D', 'FORWARD', '1')
    for (const peer of [client, server]) await peer.ask({ do: 'reset', name: 'crossed' })
    return results
  }

  it('they meet where both proved who they are', async () => {
    expect(await crossing({})).toEqual([{ opened: true }, { opened: true }])
  }, 30_000)

  it('they do not where frames are removed on the way', async () => {
    const results = (await crossing({ strip: ['syn-ack'] })) as { error?: string }[]
    expect(results.map(({ error }) => error !== undefined)).toEqual([true, true])
  }, 30_000)
})
