/** Floods: every bound holds, and what honest peers need is not evicted by them. */
import { describe, expect, it } from '@jest/globals'
import {
  MAXIMUM_HALF_OPEN,
  MAXIMUM_HELD_DATAGRAMS,
  MAXIMUM_HELD_PACKETS,
  MAXIMUM_REFUSED_WITS,
  REFUSED_WIT_MILLISECONDS,
  VERIFICATIONS_BURST,
  VERIFICATIONS_PER_SECOND,
  VERIFICATIONS_PER_SOURCE_BURST,
  VERIFICATIONS_PER_SOURCE_PER_SECOND,
} from '../../../sidecar/datapath/bounds.ts'
import { createHeldPackets, type HeldPacket } from '../../../sidecar/datapath/held.ts'
import { createPeerTable } from '../../../sidecar/datapath/peers.ts'
import { createRecentSyns } from '../../../sidecar/datapath/recent-syns.ts'
import { createSourceBuckets } from '../../../sidecar/datapath/token-bucket.ts'
import { encodeSynFrame, encodeWitSection } from '../../../sidecar/handshake/frame.ts'
import { keyOf } from './keys.ts'
import {
  ACK,
  advance,
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

/** A SYN from some address of the cluster. */
function strangerSyn(server: TestPod, number: number, payload: Uint8Array = new Uint8Array(0)): Buffer {
  const from = Buffer.from([10, 200 + (number >>> 16), (number >>> 8) & 0xff, number & 0xff])
  return fromClient({ ...connect(server, server), clientPort: 1_024 + (number % 60_000) }, SYN, { from, payload })
}

function bogus(number: number): Buffer {
  const header = Buffer.from('{"alg":"ES256"}')
  const signature = Buffer.alloc(64)
  signature.writeUInt32BE(number)
  return encodeSynFrame(encodeWitSection({ header, payload: Buffer.alloc(30), signature }))
}

describe('while a flood runs, peers that are known already connect', () => {
  it.each<[string, (server: TestPod, number: number) => Buffer]>([
    ['SYNs without a frame', (server, number) => strangerSyn(server, number)],
    ['garbage on SYNs', (server, number) => strangerSyn(server, number, Buffer.from(`SYNG${number} garbage`))],
    ['SYNs with bogus WITs', (server, number) => strangerSyn(server, number, bogus(number))],
  ])('%s', async (_what, make) => {
    const { client, server } = await twoPods()
    await establish(connect(client, server))
    const actions = new Set<string>()
    for (let number = 0; number < 3_000; number++) {
      actions.add(judge(server, 'in', make(server, number)).action)
      if (number % 300 !== 0) continue
      const { release } = await establish(connect(client, server, { clientPort: 41_000 + number }))
      expect(release.action).toBe('release')
    }
    expect(actions.has('release') || actions.has('pass')).toBe(false)
    expect(server.gate.halfOpen.size()).toBeLessThan(20)
  })

  it('one good WIT from every port: the ring keeps its size, and handshakes under way finish', async () => {
    const { client, server } = await twoPods()
    const mallory = await createPod({ name: 'mallory', address: '10.244.0.9' })
    await establish(connect(client, server))
    await establish(connect(mallory, server))
    const c = connect(client, server, { clientPort: 42_000 })
    const wire = await shakeHands(c)
    const payload = encodeSynFrame(mallory.section)
    for (let number = 0; number < MAXIMUM_HALF_OPEN + 100; number++) {
      const flood = { ...connect(mallory, server), clientPort: 1 + (number % 60_000) }
      judge(server, 'in', fromClient(flood, SYN, { payload, sequence: number }))
    }
    expect(server.gate.halfOpen.size()).toBe(MAXIMUM_HALF_OPEN)
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(c, ACK)).action).toBe('release')
  })
})

describe('verifications', () => {
  it('one source gets its burst and then its rate, and another source is not in its way', async () => {
    const { client, server } = await twoPods()
    const attempt = (number: number) =>
      judge(server, 'in', fromClient(connect(client, server), SYN, { payload: bogus(number), sequence: number })).action
    const actions = Array.from({ length: 100 }, (_, number) => attempt(number))
    expect(actions.filter((action) => action === 'hold').length).toBe(VERIFICATIONS_PER_SOURCE_BURST)
    expect(judge(server, 'in', strangerSyn(server, 1, bogus(1_000))).action).toBe('hold')
    advance([server], 1_000)
    const later = Array.from({ length: 100 }, (_, number) => attempt(2_000 + number))
    expect(later.filter((action) => action === 'hold').length).toBe(VERIFICATIONS_PER_SOURCE_PER_SECOND)
  })

  it('all sources together get a burst and then a rate, and a first contact succeeds right after the flood', async () => {
    const { client, server } = await twoPods()
    const count = (from: number) => {
      let held = 0
      for (let number = 0; number < 2_000; number++) {
        if (judge(server, 'in', strangerSyn(server, from + number, bogus(from + number))).action === 'hold') held++
      }
      return held
    }
    expect(count(0)).toBe(VERIFICATIONS_BURST)
    advance([server, client], 1_000)
    expect(count(10_000)).toBe(VERIFICATIONS_PER_SECOND)
    const c = connect(client, server)
    const syn = judge(client, 'out', fromClient(c, SYN)).packet
    expect(judge(server, 'in', syn)).toMatchObject({ action: 'drop', refusal: 'busy' })
    advance([server, client], 1_000)
    expect((await settle(server, 'in', syn)).action).toBe('pass')
    expect(judge(server, 'out', fromServer(c, SYN_ACK)).action).toBe('pass')
  })

  it('a WIT that is being verified costs no second token, from however many ports it comes', async () => {
    const { client, server } = await twoPods()
    const payload = encodeSynFrame(client.section)
    const actions = new Set<string>()
    for (let port = 1; port < 500; port++) {
      actions.add(
        judge(server, 'in', fromClient({ ...connect(client, server), clientPort: port }, SYN, { payload })).action,
      )
    }
    expect([...actions]).toEqual(['hold'])
    expect(server.gate.verifying.size()).toBe(1)
  })

  it('forgets the bucket of the oldest source above its bound', () => {
    const buckets = createSourceBuckets(0, 1, 2)
    expect(['a', 'b', 'a', 'c', 'b', 'a'].map((source) => buckets.take(source, 0))).toEqual([
      true,
      true,
      false,
      true,
      false,
      true,
    ])
  })
})

describe('what the packet path remembers', () => {
  it('keeps the last refused WITs, each for its time', () => {
    const table = createPeerTable(10, MAXIMUM_REFUSED_WITS, REFUSED_WIT_MILLISECONDS)
    const key = (number: number) => Buffer.from(`wit ${number}`)
    for (let number = 0; number <= MAXIMUM_REFUSED_WITS; number++) table.refuse(key(number), 'wit-invalid', 0)
    const find = (number: number, now: number) => table.findBySection(key(number), 0, key(number).length, now)
    expect([find(0, 1), find(1, 1), find(MAXIMUM_REFUSED_WITS, REFUSED_WIT_MILLISECONDS - 1)]).toEqual([
      undefined,
      'wit-invalid',
      'wit-invalid',
    ])
    expect(find(2, REFUSED_WIT_MILLISECONDS)).toBeUndefined()
  })

  it('holds one packet of a tuple and so many in all', () => {
    const held = createHeldPackets(MAXIMUM_HELD_PACKETS)
    const packet = (key: string) => ({
      queue: 0,
      id: 1,
      hook: 1,
      mark: 0,
      bytes: Buffer.alloc(0),
      need: { kind: 'resolve', key, address: key } as const,
      deadline: 10,
    })
    expect([held.add('a', packet('x')), held.add('a', packet('x')), held.add('b', packet('x'))]).toEqual([
      'first',
      'repeated',
      'held',
    ])
    for (let number = 2; number < MAXIMUM_HELD_PACKETS; number++) held.add(`${number}`, packet('y'))
    expect([held.add('more', packet('z')), held.size()]).toEqual(['full', MAXIMUM_HELD_PACKETS])
    expect([held.takeByNeed('x').length, held.takeExpired(10).length, held.size()]).toEqual([
      2,
      MAXIMUM_HELD_PACKETS - 2,
      0,
    ])
  })

  it('holds so many datagrams of one flow, in order, and counts them anew once they are gone', () => {
    const held = createHeldPackets(MAXIMUM_HELD_PACKETS)
    const datagram = (id: number): HeldPacket => ({
      queue: 0,
      id,
      hook: 1,
      mark: 0,
      bytes: Buffer.alloc(0),
      need: { kind: 'resolve', key: 'x', address: 'x' },
      deadline: 10,
    })
    const add = (name: string, id: number) => held.add(name, datagram(id), MAXIMUM_HELD_DATAGRAMS)
    for (let id = 1; id <= MAXIMUM_HELD_DATAGRAMS; id++) expect(add('a', id)).toBe(id === 1 ? 'first' : 'held')
    expect([add('a', 100), add('b', 101)]).toEqual(['repeated', 'held'])
    expect(held.takeByNeed('x').map(({ id }) => id)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 101])
    expect([held.size(), add('a', 1)]).toEqual([0, 'first'])
  })

  it('forgets the oldest of its own SYNs, and takes a new number for a new connection', () => {
    const syns = createRecentSyns(2, { low: 1, high: 2 })
    const [a, b, c] = [7, 8, 9]
    for (const [tuple, isn] of [
      [a, 1],
      [b, 1],
      [a, 2],
      [c, 1],
    ] as const)
      syns.note(keyOf(tuple), isn, 0)
    expect([a, b, c].map((tuple) => syns.find(keyOf(tuple))?.isn)).toEqual([2, undefined, 1])
  })
})
