/**
 * A kernel in memory behind the Transport interface: NFQUEUE and connection tracking as far as Synguard uses them.
 * test/kernel/contract.ts holds it to the real kernel's behaviour. Nothing blocks: an empty socket answers -EAGAIN.
 */

import { readU16BE, readU32BE, u32BE, writeU16BE, writeU32 } from '../../sidecar/netlink/bytes.ts'
import { putDatagram } from '../../sidecar/netlink/datagram-batch.ts'
import {
  CTA_MARK,
  CTA_MARK_MASK,
  CTA_PROTOINFO,
  CTA_PROTOINFO_TCP,
  CTA_PROTOINFO_TCP_STATE,
  CTA_STATUS,
  CTA_TUPLE_ORIG,
  CTA_TUPLE_REPLY,
  encodeTuple,
  type Flow,
  IPCTNL_MSG_CT_DELETE,
  IPCTNL_MSG_CT_GET,
  IPCTNL_MSG_CT_NEW,
  NFNL_SUBSYS_CTNETLINK,
} from '../../sidecar/netlink/flow.ts'
import {
  type Attribute,
  decodeMessage,
  encodeMessage,
  type Message,
  messageBytes,
  NLM_F_ACK,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLMSG_DONE,
  NLMSG_ERROR,
  nextMessage,
} from '../../sidecar/netlink/message.ts'
import {
  NF_ACCEPT,
  NFNL_SUBSYS_QUEUE,
  NFQA_CAP_LEN,
  NFQA_CFG_CMD,
  NFQA_CFG_FLAGS,
  NFQA_CFG_PARAMS,
  NFQA_CFG_QUEUE_MAXLEN,
  NFQA_IFINDEX_INDEV,
  NFQA_IFINDEX_OUTDEV,
  NFQA_MARK,
  NFQA_PACKET_HDR,
  NFQA_PAYLOAD,
  NFQA_VERDICT_HDR,
  NFQNL_CFG_CMD_BIND,
  NFQNL_CFG_CMD_UNBIND,
  NFQNL_MSG_CONFIG,
  NFQNL_MSG_PACKET,
  NFQNL_MSG_VERDICT,
} from '../../sidecar/netlink/queue.ts'
import type { Transport } from '../../sidecar/netlink/transport.ts'

const [EPERM, ENOENT, EBADF, EAGAIN, EBUSY, ENODEV, EINVAL, EOPNOTSUPP] = [1, 2, 9, 11, 16, 19, 22, 95]
/** What the kernel keeps of NFQA_CFG_FLAGS (NFQA_CFG_F_MAX - 1). */
const KNOWN_FLAGS = 0x1f
/** One dump message carries this many flows, so that a dump of a few has several messages. */
const FLOWS_PER_DATAGRAM = 3

/** A packet on its way to a queue. */
export interface FakePacket {
  readonly queue: number
  /** NF_INET_LOCAL_IN or NF_INET_LOCAL_OUT. */
  readonly hook: number
  readonly bytes: Uint8Array
  readonly mark?: number
  readonly inInterface?: number
  readonly outInterface?: number
}

/** What became of a packet: `mark` and `bytes` as they are after the verdict. */
export interface FakeVerdict {
  readonly packet: FakePacket
  readonly id: number
  readonly verdict: number
  readonly mark: number
  readonly bytes: Uint8Array
}

export interface FakeKernel {
  /** A new NETLINK_NETFILTER socket. */
  openTransport(): Transport
  /** Puts a packet into its queue: its id, or undefined where it was dropped (nobody listens, or the queue is full). */
  enqueue(packet: FakePacket): number | undefined
  /** Verdicts since the last call, in order; packets dropped by unbinding or closing are not among them. */
  takeVerdicts(): FakeVerdict[]
  /** The connection tracking table; tests may change it. */
  readonly flows: Flow[]
  /** The next `dumps` listings are marked as inconsistent. */
  interruptDumps(dumps: number): void
}

interface FakeSocket {
  readonly portId: number
  readonly inbox: Uint8Array[]
  open: boolean
}

interface FakeQueue {
  readonly owner: FakeSocket
  copyRange: number
  maximumLength: number
  nextId: number
  readonly waiting: Map<number, FakePacket>
}

function bytesOf(message: Message, type: number): Uint8Array | undefined {
  const data = message.attributes.find((attribute) => attribute.type === type)?.data
  return data instanceof Uint8Array ? data : undefined
}

function nfgen(family: number, resource: number): Uint8Array {
  const body = new Uint8Array([family, 0, 0, 0])
  writeU16BE(body, 2, resource)
  return body
}

/** An error or acknowledgement with the request's header alone, as with NETLINK_CAP_ACK. */
function encodeAnswer(request: Message, errno: number, portId: number): Uint8Array {
  const body = new Uint8Array(20)
  writeU32(body, 0, errno)
  body.set(encodeMessage({ ...request, attributes: [] }).subarray(0, 16), 4)
  return encodeMessage({ type: NLMSG_ERROR, flags: 0x100, sequence: request.sequence, portId, body, attributes: [] })
}

function encodePacket(packet: FakePacket, id: number, queue: FakeQueue): Uint8Array {
  const header = new Uint8Array(7)
  header.set(u32BE(id))
  const ipv6 = (packet.bytes[0] ?? 0) >> 4 === 6
  writeU16BE(header, 4, ipv6 ? 0x86dd : 0x0800)
  header[6] = packet.hook
  const attributes: Attribute[] = [{ type: NFQA_PACKET_HDR, data: header }]
  if (packet.inInterface !== undefined) attributes.push({ type: NFQA_IFINDEX_INDEV, data: u32BE(packet.inInterface) })
  if (packet.outInterface !== undefined) {
    attributes.push({ type: NFQA_IFINDEX_OUTDEV, data: u32BE(packet.outInterface) })
  }
  if (packet.mark) attributes.push({ type: NFQA_MARK, data: u32BE(packet.mark) })
  if (packet.bytes.length > queue.copyRange) attributes.push({ type: NFQA_CAP_LEN, data: u32BE(packet.bytes.length) })
  attributes.push({ type: NFQA_PAYLOAD, data: packet.bytes.slice(0, queue.copyRange) })
  return encodeMessage({
    type: (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET,
    flags: 0,
    sequence: 0,
    portId: 0,
    body: nfgen(ipv6 ? 10 : 2, packet.queue),
    attributes,
  })
}

function encodeFlow(flow: Flow, sequence: number, flags: number): Uint8Array {
  const attributes: Attribute[] = [
    encodeTuple(CTA_TUPLE_ORIG, flow.original),
    encodeTuple(CTA_TUPLE_REPLY, flow.reply),
    { type: CTA_STATUS, data: u32BE(flow.status) },
    { type: CTA_MARK, data: u32BE(flow.mark) },
  ]
  if (flow.tcpState !== undefined) {
    const state = { type: CTA_PROTOINFO_TCP_STATE, data: new Uint8Array([flow.tcpState]) }
    attributes.push({ type: CTA_PROTOINFO, data: [{ type: CTA_PROTOINFO_TCP, data: [state] }] })
  }
  const type = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW
  const body = nfgen(flow.original.family === 4 ? 2 : 10, 0)
  return encodeMessage({ type, flags: NLM_F_MULTI | flags, sequence, portId: 0, body, attributes })
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** Makes a kernel without queues and without flows. */
export function createFakeKernel(): FakeKernel {
  const queues = new Map<number, FakeQueue>()
  const flows: Flow[] = []
  let verdicts: FakeVerdict[] = []
  let nextPortId = 1000
  let interrupted = 0

  const configure = (socket: FakeSocket, message: Message): number => {
    const number = readU16BE(message.body, 2)
    const command = bytesOf(message, NFQA_CFG_CMD)?.[0]
    const flags = bytesOf(message, NFQA_CFG_FLAGS)
    if (command === 3 || command === 4) return 0
    if (flags !== undefined && (readU32BE(flags, 0) & ~KNOWN_FLAGS) !== 0) return -EOPNOTSUPP
    const queue = queues.get(number)
    if (queue !== undefined && queue.owner !== socket) return -EPERM
    if (command === NFQNL_CFG_CMD_BIND) {
      if (queue !== undefined) return -EBUSY
      queues.set(number, { owner: socket, copyRange: 0xffff, maximumLength: 1024, nextId: 1, waiting: new Map() })
      return 0
    }
    if (queue === undefined) return -ENODEV
    if (command === NFQNL_CFG_CMD_UNBIND) queues.delete(number)
    const parameters = bytesOf(message, NFQA_CFG_PARAMS)
    const maximum = bytesOf(message, NFQA_CFG_QUEUE_MAXLEN)
    if (parameters !== undefined) queue.copyRange = Math.min(readU32BE(parameters, 0), 0xffff - 4)
    if (maximum !== undefined) queue.maximumLength = readU32BE(maximum, 0)
    return 0
  }

  const judge = (socket: FakeSocket, message: Message): number => {
    const queue = queues.get(readU16BE(message.body, 2))
    if (queue === undefined) return -ENODEV
    if (queue.owner !== socket) return -EPERM
    const header = bytesOf(message, NFQA_VERDICT_HDR)
    if (header === undefined || header.length < 8) return -EINVAL
    const id = readU32BE(header, 4)
    const packet = queue.waiting.get(id)
    if (packet === undefined) return -ENOENT
    queue.waiting.delete(id)
    const mark = bytesOf(message, NFQA_MARK)
    verdicts.push({
      packet,
      id,
      verdict: readU32BE(header, 0),
      mark: mark === undefined ? (packet.mark ?? 0) : readU32BE(mark, 0),
      bytes: bytesOf(message, NFQA_PAYLOAD) ?? packet.bytes,
    })
    return 0
  }

  const dump = (socket: FakeSocket, message: Message): void => {
    const mark = bytesOf(message, CTA_MARK)
    const mask = bytesOf(message, CTA_MARK_MASK)
    const wanted = mark === undefined ? 0 : readU32BE(mark, 0)
    const bits = mark === undefined ? 0 : mask === undefined ? 0xffffffff : readU32BE(mask, 0)
    const flags = interrupted > 0 ? NLM_F_DUMP_INTR : 0
    if (interrupted > 0) interrupted--
    const found = flows.filter((flow) => (flow.mark & bits) >>> 0 === wanted)
    for (let i = 0; i < found.length; i += FLOWS_PER_DATAGRAM) {
      const some = found.slice(i, i + FLOWS_PER_DATAGRAM)
      socket.inbox.push(joined(some.map((flow) => encodeFlow(flow, message.sequence, flags))))
    }
    const done = { ...message, type: NLMSG_DONE, flags: NLM_F_MULTI | flags, body: new Uint8Array(4), attributes: [] }
    socket.inbox.push(encodeMessage(done))
  }

  const indexOf = (message: Message): number => {
    const tuple = message.attributes.find(({ type }) => type === CTA_TUPLE_ORIG)
    const wanted = JSON.stringify(tuple)
    return flows.findIndex((flow) => JSON.stringify(encodeTuple(CTA_TUPLE_ORIG, flow.original)) === wanted)
  }

  const changeFlow = (message: Message): number => {
    const index = indexOf(message)
    const flow = flows[index]
    const mark = bytesOf(message, CTA_MARK)
    if (flow === undefined) return -ENOENT
    if (mark === undefined) return 0
    const mask = bytesOf(message, CTA_MARK_MASK)
    const bits = mask === undefined ? 0xffffffff : readU32BE(mask, 0)
    flows[index] = { ...flow, mark: ((flow.mark & ~bits) ^ readU32BE(mark, 0)) >>> 0 }
    return 0
  }

  const handle = (socket: FakeSocket, message: Message): void => {
    let errno = -EINVAL
    switch (message.type) {
      case (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_CONFIG:
        errno = configure(socket, message)
        break
      case (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT:
        errno = judge(socket, message)
        break
      case (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW:
        errno = changeFlow(message)
        break
      case (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE:
        // Index -1 becomes one beyond every array's end.
        errno = flows.splice(indexOf(message) >>> 0, 1).length === 1 ? 0 : -ENOENT
        break
      case (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET:
        dump(socket, message)
        return
    }
    if (errno !== 0 || (message.flags & NLM_F_ACK) !== 0) {
      socket.inbox.push(encodeAnswer(message, errno, socket.portId))
    }
  }

  return {
    flows,
    interruptDumps(dumps) {
      interrupted = dumps
    },
    takeVerdicts() {
      const taken = verdicts
      verdicts = []
      return taken
    },
    enqueue(packet) {
      const queue = queues.get(packet.queue)
      if (queue === undefined || queue.waiting.size >= queue.maximumLength) return undefined
      const id = queue.nextId++
      queue.waiting.set(id, packet)
      queue.owner.inbox.push(encodePacket(packet, id, queue))
      return id
    },
    openTransport() {
      const socket: FakeSocket = { portId: nextPortId++, inbox: [], open: true }
      return {
        fd: -1,
        portId: socket.portId,
        send(buffer, bytes) {
          if (!socket.open) return -EBADF
          for (let at = 0; messageBytes(buffer, at, bytes) !== 0; at = nextMessage(buffer, at, bytes)) {
            const message = decodeMessage(buffer, at, bytes, 4)
            if (message !== undefined) handle(socket, message)
          }
          return bytes
        },
        receive(buffer) {
          if (!socket.open) return -EBADF
          const datagram = socket.inbox.shift()
          if (datagram === undefined) return -EAGAIN
          const bytes = Math.min(datagram.length, buffer.length)
          buffer.set(datagram.subarray(0, bytes))
          return bytes
        },
        receiveBatch(batch) {
          if (!socket.open) return -EBADF
          const datagrams = socket.inbox.splice(0, batch.capacity)
          for (const [index, datagram] of datagrams.entries()) putDatagram(batch, index, datagram)
          return datagrams.length === 0 ? -EAGAIN : datagrams.length
        },
        drops: () => 0,
        close() {
          socket.open = false
          for (const [number, queue] of queues) if (queue.owner === socket) queues.delete(number)
        },
      }
    },
  }
}

/** Whether a verdict let its packet pass. */
export function isAccepted(verdict: FakeVerdict): boolean {
  return verdict.verdict === NF_ACCEPT
}
