import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { DirectoryEntry } from '../../../api/identity.ts'
import { createPeersClient, type PeersClient, type PeersClientOptions } from '../../../sidecar/control/peers-client.ts'
import { type FakeIssuer, json, startFakeIssuer, until } from './fake-issuer.ts'

const A = '10.0.0.1'
const B = 'fd00::2'
const node = (name: string): DirectoryEntry => ({ kind: 'node', name, ports: [] })
const known = (entry: DirectoryEntry) => ({ kind: 'known', entry })
const external: DirectoryEntry = { kind: 'external' }

let issuer: FakeIssuer
let client: PeersClient | undefined
let nowMs = 0
beforeEach(async () => {
  nowMs = 1_000_000
  issuer = await startFakeIssuer()
})
afterEach(async () => {
  client?.stop()
  await issuer.close()
})

function create(options: Partial<PeersClientOptions> = {}): PeersClient {
  client = createPeersClient({ http: issuer.http, authenticate: async () => ({}), now: () => nowMs, ...options })
  return client
}

/** Answers each question with a node named `<address> <number>`, counting from 1. */
function serveNodes(): { readonly asked: string[] } {
  const asked: string[] = []
  issuer.handle((request, response) => {
    const address = new URL(request.url ?? '', 'https://issuer').searchParams.get('ip') ?? ''
    asked.push(address)
    json(response, node(`${address} ${asked.length}`))
  })
  return { asked }
}

function breakIssuer(): void {
  issuer.handle((_, response) => void response.destroy())
}

describe('the peers client', () => {
  it('asks with a proof for the very path, and gives the entry', async () => {
    const seen: unknown[] = []
    issuer.handle((request, response) => {
      seen.push({ method: request.method, url: request.url, proof: request.headers['x-proof'] })
      json(response, external)
    })
    const peers = create({ authenticate: async (path) => ({ 'x-proof': path }) })
    expect(await peers.ask(B)).toEqual(known(external))
    expect(seen).toEqual([{ method: 'GET', url: '/v1/peers?ip=fd00%3A%3A2', proof: '/v1/peers?ip=fd00%3A%3A2' }])
  })

  it('asks once for an address that many want at a time', async () => {
    const { asked } = serveNodes()
    const peers = create()
    const [first, second, other, third] = await Promise.all([peers.ask(A), peers.ask(A), peers.ask(B), peers.ask(A)])
    expect([second, third]).toEqual([first, first])
    expect(other).not.toEqual(first)
    expect(asked.sort()).toEqual([A, B])
  })

  it('has a bounded number of requests under way, and refuses beyond a bounded queue', async () => {
    let under = 0
    let most = 0
    issuer.handle(async (_, response) => {
      under += 1
      most = Math.max(most, under)
      await new Promise((resolve) => setTimeout(resolve, 10))
      under -= 1
      json(response, external)
    })
    const peers = create({ limits: { concurrency: 2, waiting: 3 } })
    const answers = await Promise.all(Array.from({ length: 7 }, (_, index) => peers.ask(`10.0.0.${index}`)))
    expect(most).toBe(2)
    expect(answers.map(({ kind }) => kind)).toEqual([...Array(5).fill('known'), 'cannot-ask', 'cannot-ask'])
    expect((await peers.ask('10.0.0.99')).kind).toBe('known')
  })

  it('asks again after 30 s for an address that no stream watches over', async () => {
    serveNodes()
    const peers = create()
    await peers.ask(A)
    nowMs += 29_999
    expect(peers.peek(A)).toEqual(node(`${A} 1`))
    nowMs += 1
    expect(peers.peek(A)).toBeUndefined()
    expect(await peers.ask(A)).toEqual(known(node(`${A} 2`)))
  })

  it('lets an entry stand while the stream watches over it, once it was asked for or told since', async () => {
    serveNodes()
    const peers = create()
    await peers.ask(A)
    await peers.ask(B)
    peers.streamOpened([A, B])
    nowMs += 30_000
    // It may have changed between the first answer and the hello: asked once more.
    expect(peers.peek(A)).toBeUndefined()
    await peers.ask(A)
    peers.update(B, node('told'))
    nowMs += 86_400_000
    expect([peers.peek(A), peers.peek(B)]).toEqual([node(`${A} 3`), node('told')])
  })

  it('lets a watched entry stand for 10 min after the stream is lost and the issuer away, then knows nothing', async () => {
    serveNodes()
    const peers = create()
    peers.streamOpened([A])
    await peers.ask(A)
    nowMs += 86_400_000
    peers.streamLost()
    breakIssuer()
    nowMs += 599_999
    expect(await peers.ask(A)).toEqual(known(node(`${A} 1`)))
    nowMs += 1
    expect(await peers.ask(A)).toEqual({ kind: 'cannot-ask', reason: expect.stringContaining('/v1/peers at ') })
  })

  it('answers "cannot ask" for a new address while the issuer is away, and leaves it alone for a second', async () => {
    breakIssuer()
    const peers = create()
    expect((await peers.ask(A)).kind).toBe('cannot-ask')
    const { asked } = serveNodes()
    nowMs += 999
    expect((await peers.ask(B)).kind).toBe('cannot-ask')
    expect(asked).toEqual([])
    nowMs += 1
    expect(await peers.ask(B)).toEqual(known(node(`${B} 1`)))
  })

  it('asks at once again when the stream says that the issuer is back', async () => {
    breakIssuer()
    const peers = create()
    await peers.ask(A)
    serveNodes()
    peers.streamOpened([])
    expect((await peers.ask(A)).kind).toBe('known')
  })

  it('does not stop asking for others because one address is refused or answered with nonsense', async () => {
    const peers = create()
    issuer.handle((_, response) => json(response, { error: { code: 'bad-ip', message: 'no' } }, 400))
    expect((await peers.ask(A)).kind).toBe('cannot-ask')
    issuer.handle((_, response) => json(response, { kind: 'everything' }))
    expect((await peers.ask(A)).kind).toBe('cannot-ask')
    serveNodes()
    expect((await peers.ask(B)).kind).toBe('known')
  })

  it('believes the stream over an answer that was on its way', async () => {
    let release: (() => void) | undefined
    issuer.handle((_, response) => {
      release = () => json(response, node('old'))
    })
    const peers = create()
    peers.streamOpened([A])
    const answer = peers.ask(A)
    await until(() => release !== undefined)
    peers.update(A, node('new'))
    release?.()
    expect(await answer).toEqual(known(node('new')))
    expect(peers.peek(A)).toEqual(node('new'))
  })

  it('does not take an answer for watched that was asked under another stream', async () => {
    let release: (() => void) | undefined
    issuer.handle((_, response) => {
      release = () => json(response, node('maybe old'))
    })
    const peers = create()
    peers.streamOpened([A])
    const answer = peers.ask(A)
    await until(() => release !== undefined)
    peers.streamLost()
    peers.streamOpened([A])
    release?.()
    await answer
    nowMs += 30_000
    expect(peers.peek(A)).toBeUndefined()
  })

  it('wants a new subscription for addresses of the cluster that the stream does not know of, once for many', async () => {
    serveNodes()
    let wanted = 0
    const onUnsubscribed = () => {
      wanted += 1
    }
    const peers = create({ onUnsubscribed, limits: { subscribeDelayMs: 20 } })
    peers.streamOpened([])
    await Promise.all([peers.ask(A), peers.ask(B)])
    await until(() => wanted === 1)
    issuer.handle((_, response) => json(response, external))
    await peers.ask('192.0.2.1')
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(wanted).toBe(1)
    expect(peers.addresses().toSorted()).toEqual([A, B])
  })

  it('forgets the address used longest ago at its bound', async () => {
    serveNodes()
    const peers = create({ limits: { maxEntries: 2, maxSubscribed: 1 } })
    await peers.ask('10.0.0.1')
    await peers.ask('10.0.0.2')
    peers.peek('10.0.0.1')
    await peers.ask('10.0.0.3')
    expect(['10.0.0.1', '10.0.0.2', '10.0.0.3'].map((address) => peers.peek(address) !== undefined)).toEqual([
      true,
      false,
      true,
    ])
    expect({ size: peers.size(), subscribed: peers.addresses() }).toEqual({ size: 2, subscribed: ['10.0.0.3'] })
  })

  it('tells each entry that came or changed', async () => {
    serveNodes()
    const told: unknown[] = []
    const peers = create({ onEntry: (address, entry) => void told.push([address, entry]) })
    await peers.ask(A)
    peers.update(A, external)
    expect(told).toEqual([
      [A, node(`${A} 1`)],
      [A, external],
    ])
  })
})
