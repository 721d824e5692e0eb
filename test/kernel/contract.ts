/**
 * What the queue socket and the connection tracking socket do, on whatever kernel: test/unit/netlink runs it on the
 * fake kernel, test/netns/netlink on the real one. A kernel brings a network of one host where UDP datagrams from
 * 127.0.0.1 to 127.0.0.1 are queued on arrival, and where a mark that a verdict leaves is saved to the connection.
 */

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { type Conntrack, openConntrack } from '../../sidecar/netlink/conntrack.ts'
import { createDatagramBatch, datagramBytes } from '../../sidecar/netlink/datagram-batch.ts'
import { NetlinkError } from '../../sidecar/netlink/errors.ts'
import type { Flow } from '../../sidecar/netlink/flow.ts'
import { acknowledgedErrno, nextMessage } from '../../sidecar/netlink/message.ts'
import {
  createQueuedPacket,
  decodeQueued,
  encodeVerdict,
  isWakeup,
  NF_ACCEPT,
  NF_DROP,
  NF_INET_LOCAL_IN,
  type QueuedPacket,
} from '../../sidecar/netlink/queue.ts'
import { openQueueSocket, type QueueSocket } from '../../sidecar/netlink/queue-socket.ts'
import type { Transport } from '../../sidecar/netlink/transport.ts'
import { receiveOne } from './receive-one.ts'

/** A kernel and its network of one host. */
export interface KernelUnderTest {
  /** A NETLINK_NETFILTER socket of this kernel, or undefined for the machine's own. */
  openTransport(): Transport | undefined
  /** Sends a datagram to `port`: ports 7001 and 7002 are queued to queue 1 and 2. Resolves when it is sent. */
  sendDatagram(port: number, payload: string): Promise<void>
  /** The payloads that arrived at `port` since the last call, once `count` are there or 300 ms have passed. */
  takeDelivered(port: number, count: number): Promise<string[]>
  /** The source port of every datagram. */
  readonly sourcePort: number
  close(): Promise<void>
}

const PORT_ONE = 7001
const PORT_TWO = 7002
/** IPv4 and UDP headers. */
const HEADER_BYTES = 28
const ALL = { copyRange: 0xffff, maximumLength: 1024, flags: 0 }
const OPTIONS = { receiveBufferBytes: 1 << 20, receiveTimeoutMilliseconds: 200 }
const LOOPBACK = new Uint8Array([127, 0, 0, 1])

/** The error's code and errno, or undefined where nothing was thrown. */
function refusalOf(act: () => void): { code: string; errno: string | undefined } | undefined {
  try {
    act()
    return undefined
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
    return { code: error.code, errno: error.errno }
  }
}

/** Declares the suite for one kernel. */
export function describeKernelContract(name: string, openKernel: () => Promise<KernelUnderTest>): void {
  describe(`${name}: queues`, () => {
    let kernel: KernelUnderTest
    let socket: QueueSocket
    const opened: QueueSocket[] = []
    const buffer = new Uint8Array(1 << 17)
    const out = new Uint8Array(1 << 16)

    const open = (): QueueSocket => {
      const one = openQueueSocket(OPTIONS, kernel.openTransport())
      opened.push(one)
      return one
    }

    /** The next packet, and a copy of its bytes. */
    const next = (from = socket): { packet: QueuedPacket; bytes: Uint8Array; payload: string } => {
      const received = receiveOne(from, buffer)
      const packet = createQueuedPacket()
      expect(decodeQueued(buffer, 0, received, packet)).toBe('ok')
      const bytes = buffer.slice(packet.payloadOffset, packet.payloadOffset + packet.payloadBytes)
      return { packet, bytes, payload: Buffer.from(bytes.subarray(HEADER_BYTES)).toString() }
    }

    const answer = (id: number, verdict: number, mark?: number, packet?: Uint8Array, queue = 1): void => {
      const bytes = encodeVerdict(out, 0, queue, id, verdict, mark, packet)
      expect(socket.send(out, bytes)).toBe(bytes)
    }

    beforeEach(async () => {
      kernel = await openKernel()
      socket = open()
    })

    afterEach(async () => {
      for (const one of opened.splice(0)) one.close()
      await kernel.close()
    })

    it('gives a queued packet whole, with its queue and hook, and delivers it once accepted', async () => {
      socket.bind(1, ALL)
      await kernel.sendDatagram(PORT_ONE, 'hello')
      const { packet, payload } = next()
      expect(payload).toBe('hello')
      expect({ ...packet, id: 0, inInterface: 0, payloadOffset: 0 }).toEqual({
        queue: 1,
        id: 0,
        hook: NF_INET_LOCAL_IN,
        mark: 0,
        hardwareProtocol: 0x0800,
        payloadOffset: 0,
        payloadBytes: HEADER_BYTES + 5,
        capturedFully: true,
        originalBytes: HEADER_BYTES + 5,
        inInterface: 0,
        outInterface: 0,
      })
      expect(packet.inInterface).toBeGreaterThan(0)
      answer(packet.id, NF_ACCEPT)
      expect(await kernel.takeDelivered(PORT_ONE, 1)).toEqual(['hello'])
    })

    it('never delivers a dropped packet', async () => {
      socket.bind(1, ALL)
      await kernel.sendDatagram(PORT_ONE, 'one')
      await kernel.sendDatagram(PORT_ONE, 'two')
      answer(next().packet.id, NF_DROP)
      answer(next().packet.id, NF_ACCEPT)
      expect(await kernel.takeDelivered(PORT_ONE, 2)).toEqual(['two'])
    })

    it('delivers the bytes of the verdict in place of the packet, shorter or longer', async () => {
      socket.bind(1, ALL)
      for (const payload of ['cut', 'made longer than it was']) {
        await kernel.sendDatagram(PORT_ONE, 'original')
        const { packet, bytes } = next()
        const changed = new Uint8Array(HEADER_BYTES + payload.length)
        changed.set(bytes.subarray(0, HEADER_BYTES))
        changed.set(Buffer.from(payload), HEADER_BYTES)
        const view = new DataView(changed.buffer)
        // Total length and the header checksum's difference (RFC 1624), UDP length, and no UDP checksum.
        const before = view.getUint16(2)
        view.setUint16(2, changed.length)
        let sum = (~view.getUint16(10) & 0xffff) + (~before & 0xffff) + changed.length
        while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
        view.setUint16(10, ~sum & 0xffff)
        view.setUint16(24, changed.length - 20)
        view.setUint16(26, 0)
        answer(packet.id, NF_ACCEPT, undefined, changed)
        expect(await kernel.takeDelivered(PORT_ONE, 1)).toEqual([payload])
      }
    })

    it('takes several verdicts in one send, in any order of the packets', async () => {
      socket.bind(1, ALL)
      const payloads = ['a', 'b', 'c', 'd']
      for (const payload of payloads) await kernel.sendDatagram(PORT_ONE, payload)
      let bytes = 0
      for (const { packet } of payloads.map(() => next()).reverse()) {
        bytes += encodeVerdict(out, bytes, 1, packet.id, NF_ACCEPT, 0x11)
      }
      expect(socket.send(out, bytes)).toBe(bytes)
      expect(await kernel.takeDelivered(PORT_ONE, 4)).toEqual(['d', 'c', 'b', 'a'])
    })

    it('says how long a packet was that it did not copy whole', async () => {
      socket.bind(1, { ...ALL, copyRange: HEADER_BYTES })
      await kernel.sendDatagram(PORT_ONE, 'longer')
      const { packet } = next()
      expect([packet.capturedFully, packet.payloadBytes, packet.originalBytes]).toEqual([
        false,
        HEADER_BYTES,
        HEADER_BYTES + 6,
      ])
      answer(packet.id, NF_ACCEPT)
      expect(await kernel.takeDelivered(PORT_ONE, 1)).toEqual(['longer'])
    })

    it('serves two queues, and keeps the packets that come while a queue is being bound', async () => {
      socket.bind(1, ALL)
      await kernel.sendDatagram(PORT_ONE, 'first')
      socket.bind(2, ALL)
      await kernel.sendDatagram(PORT_TWO, 'second')
      const one = next()
      const two = next()
      expect([one.packet.queue, one.payload, two.packet.queue, two.payload]).toEqual([1, 'first', 2, 'second'])
      answer(two.packet.id, NF_ACCEPT, undefined, undefined, 2)
      answer(one.packet.id, NF_ACCEPT)
      expect(await kernel.takeDelivered(PORT_TWO, 1)).toEqual(['second'])
      expect(await kernel.takeDelivered(PORT_ONE, 1)).toEqual(['first'])
    })

    it('drops what waits for a verdict when the queue is unbound', async () => {
      socket.bind(1, ALL)
      await kernel.sendDatagram(PORT_ONE, 'waits')
      expect(next().payload).toBe('waits')
      socket.unbind(1)
      expect(await kernel.takeDelivered(PORT_ONE, 1)).toEqual([])
    })

    it('gives all packets that wait in one call, as many as there is room for', async () => {
      socket.bind(1, ALL)
      const sent = ['a', 'b', 'c', 'd', 'e']
      for (const payload of sent) await kernel.sendDatagram(PORT_ONE, payload)
      const batch = createDatagramBatch(3, 4_096)
      const packet = createQueuedPacket()
      const got: string[] = []
      for (const count of [3, 2]) {
        expect(socket.receive(batch)).toBe(count)
        for (let i = 0; i < count; i++) {
          const start = i * batch.slotBytes
          expect(decodeQueued(batch.buffer, start, start + datagramBytes(batch, i), packet)).toBe('ok')
          const end = packet.payloadOffset + packet.payloadBytes
          got.push(batch.buffer.toString('latin1', packet.payloadOffset + HEADER_BYTES, end))
        }
      }
      expect(got).toEqual(sent)
      expect(socket.counters.received).toBe(5)
    })

    it('drops what is queued beyond the maximum length', async () => {
      socket.bind(1, { ...ALL, maximumLength: 2 })
      for (const payload of ['a', 'b', 'c']) await kernel.sendDatagram(PORT_ONE, payload)
      for (const { packet } of [next(), next()]) answer(packet.id, NF_ACCEPT)
      expect(receiveOne(socket, buffer)).toBe(-11)
      expect(await kernel.takeDelivered(PORT_ONE, 3)).toEqual(['a', 'b'])
    })

    it('answers a verdict for an unknown packet with an error, and takes the others of the same send', async () => {
      socket.bind(1, ALL)
      await kernel.sendDatagram(PORT_ONE, 'known')
      const { packet } = next()
      const wrong = encodeVerdict(out, 0, 1, packet.id + 1, NF_ACCEPT, undefined)
      const bytes = wrong + encodeVerdict(out, wrong, 1, packet.id, NF_ACCEPT, undefined)
      socket.send(out, bytes)
      const received = receiveOne(socket, buffer)
      expect(acknowledgedErrno(buffer, 0, received)).toBe(-2)
      expect(decodeQueued(buffer, 0, received, createQueuedPacket())).toBe('not-packet')
      expect(nextMessage(buffer, 0, received)).toBe(received)
      expect(await kernel.takeDelivered(PORT_ONE, 1)).toEqual(['known'])
    })

    it('refuses a queue that is bound, one of another socket, and one that is not bound, naming the errno', () => {
      socket.bind(1, ALL)
      const other = open()
      const code = 'netlink-request'
      expect(refusalOf(() => socket.bind(1, ALL))).toEqual({ code, errno: 'EBUSY' })
      expect(refusalOf(() => other.bind(1, ALL))).toEqual({ code, errno: 'EPERM' })
      expect(refusalOf(() => other.unbind(2))).toEqual({ code, errno: 'ENODEV' })
      expect(refusalOf(() => other.bind(2, { ...ALL, flags: 1 << 9 }))).toEqual({ code, errno: 'EOPNOTSUPP' })
      socket.bind(2, ALL)
    })

    it('lets a queue be bound again once its socket is closed', () => {
      socket.bind(1, ALL)
      socket.close()
      open().bind(1, ALL)
    })

    it('is woken by a message behind the packets that already wait, bound or not', async () => {
      expect(socket.wake()).toBe(0)
      expect(isWakeup(buffer, receiveOne(socket, buffer))).toBe(true)
      socket.bind(1, ALL)
      await kernel.sendDatagram(PORT_ONE, 'before')
      expect(socket.wake()).toBe(0)
      expect(next().payload).toBe('before')
      const received = receiveOne(socket, buffer)
      expect(isWakeup(buffer, received)).toBe(true)
      expect(acknowledgedErrno(buffer, 0, received)).toBe(0)
    })

    it('returns -EAGAIN where nothing comes, -EBADF after close, and counts what it gave out', async () => {
      socket.bind(1, ALL)
      expect(receiveOne(socket, buffer)).toBe(-11)
      expect(receiveOne(socket, buffer)).toBe(-11)
      await kernel.sendDatagram(PORT_ONE, 'counted')
      answer(next().packet.id, NF_DROP)
      expect(socket.counters.received).toBe(1)
      expect(socket.drops()).toBe(0)
      socket.close()
      socket.close()
      expect(receiveOne(socket, buffer)).toBe(-9)
      expect(socket.send(out, 20)).toBe(-9)
    })
  })

  describe(`${name}: connection tracking`, () => {
    let kernel: KernelUnderTest
    let socket: QueueSocket
    let conntrack: Conntrack
    const buffer = new Uint8Array(1 << 17)
    const out = new Uint8Array(1 << 16)

    const flowTo = (port: number, filter?: { mark: number; mask: number }): Flow[] => {
      const flows: Flow[] = []
      conntrack.dump(filter, (flow) => {
        if (flow.original.protocol === 17 && flow.original.destinationPort === port) flows.push(flow)
      })
      return flows
    }

    const tupleTo = (port: number): Flow['original'] => ({
      family: 4,
      protocol: 17,
      source: LOOPBACK,
      destination: LOOPBACK,
      sourcePort: kernel.sourcePort,
      destinationPort: port,
    })

    /** Sends a datagram and accepts it with a mark. */
    const connect = async (port: number, mark: number): Promise<void> => {
      await kernel.sendDatagram(port, 'x')
      const packet = createQueuedPacket()
      expect(decodeQueued(buffer, 0, receiveOne(socket, buffer), packet)).toBe('ok')
      socket.send(out, encodeVerdict(out, 0, packet.queue, packet.id, NF_ACCEPT, mark))
      expect(await kernel.takeDelivered(port, 1)).toEqual(['x'])
    }

    beforeEach(async () => {
      kernel = await openKernel()
      socket = openQueueSocket(OPTIONS, kernel.openTransport())
      socket.bind(1, ALL)
      socket.bind(2, ALL)
      conntrack = openConntrack(kernel.openTransport())
    })

    afterEach(async () => {
      socket.close()
      conntrack.close()
      await kernel.close()
    })

    it('lists a connection with both tuples and the mark that its verdict left', async () => {
      await connect(PORT_ONE, 0x80000007)
      const original = tupleTo(PORT_ONE)
      const reply = { ...original, sourcePort: PORT_ONE, destinationPort: kernel.sourcePort }
      const flows = flowTo(PORT_ONE)
      expect(flows).toEqual([{ original, reply, mark: 0x80000007, status: flows[0]?.status, tcpState: undefined }])
    })

    it('lists only the connections of a mark where a filter is given, comparing under its mask', async () => {
      await connect(PORT_ONE, 0x80000007)
      await connect(PORT_TWO, 0x80000008)
      const filter = (mark: number, mask: number) => [
        flowTo(PORT_ONE, { mark, mask }).length,
        flowTo(PORT_TWO, { mark, mask }).length,
        conntrack.count({ mark, mask }),
      ]
      expect(filter(0x80000007, 0x800fffff)).toEqual([1, 0, 1])
      expect(filter(0x80000008, 0xffffffff)).toEqual([0, 1, 1])
      expect(filter(0x80000000, 0x80000000)).toEqual([1, 1, 2])
      expect(filter(0x40000000, 0x40000000)).toEqual([0, 0, 0])
    })

    it('changes the bits of the mask in a mark and leaves the others', async () => {
      await connect(PORT_ONE, 0x80000007)
      expect(conntrack.updateMark(tupleTo(PORT_ONE), 0x40000000, 0xc0000000)).toBe(true)
      expect(flowTo(PORT_ONE).map((flow) => flow.mark)).toEqual([0x40000007])
      expect(conntrack.updateMark(tupleTo(PORT_ONE), 0xffffffff, 0x00000f00)).toBe(true)
      expect(flowTo(PORT_ONE).map((flow) => flow.mark)).toEqual([0x40000f07])
    })

    it('changes many in one go and tells how many were still there', async () => {
      await connect(PORT_ONE, 1)
      await connect(PORT_TWO, 2)
      const updates = Array.from({ length: 700 }, (_, i) => ({
        tuple: { ...tupleTo(i === 300 ? PORT_ONE : i === 699 ? PORT_TWO : 9), sourcePort: kernel.sourcePort },
        mark: 0x40000000,
        mask: 0xffffffff,
      }))
      expect(conntrack.updateMarks(updates)).toBe(2)
      expect(conntrack.count({ mark: 0x40000000, mask: 0xffffffff })).toBe(2)
      expect(conntrack.updateMarks([])).toBe(0)
    })

    it('says so where a connection is gone, and makes none', async () => {
      await connect(PORT_ONE, 1)
      expect(conntrack.remove(tupleTo(PORT_ONE))).toBe(true)
      expect(conntrack.remove(tupleTo(PORT_ONE))).toBe(false)
      expect(conntrack.updateMark(tupleTo(PORT_ONE), 1, 1)).toBe(false)
      expect(flowTo(PORT_ONE)).toEqual([])
    })

    it('can list again after the listener threw', async () => {
      await connect(PORT_ONE, 1)
      await connect(PORT_TWO, 1)
      const failing = () =>
        conntrack.dump(undefined, () => {
          throw new Error('from the listener')
        })
      expect(failing).toThrow('from the listener')
      expect(flowTo(PORT_ONE).length).toBe(1)
    })
  })
}
