/**
 * The NFQUEUE socket: binds queues, receives packets, sends verdicts. Blocking; the worker thread's loop lives on it.
 *
 * What is lost is counted where an unprivileged process can see it: `drops()` is what the socket's receive buffer had
 * no room for (the kernel drops such a packet). The kernel's own counters of a queue that is longer than
 * `maximumLength`, in /proc/net/netfilter/nfnetlink_queue, are not readable for the sidecar's user; a `maximumLength`
 * beyond what the buffer holds (about 1,000 bytes for each small packet) leaves the buffer as the only limit.
 */

import { type DatagramBatch, putDatagram } from './datagram-batch.ts'
import { NetlinkError } from './errors.ts'
import * as libc from './libc.ts'
import { acknowledgedErrno, messageBytes, messageSequence } from './message.ts'
import { encodeBind, encodeUnbind, encodeWakeup, type QueueOptions } from './queue.ts'
import { NETLINK_NETFILTER, openNetlinkTransport, type Transport, type TransportOptions } from './transport.ts'

/** What a queue socket has met; plain numbers that only grow. */
export interface QueueCounters {
  /** Datagrams given to the caller. */
  received: number
  /** Calls that a signal broke off, repeated. */
  interrupted: number
  /** ENOBUFS answers of recv: the kernel had no memory for a message of ours or had lost some. */
  noBuffers: number
  /** Sends that the kernel refused for want of memory, repeated. */
  sendRetries: number
}

export interface QueueSocket {
  readonly fd: number
  readonly portId: number
  readonly counters: Readonly<QueueCounters>
  /** Binds and sets up a queue; a queue that a socket holds already, this one too, is refused (EBUSY). Throws NetlinkError. */
  bind(queue: number, options: QueueOptions): void
  /** Gives a queue up; what waits in it is dropped. Throws NetlinkError. */
  unbind(queue: number): void
  /**
   * All datagrams that wait, as many as `batch` holds: how many, or -errno: -EAGAIN after the receive timeout, -EBADF
   * after close. EINTR and ENOBUFS are counted and the call repeated.
   */
  receive(batch: DatagramBatch): number
  /** Sends `buffer[0, bytes)`, one or more messages: bytes or -errno. */
  send(buffer: Uint8Array, bytes: number): number
  /** Makes a blocked `receive` return a message for which `isWakeup` holds; 0 or -errno. */
  wake(): number
  /** Packets and answers dropped by the kernel since the socket was opened because its receive buffer was full. */
  drops(): number
  close(): void
}

/**
 * What a buffer for `receive` should hold: the largest packet (65,535) and its attributes. A datagram that is larger
 * than the buffer is cut, and its packet, which then decodes as `truncated`, waits in the kernel for ever.
 */
export const QUEUE_BUFFER_BYTES = 1 << 17

/** How often an answer is awaited, each time for one receive timeout. */
const ANSWER_ATTEMPTS = 10
/** How many datagrams may come in before the awaited answer. */
const STASH_MAXIMUM = 65_536
/** How often a send is repeated for ENOBUFS, EAGAIN or EINTR before it fails. */
const SEND_ATTEMPTS = 8

const EMPTY = new Uint8Array(0)
const wakeup = encodeWakeup()

/**
 * Wakes the thread that waits in `receive` on this file descriptor, from any thread: 0 or -errno. The answer is lost
 * where the receive buffer is full, but then the other thread does not wait: it looks for work whenever it comes round.
 * Not after that thread closed the socket: the number may be another file's by then.
 */
export function wakeQueueSocket(fd: number): number {
  const sent = libc.send(fd, wakeup, wakeup.length, 0)
  return Math.min(sent, 0)
}

/** Counts what `receive`, a call of a transport, gave, and repeats it where it was broken off. */
function receiveCounted(counters: QueueCounters, receive: () => number): number {
  for (;;) {
    const result = receive()
    if (result === -libc.EINTR) counters.interrupted++
    else if (result === -libc.ENOBUFS) counters.noBuffers++
    else return result
  }
}

function sendCounted(transport: Transport, counters: QueueCounters, buffer: Uint8Array, bytes: number): number {
  for (let attempt = 1; ; attempt++) {
    const sent = transport.send(buffer, bytes)
    if (sent >= 0) return sent
    if (sent === -libc.EINTR) counters.interrupted++
    else if (sent !== -libc.ENOBUFS && sent !== -libc.EAGAIN) return sent
    if (attempt >= SEND_ATTEMPTS) return sent
    counters.sendRetries++
  }
}

const HINTS: Readonly<Record<string, string>> = {
  EPERM: 'it needs CAP_NET_ADMIN, and no other process may hold the queue',
  EBUSY: 'a socket holds the queue already',
  EINVAL: 'the kernel lacks nfnetlink_queue or one of the flags',
}

function refusal(what: string, errno: number): NetlinkError {
  const bare = new NetlinkError('netlink-request', what, errno)
  const hint = HINTS[bare.errno ?? '']
  return hint === undefined ? bare : new NetlinkError('netlink-request', `${what}: ${hint}`, errno)
}

/**
 * Opens a queue socket. A test gives its own `transport`.
 * Throws NetlinkError: `netlink-socket`; from `bind` and `unbind` `netlink-request` and `netlink-no-answer`.
 */
export function openQueueSocket(
  options: TransportOptions,
  transport: Transport = openNetlinkTransport(NETLINK_NETFILTER, options),
): QueueSocket {
  const counters: QueueCounters = { received: 0, interrupted: 0, noBuffers: 0, sendRetries: 0 }
  /** Datagrams that came while an answer was awaited: packets of queues already bound. `receive` gives them out first. */
  const stash: Uint8Array[] = []
  const configBuffer = new Uint8Array(QUEUE_BUFFER_BYTES)
  let sequence = 1
  let receiving: DatagramBatch
  // Made once: the packet path allocates nothing.
  const receiveAnswer = () => transport.receive(configBuffer)
  const receiveWaiting = () => transport.receiveBatch(receiving)

  const awaitAnswer = (wanted: number): number => {
    for (let attempts = 0; attempts < ANSWER_ATTEMPTS; ) {
      const bytes = receiveCounted(counters, receiveAnswer)
      if (bytes < 0) {
        if (bytes !== -libc.EAGAIN) return bytes
        attempts++
        continue
      }
      const answers = messageBytes(configBuffer, 0, bytes) !== 0 && messageSequence(configBuffer, 0) === wanted
      const errno = answers ? acknowledgedErrno(configBuffer, 0, bytes) : undefined
      if (errno !== undefined) return errno
      if (stash.length < STASH_MAXIMUM) stash.push(configBuffer.slice(0, bytes))
    }
    throw new NetlinkError('netlink-no-answer', 'the kernel did not answer a queue request in time')
  }

  const request = (what: string, message: Uint8Array, wanted: number): void => {
    const sent = sendCounted(transport, counters, message, message.length)
    if (sent < 0) throw refusal(what, sent)
    const errno = awaitAnswer(wanted)
    if (errno !== 0) throw refusal(what, errno)
  }

  const unbind = (queue: number): void => {
    const wanted = sequence++
    request(`cannot unbind NFQUEUE ${queue}`, encodeUnbind(queue, wanted), wanted)
  }

  return {
    fd: transport.fd,
    portId: transport.portId,
    counters,
    bind(queue, queueOptions) {
      const first = sequence
      sequence += 2
      const [bindRequest, setUpRequest] = encodeBind(queue, first, queueOptions)
      request(`cannot bind NFQUEUE ${queue}`, bindRequest, first)
      try {
        request(`cannot set up NFQUEUE ${queue}`, setUpRequest, first + 1)
      } catch (error) {
        unbind(queue)
        throw error
      }
    },
    unbind,
    receive(batch) {
      if (stash.length > 0) {
        putDatagram(batch, 0, stash.shift() ?? EMPTY)
        counters.received++
        return 1
      }
      receiving = batch
      const count = receiveCounted(counters, receiveWaiting)
      if (count > 0) counters.received += count
      return count
    },
    send: (buffer, bytes) => sendCounted(transport, counters, buffer, bytes),
    wake() {
      const sent = sendCounted(transport, counters, wakeup, wakeup.length)
      return Math.min(sent, 0)
    },
    drops: () => transport.drops(),
    close: () => transport.close(),
  }
}
