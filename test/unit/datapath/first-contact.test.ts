/** Whose first contact a flood can keep waiting, and whose not. */
import { describe, expect, it } from '@jest/globals'
import {
  MAXIMUM_HELD_PACKETS,
  UNKNOWN_KEYS_BURST,
  UNKNOWN_KEYS_PER_SECOND,
  VERIFICATIONS_BURST,
} from '../../../sidecar/datapath/bounds.ts'
import { applyMessage } from '../../../sidecar/datapath/control-messages.ts'
import { createHeldPackets, type HeldPacket } from '../../../sidecar/datapath/held.ts'
import { encodeSynFrame, encodeWitSection, witSectionParts } from '../../../sidecar/handshake/frame.ts'
import { sharedSecret } from '../../../sidecar/handshake/keys.ts'
import { NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT } from '../../../sidecar/netlink/queue.ts'
import {
  advance,
  authority,
  connect,
  createPod,
  establish,
  fromClient,
  judge,
  renew,
  SYN,
  settle,
  shakeHands,
  type TestPod,
  twoPods,
} from './pods.ts'

async function twoPodsOfTheBundle() {
  const { client, server } = await twoPods()
  applyMessage(server.gate, { type: 'bundle', kids: [authority.kid] })
  return { client, server }
}

/** SYNs from as many addresses; how many of them a verification is given to. */
function flood(server: TestPod, count: number, kid: string): number {
  let taken = 0
  for (let number = 0; number < count; number++) {
    const header = Buffer.from(`{"alg":"ES256","kid":"${kid}","typ":"wit+jwt","zip":"DEF"}`)
    const signature = Buffer.alloc(64)
    signature.writeUInt32BE(number)
    const payload = encodeSynFrame(encodeWitSection({ header, payload: Buffer.alloc(30), signature }))
    const from = Buffer.from([10, 200, (number >>> 8) & 0xff, number & 0xff])
    const syn = fromClient({ ...connect(server, server), clientPort: 1_024 + number }, SYN, { from, payload })
    if (judge(server, 'in', syn).action === 'hold') taken++
  }
  return taken
}

const firstSyn = (client: TestPod, server: TestPod) =>
  judge(client, 'out', fromClient(connect(client, server, { clientPort: 50_000 }), SYN)).packet

describe('the secret that a verification brings', () => {
  it.each([
    ['of our identity makes the pair’s key', 0, true, 'release'],
    ['is taken at its word: another one fits no MAC', 0, false, 'drop'],
    ['of another identity of ours is left aside', 1, false, 'release'],
  ] as const)('%s', async (_what, generations, right, action) => {
    const { client, server } = await twoPods()
    const c = connect(client, server)
    const { proof } = await shakeHands(c)
    const [own, peer] = [server.gate.own, server.gate.peers.findByUid(client.identity.uid)[0]]
    if (!own || !peer) throw new Error('the server does not know the client')
    const { index, identity, witHash, cnf, thumbprint, kid, issuedAt, expiresAt, section } = peer
    const secret = right ? sharedSecret(own.privateKey, cnf) : Buffer.alloc(32, 1)
    const shared = { generation: own.generation + generations, secret }
    const result = { index, identity, witHash, cnf, thumbprint, kid, issuedAt, expiresAt, shared }
    applyMessage(server.gate, { type: 'verified', key: '', section, result })
    expect(judge(server, 'in', proof).action).toBe(action)
  })
})

describe('a flood of bogus WITs from many addresses', () => {
  it('of keys that the bundle lacks has a small rate of its own, and keeps no first contact waiting', async () => {
    const { client, server } = await twoPodsOfTheBundle()
    expect(flood(server, 3_000, 'K'.repeat(43))).toBe(UNKNOWN_KEYS_BURST)
    advance([client, server], 1_000)
    expect(flood(server, 3_000, 'L'.repeat(43))).toBe(UNKNOWN_KEYS_PER_SECOND)
    expect((await settle(server, 'in', firstSyn(client, server))).action).toBe('pass')
  })

  it('of a key of the bundle keeps no known peer waiting that shows its next WIT', async () => {
    const { client, server } = await twoPodsOfTheBundle()
    await establish(connect(client, server))
    await renew(client)
    expect(flood(server, 3_000, authority.kid)).toBe(VERIFICATIONS_BURST - 1)
    expect((await settle(server, 'in', firstSyn(client, server))).action).toBe('pass')
    const unmet = await createPod({ name: 'unmet', address: '10.244.0.4' })
    expect(judge(server, 'in', firstSyn(unmet, server))).toMatchObject({ action: 'drop', refusal: 'busy' })
  })

  it('knows the header of a WIT as the issuer writes it', async () => {
    const { client, server } = await twoPodsOfTheBundle()
    const header = Buffer.from(witSectionParts(client.section)?.header ?? []).toString()
    expect([...(server.gate.trustedHeaders ?? [])]).toEqual([header])
  })
})

describe('held packets', () => {
  const packet = (hook: number, kind: 'verify' | 'resolve', number: number): HeldPacket => {
    const key = `${kind} ${number}`
    const need =
      kind === 'verify'
        ? ({ kind, key, section: Buffer.alloc(0) } as const)
        : ({ kind, key, address: String(number) } as const)
    return { queue: 0, id: number, hook, mark: 0, bytes: Buffer.alloc(0), need, deadline: 10 }
  }

  it('where one kind fills them, others get their place from it, and what had to go is told', () => {
    const evicted: HeldPacket[] = []
    const held = createHeldPackets(MAXIMUM_HELD_PACKETS, (one) => evicted.push(one))
    const add = (hook: number, kind: 'verify' | 'resolve', number: number) =>
      held.add(`${hook} ${kind} ${number}`, packet(hook, kind, number))
    for (let number = 0; number < MAXIMUM_HELD_PACKETS; number++) add(NF_INET_LOCAL_IN, 'resolve', number)
    expect(add(NF_INET_LOCAL_IN, 'resolve', 1_000)).toBe('full')
    expect(add(NF_INET_LOCAL_IN, 'verify', 1_001)).toBe('first')
    expect(add(NF_INET_LOCAL_OUT, 'resolve', 1_002)).toBe('first')
    expect(evicted.map(({ id }) => id)).toEqual([MAXIMUM_HELD_PACKETS - 1, MAXIMUM_HELD_PACKETS - 2])
    for (let number = 2_000; number < 3_000; number++) add(NF_INET_LOCAL_IN, 'verify', number)
    const waiting = held.takeExpired(10)
    expect(waiting).toHaveLength(MAXIMUM_HELD_PACKETS)
    const verifying = waiting.filter(({ need }) => need.kind === 'verify').length
    expect(Math.abs(verifying - MAXIMUM_HELD_PACKETS / 2)).toBeLessThanOrEqual(2)
    expect([evicted.length, held.size()]).toEqual([verifying + 1, 0])
  })
})
