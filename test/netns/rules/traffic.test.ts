import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { MARK_OWN, MARK_PROVED, MARK_RELEASED, MARK_REVOKED, MARK_STALE } from '../../../api/marks.ts'
import type { RulesetOptions } from '../../../sidecar/rules/ruleset.ts'
import { ADDRESS, createPair, inside, type Pair, type Running, runScript, startScript } from './namespaces.ts'

const RELEASED = (MARK_RELEASED | 5) >>> 0

let pair: Pair
let server: Running
let reader: Running | undefined

beforeAll(async () => {
  pair = await createPair()
  server = await startScript(pair.right, 'server.ts')
})

afterAll(async () => {
  await server?.stop()
  await pair?.remove()
})

afterEach(async () => {
  await reader?.stop()
  reader = undefined
  await Promise.all([pair.left, pair.right].map((namespace) => runScript(namespace, 'rules-step.ts', 'remove')))
})

const guard = (namespace: string, backend: string, options: Partial<RulesetOptions> = {}) =>
  runScript(namespace, 'rules-step.ts', 'apply', { backend, options })

async function judge(namespace: string, table: Record<string, number | 'drop'>): Promise<unknown[]> {
  reader = await startScript(namespace, 'queue-reader.ts', table)
  return reader.lines
}

/** The client stands left, the server right. */
const exchange = (what: unknown, address: string = ADDRESS.right, ...more: unknown[]) =>
  runScript(pair.left, 'client.ts', what, address, ...more)

describe.each(['nft', 'legacy'])('with iptables-%s', (backend) => {
  it('nothing but ICMP and loopback passes while no sidecar reads the queue', async () => {
    await guard(pair.right, backend)
    const exchanges = [
      ...[exchange('tcp-unanswered'), exchange('tcp-unanswered', ADDRESS.right6)],
      exchange('udp-unanswered'),
    ]
    expect(await Promise.all(exchanges)).toEqual(Array(3).fill('ABORT_ERR'))
    for (const address of [ADDRESS.right, ADDRESS.right6]) {
      expect(await exchange('ping', address)).toBe('echoed')
    }
    expect(await runScript(pair.right, 'client.ts', 'tcp', '127.0.0.1')).toBe('echoed')
  })

  it.each([ADDRESS.right, ADDRESS.right6])(
    'the server sees a handshake and nothing of what follows (%s)',
    async (to) => {
      await guard(pair.right, backend)
      const queued = await judge(pair.right, { 'in tcp': RELEASED })
      expect(await exchange('tcp', to)).toBe('echoed')
      expect(queued).toEqual([
        [0, 'in syn', 0],
        [0, 'out syn-ack', 0],
        [0, 'in tcp', 0],
      ])
    },
  )

  it('the client sees a handshake and nothing of what follows', async () => {
    await guard(pair.left, backend)
    const queued = await judge(pair.left, { 'in syn-ack': RELEASED })
    expect(await exchange('tcp')).toBe('echoed')
    expect(queued).toEqual([
      [0, 'out syn', 0],
      [0, 'in syn-ack', 0],
    ])
  })

  it.each([ADDRESS.right, ADDRESS.right6])(
    'a proved client’s first ACK stays in its Pod, that one alone (%s)',
    async (to) => {
      await guard(pair.left, backend)
      await judge(pair.left, { 'in syn-ack': (RELEASED | MARK_PROVED) >>> 0 })
      expect(await exchange('tcp', to)).toBe('echoed')
      const save = `${to.includes(':') ? 'ip6tables' : 'iptables'}-${backend}-save`
      const counted = (await inside(pair.left, [save, '-c', '-t', 'mangle'])).stdout
      expect(/\[(\d+):\d+\] -A SYNGUARD-ACK -j DROP/.exec(counted)?.[1]).toBe('1')
    },
  )

  it.each([ADDRESS.right, ADDRESS.right6])(
    'a SYN that is refused on arrival is answered with a reset (%s)',
    async (to) => {
      await guard(pair.right, backend)
      const queued = await judge(pair.right, { 'in syn': MARK_REVOKED })
      expect(await exchange('tcp', to)).toBe('ECONNREFUSED')
      expect(queued).toEqual([[0, 'in syn', 0]])
    },
  )

  it.each([ADDRESS.right, ADDRESS.right6])(
    'a SYN that is refused on its way out is answered with a reset (%s)',
    async (to) => {
      await guard(pair.left, backend, { refusal: 'drop' })
      const queued = await judge(pair.left, { 'out syn': MARK_REVOKED })
      expect(await exchange('tcp', to)).toBe('ECONNREFUSED')
      expect(queued).toEqual([[0, 'out syn', 0]])
    },
  )

  it('with refusal drop a refused peer hears nothing', async () => {
    await guard(pair.right, backend, { refusal: 'drop' })
    await judge(pair.right, { 'in syn': MARK_REVOKED, 'in other': MARK_REVOKED })
    expect(await Promise.all(['tcp-unanswered', 'udp-unanswered'].map((what) => exchange(what)))).toEqual([
      'ABORT_ERR',
      'ABORT_ERR',
    ])
  })
})

describe('with iptables-nft', () => {
  const backend = 'nft'

  it('a UDP flow is queued until it is released', async () => {
    await guard(pair.right, backend)
    const queued = await judge(pair.right, { 'in other': RELEASED })
    expect(await exchange('udp')).toBe('echoed')
    expect(queued).toEqual([[1, 'in other', 0]])
  })

  it.each([ADDRESS.right, ADDRESS.right6])('a refused datagram is answered with an ICMP error (%s)', async (to) => {
    await guard(pair.right, backend)
    await judge(pair.right, { 'in other': MARK_REVOKED })
    expect(await exchange('udp', to)).toBe(to === ADDRESS.right ? 'EHOSTUNREACH' : 'EACCES')
  })

  it('a connection that is revoked in place is reset at its next packet, unqueued', async () => {
    await guard(pair.right, backend)
    const queued = await judge(pair.right, { 'in tcp': RELEASED })
    const exchanged = exchange('tcp-twice')
    while (queued.length < 3) await sleep(20)
    await sleep(500)
    const revoke = [
      '-t',
      'mangle',
      '-A',
      'PREROUTING',
      '-p',
      'tcp',
      '-j',
      'CONNMARK',
      '--set-xmark',
      '0x40000000/0xc0000000',
    ]
    await inside(pair.right, [`iptables-${backend}`, ...revoke])
    expect(await exchanged).toBe('ECONNRESET')
    await inside(pair.right, [`iptables-${backend}`, '-t', 'mangle', '-F', 'PREROUTING'])
    expect(queued.length).toBe(3)
  })

  it("an own SYN on a tuple that conntrack still knows does not inherit the old connection's mark", async () => {
    await guard(pair.left, backend)
    const queued = await judge(pair.left, { 'in syn-ack': RELEASED })
    const exchanged = exchange('tcp-twice', ADDRESS.right, 9001)
    while (queued.length < 2) await sleep(20)
    expect(await runScript(pair.left, 'client.ts', [2, 0], ADDRESS.right, 9001)).toBe('sent')
    expect(await exchanged).toBe('echoed')
    expect(queued.slice(0, 3)).toEqual([
      [0, 'out syn', 0],
      [0, 'in syn-ack', 0],
      [0, 'out syn', 0],
    ])
  })

  it("an arriving SYN on a released tuple is queued and shows the connection's mark, and that conntrack knew it", async () => {
    await guard(pair.right, backend)
    const queued = await judge(pair.right, { 'in tcp': RELEASED })
    const exchanged = exchange('tcp-twice', ADDRESS.right, 9002)
    while (queued.length < 3) await sleep(20)
    expect(await runScript(pair.left, 'client.ts', [2, 0], ADDRESS.right, 9002)).toBe('sent')
    expect(await exchanged).toBe('echoed')
    expect(queued).toEqual([
      [0, 'in syn', 0],
      [0, 'out syn-ack', 0],
      [0, 'in tcp', 0],
      [0, 'in syn', (RELEASED | MARK_STALE) >>> 0],
    ])
  })

  it('a SYN on a released tuple can be refused, and the connection goes on', async () => {
    await guard(pair.right, backend)
    const queued = await judge(pair.right, { 'in tcp': RELEASED, 'in syn released': MARK_REVOKED })
    const resets = ['-p', 'tcp', '--tcp-flags', 'RST', 'RST']
    await inside(pair.left, ['iptables', '-A', 'INPUT', ...resets])
    const exchanged = exchange('tcp-twice', ADDRESS.right, 9003)
    while (queued.length < 3) await sleep(20)
    expect(await runScript(pair.left, 'client.ts', [2, 0], ADDRESS.right, 9003)).toBe('sent')
    expect(await exchanged).toBe('echoed')
    const counted = (await inside(pair.left, ['iptables-save', '-c'])).stdout
    await inside(pair.left, ['iptables', '-D', 'INPUT', ...resets])
    expect(/\[(\d+):\d+\] -A INPUT -p tcp/.exec(counted)?.[1]).toBe('1')
  })

  it('a packet that conntrack calls invalid is dropped unqueued', async () => {
    await guard(pair.right, backend)
    const queued = await judge(pair.right, {})
    const SYN_AND_FIN = 3
    expect(await exchange([SYN_AND_FIN, 0], ADDRESS.right, 9050)).toBe('sent')
    await sleep(200)
    expect(queued).toEqual([])
  })
})

describe('own raw packets', () => {
  const ACK = 16
  const FIN = 1
  // The plain peer answers an ACK of no connection with a reset: its arrival says that the ACK got out.
  const table = { 'out tcp': 'drop', 'out syn': 'drop' } as const
  // A new tuple for each: conntrack remembers the others for a while.
  let port = 9100

  it.each([
    ['an ACK with the own mark skips the queue', ACK, MARK_OWN, 0, [[0, 'in rst', 0]]],
    ['a FIN with the own mark is dropped on the spot', FIN, MARK_OWN, 0, []],
    ['an ACK without the mark is queued', ACK, 0, 0, [[0, 'out tcp', 0]]],
    ['an ACK with a mark that claims a verdict is queued, the mark gone', ACK, 0xe0000001, 0, [[0, 'out tcp', 0]]],
    ["an ACK with the own mark from another user's socket is queued", ACK, MARK_OWN, 15900, [[0, 'out tcp', 0]]],
  ] as const)('%s', async (_rule, flags, mark, sidecarUid, expected) => {
    await guard(pair.left, 'nft', { sidecarUid })
    const queued = await judge(pair.left, table)
    port++
    expect(await exchange([flags, mark], ADDRESS.right, port)).toBe(flags === FIN ? 'not sent' : 'sent')
    await sleep(200)
    expect(queued).toEqual(expected)
  })
})
