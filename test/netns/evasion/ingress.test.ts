/**
 * Somebody whom the ingress policy of a guarded server denies tries to get in, by what a kernel's sockets do not send
 * or seldom do. The same attempts reach a server without a sidecar, or come from one who is allowed.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { runCommand, runIpBatch } from '../../../lab/command.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { addressOf } from '../../lab/objects.ts'
import {
  createField,
  FAST_OPEN_PORT,
  type Field,
  MPTCP_PORT,
  type Options,
  PORT,
  putPolicyFor,
  type Server,
} from './field.ts'

let field: Field
/** Admits `friend`, and one address outside; `open` is the same server without a sidecar. */
let server: Server
let open: Server
let friend: RunningPod
/** Denied: without a sidecar and with every power over its network, and guarded. */
let outsider: RunningPod
let stranger: RunningPod

const OUTSIDE_ALLOWED = '203.0.113.10'
const OUTSIDE_DENIED = '172.30.0.1'

beforeAll(async () => {
  field = await createField()
  const from = [{ podSelector: { matchLabels: { app: 'friend' } } }, { ipBlock: { cidr: `${OUTSIDE_ALLOWED}/32` } }]
  putPolicyFor(field.lab, 'server', { policyTypes: ['Ingress'], ingress: [{ from }] })
  server = await field.serve(await field.runPod('guarded', 'server'))
  friend = await field.runPod('guarded', 'friend')
  stranger = await field.runPod('guarded', 'stranger')
  open = await field.serve(await field.runPod('plain', 'open'))
  outsider = await field.runPod('plain', 'outsider', true)
}, 120_000)
afterAll(async () => await field?.stop())

let words = 0
const newWord = (): string => `word-${++words}`

/** Whether what one sends to the other arrives, where it is expected to or not. */
async function arrives(
  expected: boolean,
  from: RunningPod,
  to: Server,
  port: number,
  options: Options,
  family: 4 | 6 = 4,
) {
  const word = newWord()
  await field.send(from, addressOf(to.pod, family), port, word, options)
  return await to.received(word, expected)
}

/** The attempts all at once: those that are to succeed, and those that are not. */
async function onlyThese(arrive: readonly Promise<boolean>[], stayAway: readonly Promise<boolean>[]): Promise<void> {
  const [arrived, stayed] = await Promise.all([Promise.all(arrive), Promise.all(stayAway)])
  expect({ arrived, stayed }).toEqual({ arrived: arrive.map(() => true), stayed: stayAway.map(() => false) })
}

async function craft(to: Server, protocol: 'udp' | 'tcp', shape: string, family: 4 | 6) {
  const word = newWord()
  const addresses = [addressOf(outsider, family), addressOf(to.pod, family)]
  const parameters = [protocol, ...addresses, String(PORT), word, shape]
  const answer = await field.inNamespace(outsider.network.netns, 'crafted', ...parameters)
  return { answer, arrived: protocol === 'udp' && (await to.received(word, to === open)) }
}

describe('Fast Open: data on the SYN of a denied client reaches no application', () => {
  // Client and server without cookies: the server's application has the data before the handshake is over.
  beforeAll(async () => {
    for (const pod of [server.pod, open.pod, friend, outsider, stranger]) {
      await field.sysctl(pod.network.netns, 'net.ipv4.tcp_fastopen=0x207')
    }
  })

  it.each([1, 2])('by way %d of a client', async (fastopen) => {
    const options = { fastopen }
    await onlyThese(
      [arrives(true, outsider, open, FAST_OPEN_PORT, options), arrives(true, friend, server, FAST_OPEN_PORT, options)],
      [outsider, stranger].map((denied) => arrives(false, denied, server, FAST_OPEN_PORT, options)),
    )
  })

  it('and the tricks did send it on the SYN', async () => {
    const count = async (pod: RunningPod) => {
      const text = await runCommand('ip', [
        'netns',
        'exec',
        pod.network.netns,
        'nstat',
        '-asz',
        'TcpExtTCPFastOpenPassive',
      ])
      return Number(/TcpExtTCPFastOpenPassive\s+(\d+)/.exec(text)?.[1])
    }
    expect(await count(open.pod)).toBeGreaterThan(0)
    expect(await count(server.pod)).toBe(0)
  })
})

describe('Multipath TCP', () => {
  it('is judged as TCP: denied for a stranger, allowed for a friend', async () => {
    const options = { protocol: 'mptcp' }
    await onlyThese(
      [arrives(true, outsider, open, MPTCP_PORT, options), arrives(true, friend, server, MPTCP_PORT, options)],
      [outsider, stranger].map((denied) => arrives(false, denied, server, MPTCP_PORT, options)),
    )
  })

  it('a further subflow from an address that policy denies joins no allowed connection', async () => {
    const { external } = field.lab.network
    await runCommand('ip', ['-n', external, 'mptcp', 'limits', 'set', 'subflows', '2', 'add_addr_accepted', '2'])
    await runIpBatch(external, [`mptcp endpoint add ${OUTSIDE_DENIED} dev eth0 subflow`])
    const joined = async ({ pod: { network } }: Server): Promise<number> => {
      const nstat = ['netns', 'exec', network.netns, 'nstat', '-asz', 'MPTcpExtMPJoinSynRx']
      return Number(/MPTcpExtMPJoinSynRx\s+(\d+)/.exec(await runCommand('ip', nstat))?.[1])
    }
    for (const { pod } of [open, server]) {
      await runCommand('ip', ['-n', pod.network.netns, 'mptcp', 'limits', 'set', 'subflows', '2'])
      const parameters = [addressOf(pod), String(MPTCP_PORT), newWord(), 'protocol', 'mptcp']
      await field.inNamespace(external, 'attempt', 'send', ...parameters)
    }
    for (let tries = 0; tries < 100 && (await joined(open)) === 0; tries++) await pause(100)
    expect(await joined(open)).toBeGreaterThan(0)
    expect(await joined(server)).toBe(0)
  })
})

describe('packets that no socket sends', () => {
  it.each([
    ['udp', 'fragments', 4],
    ['udp', 'fragments', 6],
    ['udp', 'last-first', 4],
    ['udp', 'last-first', 6],
    ['udp', 'h', 6],
    ['udp', 'd', 6],
    ['udp', 'r', 6],
    ['udp', 'f', 6],
    ['udp', 'hdrfd', 6],
    ['udp', 'dddddddddddd', 6],
  ] as const)('%s as %s over IPv%d: a denied datagram does not arrive', async (protocol, shape, family) => {
    const [atOpen, atServer] = await Promise.all([open, server].map((to) => craft(to, protocol, shape, family)))
    expect([atOpen?.arrived, atServer?.arrived]).toEqual([true, false])
  })

  it.each([
    ['whole', 4],
    ['whole', 6],
    ['fragments', 4],
    ['fragments', 6],
    ['last-first', 4],
    ['last-first', 6],
    ['h', 6],
    ['d', 6],
    ['r', 6],
    ['f', 6],
    ['hdrfd', 6],
    ['dddddddddddd', 6],
  ] as const)('a SYN as %s over IPv%d: nobody listens for a denied client', async (shape, family) => {
    const [atOpen, atServer] = await Promise.all([open, server].map((to) => craft(to, 'tcp', shape, family)))
    expect(atOpen?.answer).toBe('syn-ack')
    expect(atServer?.answer).not.toBe('syn-ack')
  })
})

describe("another Pod's address as the source", () => {
  it.each([4, 6] as const)("IPv%d: a guarded workload sends no datagram in a friend's name", async (family) => {
    const options = { protocol: 'udp', source: addressOf(friend, family) }
    await onlyThese(
      [arrives(true, friend, server, PORT, { protocol: 'udp' }, family)],
      [arrives(false, stranger, server, PORT, options, family)],
    )
  })
})

describe("the sidecar's port", () => {
  it('cannot be bound beside the sidecar, on any address, with reuse of address and port', async () => {
    for (const { pod } of [server, open]) {
      const expected = pod === server.pod ? 'EADDRINUSE' : 'ok'
      for (const address of ['0.0.0.0', '::', '127.0.0.1', '::1', ...pod.network.addresses]) {
        expect(await field.inContainer(pod, 'power', 'bind-tcp', address)).toBe(expected)
        expect(await field.inContainer(pod, 'power', 'bind-tcp', address, '15900')).toBe(expected)
      }
    }
  })

  it('for datagrams is judged like any other', async () => {
    expect(await arrives(true, outsider, open, PORT, { protocol: 'udp', sourceport: 15_900 })).toBe(true)
    expect(await arrives(false, outsider, server, PORT, { protocol: 'udp', sourceport: 15_900 })).toBe(false)
  })
})
