/**
 * The packet path's thread: a blocking read loop over the Pod's two queues. It decodes, asks the gate, answers; it
 * waits for nothing but packets. The control plane wakes it through the queue's own socket.
 */
import { randomBytes } from 'node:crypto'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { MARK_OWN, MARK_PROVED, MARK_RELEASED, MARK_REVOKED } from '../../api/marks.ts'
import { createMacState } from '../handshake/hmac.ts'
import { createDatagramBatch, datagramBytes } from '../netlink/datagram-batch.ts'
import { EAGAIN } from '../netlink/libc.ts'
import { acknowledgedErrno, messageBytes, nextMessage } from '../netlink/message.ts'
import {
  createQueuedPacket,
  decodeQueued,
  encodeVerdict,
  NF_ACCEPT,
  NF_DROP,
  NF_INET_LOCAL_IN,
  type QueuedPacket,
  verdictBytes,
} from '../netlink/queue.ts'
import { openQueueSocket } from '../netlink/queue-socket.ts'
import { openRawSocket } from '../netlink/raw-socket.ts'
import { createPacket, decodePacket, PROTOCOL_TCP } from '../packet/decode.ts'
import { createBoundedMap } from './bounded-map.ts'
import {
  HOLD_MILLISECONDS,
  MAXIMUM_DIRECTORY_ENTRIES,
  MAXIMUM_HELD_DATAGRAMS,
  MAXIMUM_HELD_PACKETS,
  PACKET_BATCH,
  QUEUE_COPY_BYTES,
  QUEUE_OTHER_PACKETS,
  QUEUE_TCP_PACKETS,
  RECEIVE_BUFFER_BYTES,
  RECEIVE_TIMEOUT_MILLISECONDS,
} from './bounds.ts'
import { type ConnectionEnds, endsKey, keyText, tupleKey } from './connection-key.ts'
import { applyMessage } from './control-messages.ts'
import { handleDatagram } from './datagrams.ts'
import { denies } from './denial.ts'
import { createGate, type Gate } from './gate.ts'
import { createHeldPackets, type HeldPacket } from './held.ts'
import { handleInbound } from './inbound.ts'
import type { FromWorker, ToWorker, WorkerData } from './messages.ts'
import { handleOutbound } from './outbound.ts'
import { createOutcome, drop, refuse } from './outcome.ts'
import { rehearse } from './rehearsal.ts'
import { openSockets } from './sockets.ts'

const COUNTERS_MILLISECONDS = 1_000

/** When a connection's handshake began, in seconds since 1970; 0 where it is not remembered. */
function openedAt({ recentSyns, halfOpen }: Gate, ends: ConnectionEnds): number {
  const key = endsKey(ends)
  return recentSyns.find(key)?.openedAt ?? halfOpen.findAnswered(key)?.openedAt ?? 0
}

/** Runs for ever. Throws NetlinkError where the queues cannot be bound. */
function run(data: WorkerData, port: NonNullable<typeof parentPort>): never {
  const tell = (message: FromWorker): void => port.postMessage(message)
  const queue = openQueueSocket({
    receiveBufferBytes: RECEIVE_BUFFER_BYTES,
    receiveTimeoutMilliseconds: RECEIVE_TIMEOUT_MILLISECONDS,
  })
  const raw = { 4: openRawSocket(4, MARK_OWN), 6: openRawSocket(6, MARK_OWN) }
  const gate = createGate({
    settings: data.settings,
    secret: createMacState(randomBytes(32)),
    directory: createBoundedMap(MAXIMUM_DIRECTORY_ENTRIES),
    sockets: openSockets(),
    report: (report) => tell({ type: 'refusal', report }),
  })
  const since = Date.now()
  const held = createHeldPackets(MAXIMUM_HELD_PACKETS, (evicted) => {
    drop(outcome, 'busy')
    answer(evicted.queue, evicted.id)
  })
  const outcome = createOutcome()
  const replyDestination = { 4: outcome.reply.subarray(16, 20), 6: outcome.reply.subarray(24, 40) }
  const packet = createPacket()
  const queued = createQueuedPacket()
  const batch = createDatagramBatch(PACKET_BATCH, QUEUE_COPY_BYTES + 4_096)
  const received = batch.buffer
  const verdicts = Buffer.alloc(PACKET_BATCH * 2_048 + verdictBytes(QUEUE_COPY_BYTES))
  let verdictsEnd = 0

  function flush(): void {
    if (verdictsEnd > 0 && queue.send(verdicts, verdictsEnd) < 0) gate.counters.add('verdict_failures_total')
    verdictsEnd = 0
  }

  /** Sends the reply, if any, and appends the verdict for the outcome. */
  function answer(queueNumber: number, id: number): void {
    gate.counters.verdict(outcome.action)
    if (outcome.replyBytes > 0) sendReply()
    let mark = 0
    let verdict = NF_ACCEPT
    if (outcome.action === 'release') mark = MARK_RELEASED | outcome.mark
    else if (outcome.action === 'refuse') mark = MARK_REVOKED
    else if (outcome.action === 'drop') verdict = NF_DROP
    if (outcome.refusal !== '' && verdict === NF_DROP) gate.counters.dropped(outcome.refusal)
    const replaced = outcome.packetBytes > 0 && verdict === NF_ACCEPT
    if (verdictsEnd + verdictBytes(outcome.packetBytes) > verdicts.length) flush()
    verdictsEnd += encodeVerdict(
      verdicts,
      verdictsEnd,
      queueNumber,
      id,
      verdict,
      mark >>> 0,
      replaced ? outcome.packet : undefined,
      outcome.packetBytes,
    )
  }

  function sendReply(): void {
    const family = (outcome.reply.readUInt8(0) >>> 4) as 4 | 6
    const sent = raw[family].send(outcome.reply, outcome.replyBytes, replyDestination[family])
    if (sent >= 0) return
    gate.counters.add('raw_send_failures_total')
    // What did not go out stands for no ACK of the kernel's.
    outcome.mark &= ~MARK_PROVED
  }

  function judge(bytes: Buffer, queueNumber: number, id: number, hook: number, mark: number): void {
    const inbound = hook === NF_INET_LOCAL_IN
    if (decodePacket(bytes, packet) !== 'ok') {
      drop(outcome, 'malformed')
    } else if (packet.protocol === PROTOCOL_TCP && packet.fragment === 'none') {
      if (inbound) handleInbound(gate, mark, bytes, packet, outcome)
      else handleOutbound(gate, bytes, packet, outcome)
    } else {
      handleDatagram(gate, inbound, bytes, packet, outcome)
    }
    if (outcome.action === 'hold') holdPacket(bytes, queueNumber, id, hook, mark)
    else answer(queueNumber, id)
  }

  function judgeQueued(from: QueuedPacket): void {
    const bytes = received.subarray(from.payloadOffset, from.payloadOffset + from.payloadBytes)
    judge(bytes, from.queue, from.id, from.hook, from.mark)
  }

  function holdPacket(bytes: Buffer, queueNumber: number, id: number, hook: number, mark: number): void {
    const need = outcome.need
    if (!need) return
    const deadline = gate.nowMilliseconds + HOLD_MILLISECONDS
    const name = `${hook} ${packet.protocol} ${keyText(tupleKey(bytes, packet, hook === NF_INET_LOCAL_IN))}`
    const isTcp = packet.protocol === PROTOCOL_TCP
    const one = { queue: queueNumber, id, hook, mark, bytes: Buffer.from(bytes), need, deadline }
    const kept = held.add(name, one, isTcp ? 1 : MAXIMUM_HELD_DATAGRAMS)
    if (kept === 'repeated' || kept === 'full') {
      // The one TCP packet that waits stands for its repetitions.
      drop(outcome, kept === 'repeated' && isTcp ? '' : 'busy')
      return answer(queueNumber, id)
    }
    if (kept === 'held') return
    if (need.kind === 'verify') tell({ type: 'verify', key: need.key, section: need.section })
    else if (need.kind === 'resolve') tell({ type: 'resolve', address: need.address })
    else if (need.kind === 'row') tell({ type: 'row', key: need.key, index: need.index, port: need.port })
  }

  function judgeAgain(waiting: readonly HeldPacket[]): void {
    for (const one of waiting) judge(one.bytes, one.queue, one.id, one.hook, one.mark)
  }

  /** What waited too long: an application's own SYN is told so, everything else is dropped and will be repeated. */
  function expire(): void {
    for (const one of held.takeExpired(gate.nowMilliseconds)) {
      const outboundTcp =
        one.hook !== NF_INET_LOCAL_IN && decodePacket(one.bytes, packet) === 'ok' && packet.protocol === PROTOCOL_TCP
      if (outboundTcp && one.need.kind === 'ready') {
        denies(gate, one.bytes, packet, { direction: 'egress', refusal: 'not-ready' })
        refuse(outcome, 'not-ready')
      } else {
        drop(outcome, one.need.kind === 'ready' ? 'not-ready' : 'busy')
      }
      answer(one.queue, one.id)
    }
  }

  /** Takes what the control plane sent. */
  function takeMessages(): void {
    for (;;) {
      const next = receiveMessageOnPort(port) as { message: ToWorker } | undefined
      if (next === undefined) return
      const message = next.message
      if (message.type === 'denials') {
        tell({ type: 'denials', id: message.id, snapshot: gate.denials.snapshot(), since })
        continue
      }
      if (message.type === 'opened') {
        tell({ type: 'opened', id: message.id, at: message.connections.map((ends) => openedAt(gate, ends)) })
        continue
      }
      if (message.type === 'barrier') {
        flush()
        tell({ type: 'reached', cause: message.cause })
        continue
      }
      const answered = applyMessage(gate, message)
      if (answered !== undefined) judgeAgain(held.takeByNeed(answered))
      // "Cannot be asked" holds for what waited, not for the next packet.
      if (message.type === 'resolved' && message.entry === 'unknown') gate.directory.delete(message.address)
    }
  }

  let countersTold = 0
  let packetsSince = 0
  function tellCounters(): void {
    if (gate.nowMilliseconds - countersTold < COUNTERS_MILLISECONDS) return
    countersTold = gate.nowMilliseconds
    tell({
      type: 'counters',
      values: {
        ...gate.counters.values(),
        known_peers: gate.peers.size(),
        half_open_connections: gate.halfOpen.size(),
        held_packets: held.size(),
        queue_overflow_total: queue.counters.noBuffers + queue.drops(),
      },
    })
  }

  try {
    queue.bind(data.queueTcp, { copyRange: QUEUE_COPY_BYTES, maximumLength: QUEUE_TCP_PACKETS, flags: 0 })
    queue.bind(data.queueOther, { copyRange: QUEUE_COPY_BYTES, maximumLength: QUEUE_OTHER_PACKETS, flags: 0 })
  } catch (error) {
    for (const socket of [queue, raw[4], raw[6]]) socket.close()
    throw error
  }
  tell({ type: 'bound', queueFd: queue.fd, rawFds: [raw[4].fd, raw[6].fd] })
  // With the queues bound: what comes meanwhile waits there in place of being dropped.
  rehearse()

  /** Judges the packets of a datagram; true where it held something else: a wake-up, or an error. */
  function judgeDatagram(start: number, end: number): boolean {
    let control = false
    for (let at = start; at < end; ) {
      if (messageBytes(received, at, end) === 0) break
      if (decodeQueued(received, at, end, queued) === 'ok') {
        packetsSince++
        judgeQueued(queued)
      } else {
        control = true
        // The kernel answers a wake-up, and a verdict that failed: the packet was gone already.
        const errno = acknowledgedErrno(received, at, end)
        if (errno !== undefined && errno !== 0) gate.counters.add('verdict_failures_total')
      }
      at = nextMessage(received, at, end)
    }
    return control
  }

  for (;;) {
    const datagrams = queue.receive(batch)
    if (datagrams < 0 && datagrams !== -EAGAIN) throw new Error(`the queue socket failed with errno ${-datagrams}`)
    gate.nowMilliseconds = Date.now()
    let control = datagrams < 0
    for (let i = 0; i < datagrams; i++) {
      const start = i * batch.slotBytes
      if (judgeDatagram(start, start + datagramBytes(batch, i))) control = true
    }
    if (control || packetsSince > 1_000) {
      packetsSince = 0
      // Policies take a while to be taken in: what is decided goes out before.
      flush()
      takeMessages()
      expire()
      tellCounters()
    }
    flush()
  }
}

if (parentPort) run(workerData as WorkerData, parentPort)
