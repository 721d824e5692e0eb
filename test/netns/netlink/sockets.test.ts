import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { openConntrack } from '../../../sidecar/netlink/conntrack.ts'
import { NetlinkError } from '../../../sidecar/netlink/errors.ts'
import { type SocketTuple, TCP_ESTABLISHED, TCP_LISTEN } from '../../../sidecar/netlink/inet-diag.ts'
import { openNftGeneration } from '../../../sidecar/netlink/nft-generation.ts'
import {
  createQueuedPacket,
  decodeQueued,
  encodeVerdict,
  NF_ACCEPT,
  NF_INET_LOCAL_OUT,
} from '../../../sidecar/netlink/queue.ts'
import { openQueueSocket, wakeQueueSocket } from '../../../sidecar/netlink/queue-socket.ts'
import { openRawSocket } from '../../../sidecar/netlink/raw-socket.ts'
import { readNetwork } from '../../../sidecar/netlink/route.ts'
import { openSockDiag, type SockDiag } from '../../../sidecar/netlink/sock-diag.ts'
import { receiveOne } from '../../kernel/receive-one.ts'
import { enterNewNamespace } from './namespace.ts'

const namespace = enterNewNamespace()
afterAll(() => namespace.leave())

const LOOPBACK = new Uint8Array([127, 0, 0, 1])
const LOOPBACK_6 = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])

interface Connection {
  readonly server: Server
  readonly client: Socket
  readonly accepted: Socket
  /** As the client sees it, and as the server does. */
  readonly clientTuple: SocketTuple
  readonly serverTuple: SocketTuple
}

async function openConnection(listenHost: string, host: string): Promise<Connection> {
  const server = createServer()
  server.listen(0, listenHost)
  await once(server, 'listening')
  const bound = server.address()
  const port = bound !== null && typeof bound === 'object' ? bound.port : 0
  const client = connect(port, host)
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [[Socket], unknown]
  client.on('error', () => undefined)
  accepted.on('error', () => undefined)
  accepted.resume()
  const family = host.includes(':') ? 6 : 4
  const address = family === 4 ? LOOPBACK : LOOPBACK_6
  const ends = { family, protocol: 6, local: address, remote: address } as const
  const clientPort = client.localPort ?? 0
  return {
    server,
    client,
    accepted,
    clientTuple: { ...ends, localPort: clientPort, remotePort: port },
    serverTuple: { ...ends, localPort: port, remotePort: clientPort },
  }
}

async function closeConnection({ server, client, accepted }: Connection): Promise<void> {
  client.destroy()
  accepted.destroy()
  await new Promise((resolve) => server.close(resolve))
}

describe.each([
  ['IPv4', '127.0.0.1', '127.0.0.1'],
  ['IPv6', '::1', '::1'],
  ['IPv4 to a dual-stack listener', '::', '127.0.0.1'],
])('sock_diag, %s', (_name, listenHost, host) => {
  let connection: Connection
  let diag: SockDiag

  beforeEach(async () => {
    connection = await openConnection(listenHost, host)
    diag = openSockDiag()
  })

  afterEach(async () => {
    diag.close()
    await closeConnection(connection)
  })

  it('finds the socket of either end of a connection, with its state, user and a cookie that is its own', () => {
    const ends = [connection.clientTuple, connection.serverTuple].map((tuple) => {
      const found = diag.findSocket(tuple)
      expect(found).toEqual({
        ...tuple,
        state: TCP_ESTABLISHED,
        uid: process.getuid?.(),
        inode: found?.inode,
        cookie: found?.cookie,
        bytesAcknowledged: undefined,
        bytesReceived: undefined,
      })
      expect(found?.inode).toBeGreaterThan(0)
      return Buffer.from(found?.cookie ?? []).toString('hex')
    })
    expect(new Set(ends).size).toBe(2)
  })

  it('finds no socket for a connection that does not exist, though its port has a listener', () => {
    const missing = { ...connection.serverTuple, remotePort: connection.serverTuple.remotePort ^ 1 }
    expect(diag.findSocket(missing)).toBeUndefined()
    expect(diag.destroySocket(missing)).toBe(false)
    expect(connection.server.listening).toBe(true)
    expect(diag.findListener(connection.serverTuple.localPort)?.state).toBe(TCP_LISTEN)
  })

  it('finds the listener of a port and none for another port', () => {
    expect(diag.findListener(connection.serverTuple.localPort)?.localPort).toBe(connection.serverTuple.localPort)
    expect(diag.findListener(connection.clientTuple.localPort)).toBeUndefined()
  })

  it('destroys a connection at once for both ends, and only once', async () => {
    const ends = [connection.client, connection.accepted]
    // `once` would reject with the resets that are the point here.
    const closed = Promise.all(ends.map((end) => new Promise((resolve) => end.on('close', resolve))))
    expect(diag.destroySocket(connection.clientTuple)).toBe(true)
    await closed
    expect(diag.destroySocket(connection.clientTuple)).toBe(false)
    expect(connection.server.listening).toBe(true)
  })

  it('lists the connections with the bytes that went each way', async () => {
    connection.client.write(Buffer.alloc(1000))
    await once(connection.accepted, 'data')
    const bytesOf = (tuple: SocketTuple) => {
      const socket = diag.listConnections(true).find(({ localPort }) => localPort === tuple.localPort)
      return [socket?.family, socket?.bytesAcknowledged, socket?.bytesReceived]
    }
    for (let i = 0; i < 30 && bytesOf(connection.clientTuple)[1] === 1; i++) await sleep(10)
    const { family } = connection.clientTuple
    // The kernel counts the SYN as one acknowledged byte.
    expect(bytesOf(connection.clientTuple)).toEqual([family, 1001, 0])
    expect(bytesOf(connection.serverTuple)).toEqual([family, 0, 1000])
    expect(diag.listConnections(false).every((socket) => socket.bytesReceived === undefined)).toBe(true)
  })
})

describe('raw sockets', () => {
  it.each([
    [4, LOOPBACK],
    [6, LOOPBACK_6],
  ] as const)('sends a whole IPv%i packet with the mark that it was opened with', (family, loopback) => {
    const iptables = family === 4 ? 'iptables' : 'ip6tables'
    namespace.run(`${iptables} -w -t mangle -A OUTPUT -m mark --mark 0x20000000 -j NFQUEUE --queue-num 5`)
    const queue = openQueueSocket({ receiveBufferBytes: 1 << 20, receiveTimeoutMilliseconds: 1000 })
    const raw = openRawSocket(family, 0x20000000)
    try {
      queue.bind(5, { copyRange: 0xffff, maximumLength: 16, flags: 0 })
      const headerBytes = family === 4 ? 20 : 40
      const packet = new Uint8Array(headerBytes + 9)
      if (family === 4) {
        packet.set([0x45, 0, 0, packet.length, 0, 1, 0, 0, 64, 17])
        packet.set(loopback, 12)
        packet.set(loopback, 16)
      } else {
        packet.set([0x60, 0, 0, 0, 0, 9, 17, 64])
        packet.set(loopback, 8)
        packet.set(loopback, 24)
      }
      packet.set([0x1f, 0x40, 0x1f, 0x41, 0, 9, 0, 0, 0x78], headerBytes)
      expect(raw.send(packet, packet.length, loopback)).toBe(packet.length)
      const buffer = new Uint8Array(1 << 17)
      const queued = createQueuedPacket()
      expect(decodeQueued(buffer, 0, receiveOne(queue, buffer), queued)).toBe('ok')
      expect([queued.hook, queued.mark, queued.payloadBytes]).toEqual([NF_INET_LOCAL_OUT, 0x20000000, packet.length])
      const sent = buffer.slice(queued.payloadOffset, queued.payloadOffset + queued.payloadBytes)
      // The kernel fills in the IPv4 header's checksum; everything else is as it was given.
      if (family === 4) sent.fill(0, 10, 12)
      expect(sent).toEqual(packet)
      raw.close()
      expect(raw.send(packet, packet.length, loopback)).toBe(-9)
    } finally {
      raw.close()
      queue.close()
    }
  })

  it('returns -errno where there is no route', () => {
    const raw = openRawSocket(4, 0)
    const packet = new Uint8Array(20)
    packet.set([0x45, 0, 0, 20, 0, 1, 0, 0, 64, 17])
    expect(raw.send(packet, 20, new Uint8Array([192, 0, 2, 1]))).toBe(-101)
    raw.close()
  })
})

describe('the network view', () => {
  it('names interfaces with MTU, addresses and default gateways', () => {
    namespace.run('ip link add veth0 type veth peer name veth1')
    namespace.run('ip link set veth0 mtu 1280 up')
    namespace.run('ip link set veth1 up')
    namespace.run('ip addr add 192.0.2.2/24 dev veth0')
    namespace.run('ip -6 addr add 2001:db8::2/64 dev veth0 nodad')
    namespace.run('ip route add default via 192.0.2.1')
    namespace.run('ip -6 route add default via 2001:db8::1')
    namespace.run('ip route add 198.51.100.0/24 via 192.0.2.9')
    try {
      const { links, addresses, defaultRoutes } = readNetwork()
      const veth = links.find((link) => link.name === 'veth0')
      const index = veth?.index ?? 0
      expect(links.find((link) => link.name === 'lo')).toEqual({
        index: 1,
        name: 'lo',
        mtuBytes: 65_536,
        up: true,
        loopback: true,
      })
      expect(veth).toEqual({ index, name: 'veth0', mtuBytes: 1280, up: true, loopback: false })
      const global = addresses.filter((a) => a.interfaceIndex === index && a.address[0] !== 0xfe)
      const v6 = Uint8Array.from(Buffer.from('20010db8000000000000000000000002', 'hex'))
      expect(global).toEqual([
        { family: 4, interfaceIndex: index, address: new Uint8Array([192, 0, 2, 2]), prefixLength: 24 },
        { family: 6, interfaceIndex: index, address: v6, prefixLength: 64 },
      ])
      const gateway6 = Uint8Array.from(v6)
      gateway6[15] = 1
      expect(defaultRoutes).toEqual([
        { family: 4, interfaceIndex: index, gateway: new Uint8Array([192, 0, 2, 1]) },
        { family: 6, interfaceIndex: index, gateway: gateway6 },
      ])
    } finally {
      namespace.run('ip link del veth0')
    }
  })
})

describe('connection tracking of TCP', () => {
  it('tells the state of a connection', async () => {
    const off = openConntrack()
    namespace.run('iptables -w -A INPUT -m conntrack --ctstate NEW,ESTABLISHED')
    const connection = await openConnection('127.0.0.1', '127.0.0.1')
    try {
      const states: unknown[] = []
      off.dump(undefined, (flow) => {
        if (flow.original.sourcePort === connection.clientTuple.localPort) states.push(flow.tcpState)
      })
      expect(states).toEqual([3])
    } finally {
      await closeConnection(connection)
      off.close()
    }
  })
})

describe('the generation of the rules', () => {
  it('stays while nothing changes and is another after a rule was added', () => {
    const generation = openNftGeneration()
    const before = generation.read()
    expect(before).toBeGreaterThan(0)
    expect(generation.read()).toBe(before)
    namespace.run('iptables-nft -w -t filter -A INPUT -p udp --dport 7999')
    const after = generation.read()
    expect(after).toBeGreaterThan(before ?? 0)
    expect(generation.read()).toBe(after)
    generation.close()
  })
})

/** RFC 1071 over a TCP segment of an IPv4 packet and its pseudo-header: 0xffff where the checksum is right. */
function tcpSum(packet: Uint8Array): number {
  const segmentBytes = packet.length - 20
  const pseudo = [...packet.subarray(12, 20), 0, 6, segmentBytes >> 8, segmentBytes & 0xff, ...packet.subarray(20), 0]
  let sum = 0
  for (let i = 0; i + 1 < pseudo.length; i += 2) sum += ((pseudo[i] ?? 0) << 8) | (pseudo[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

describe('queued TCP', () => {
  it('comes with complete checksums and in segments of the MTU, though the stack left both to the device', async () => {
    namespace.run('ip link set lo mtu 1500')
    const connection = await openConnection('127.0.0.1', '127.0.0.1')
    namespace.run('iptables -w -t mangle -A OUTPUT -p tcp -j NFQUEUE --queue-num 6')
    const queue = openQueueSocket({ receiveBufferBytes: 4 << 20, receiveTimeoutMilliseconds: 500 })
    try {
      queue.bind(6, { copyRange: 0xffff, maximumLength: 1024, flags: 0 })
      connection.client.write(Buffer.alloc(10_000, 'x'))
      await sleep(20)
      const buffer = new Uint8Array(1 << 17)
      const out = new Uint8Array(1 << 10)
      const packet = createQueuedPacket()
      let payloadBytes = 0
      for (let packets = 0; packets < 40 && payloadBytes < 10_000; packets++) {
        expect(decodeQueued(buffer, 0, receiveOne(queue, buffer), packet)).toBe('ok')
        expect(packet.payloadBytes).toBeLessThanOrEqual(1500)
        const bytes = buffer.slice(packet.payloadOffset, packet.payloadOffset + packet.payloadBytes)
        expect(tcpSum(bytes)).toBe(0xffff)
        payloadBytes += bytes.length - 20 - ((bytes[32] ?? 0) >> 4) * 4
        queue.send(out, encodeVerdict(out, 0, packet.queue, packet.id, NF_ACCEPT, undefined))
      }
      expect(payloadBytes).toBe(10_000)
    } finally {
      queue.close()
      namespace.run('iptables -w -t mangle -F OUTPUT')
      namespace.run('ip link set lo mtu 65536')
      await closeConnection(connection)
    }
  })
})

describe('the queue socket across threads', () => {
  it('wakes a worker that waits in receive, from the main thread', async () => {
    const worker = new Worker(new URL('./wake-worker.ts', import.meta.url))
    const exited = once(worker, 'exit')
    const [{ fd }] = (await once(worker, 'message')) as [{ fd: number }]
    await sleep(50)
    expect(wakeQueueSocket(fd)).toBe(0)
    const [answer] = await once(worker, 'message')
    expect(answer).toEqual({ woken: true })
    await exited
  })

  it('counts what its receive buffer had no room for', () => {
    namespace.run('iptables -w -t mangle -A INPUT -p udp --dport 7009 -j NFQUEUE --queue-num 9')
    const queue = openQueueSocket({ receiveBufferBytes: 4096, receiveTimeoutMilliseconds: 100 })
    const raw = openRawSocket(4, 0)
    try {
      queue.bind(9, { copyRange: 0xffff, maximumLength: 1024, flags: 0 })
      const packet = new Uint8Array(28)
      packet.set([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17])
      packet.set(LOOPBACK, 12)
      packet.set(LOOPBACK, 16)
      packet.set([0x1f, 0x40, 0x1b, 0x61, 0, 8, 0, 0], 20)
      for (let i = 0; i < 200; i++) expect(raw.send(packet, 28, LOOPBACK)).toBe(28)
      const buffer = new Uint8Array(1 << 17)
      let received = 0
      while (receiveOne(queue, buffer) > 0) received++
      expect(received).toBeGreaterThan(0)
      expect(received).toBeLessThan(200)
      expect(queue.drops()).toBe(200 - received)
      // A signal of the engine may interrupt a wait.
      expect(queue.counters).toEqual({ received, interrupted: expect.any(Number), noBuffers: 0, sendRetries: 0 })
    } finally {
      raw.close()
      queue.close()
    }
  })
})

describe('refused sockets', () => {
  it('names the call and the errno', () => {
    let failure: unknown
    try {
      openRawSocket(4, 0).close()
      openQueueSocket({ receiveBufferBytes: 1, receiveTimeoutMilliseconds: -1 })
    } catch (error) {
      failure = error
    }
    expect(failure instanceof NetlinkError && [failure.code, failure.errno]).toEqual(['netlink-socket', 'EDOM'])
  })
})
