/** Requests on a netlink socket that carries nothing else: one at a time, blocking, each answered. */

import { NetlinkError } from './errors.ts'
import * as libc from './libc.ts'
import {
  acknowledgedErrno,
  encodeMessage,
  type Message,
  messageBytes,
  messageFlags,
  messageSequence,
  messageType,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  nextMessage,
} from './message.ts'
import { openNetlinkTransport, type Transport } from './transport.ts'

/** What a request consists of; sequence number and port are the requester's. */
export type Request = Pick<Message, 'type' | 'flags' | 'body' | 'attributes'>
/** Called with the place of each message of an answer; the buffer is valid only during the call. */
export type OnMessage = (buffer: Uint8Array, at: number, end: number) => void

/** Work in steps; the last one has its result. */
export type Steps<Result> = Generator<undefined, Result, undefined>

export interface Requester {
  /**
   * Sends a request and gives its answers to `onMessage` until the acknowledgement or the end of the dump.
   * Returns 0 or the kernel's -errno; `interrupted` where a dump was inconsistent (NLM_F_DUMP_INTR).
   * Throws NetlinkError `netlink-no-answer`, `netlink-request` where the socket itself fails.
   */
  request(request: Request, onMessage?: OnMessage): number | 'interrupted'
  /**
   * As `request`, a step for each datagram of the answer: whoever has other things to do does them in between, but no
   * other request on this socket, and takes all steps.
   */
  requestInSteps(request: Request, onMessage: OnMessage): Steps<number | 'interrupted'>
  /** As `request`, for a single answer without acknowledgement: ends with the first message. */
  lookUp(request: Request, onMessage: OnMessage): number
  /** Sends many requests in few sends and returns each one's 0 or -errno, in order. Each must ask for NLM_F_ACK. */
  requestAll(requests: readonly Request[]): number[]
  close(): void
}

const RECEIVE_TIMEOUT_MILLISECONDS = 2_000
const RECEIVE_BUFFER_BYTES = 4 << 20
/** NLMSG_GOODSIZE of a dump is at most 32 KiB; a larger message would be an error answer, which is capped. */
const BUFFER_BYTES = 1 << 16
/** Requests sent before their answers are read; their answers must fit into the receive buffer. */
const REQUESTS_IN_FLIGHT = 256
/** nfnetlink takes one message of any size, but a socket's send buffer of 212,992 bytes is the default limit. */
const SEND_BYTES = 32_768

/** A requester on a netlink protocol. A test gives its own `transport`. Throws NetlinkError `netlink-socket`. */
export function openRequester(
  protocol: number,
  transport: Transport = openNetlinkTransport(protocol, {
    receiveBufferBytes: RECEIVE_BUFFER_BYTES,
    receiveTimeoutMilliseconds: RECEIVE_TIMEOUT_MILLISECONDS,
  }),
): Requester {
  const buffer = new Uint8Array(BUFFER_BYTES)
  let lastSequence = 0

  const send = (bytes: Uint8Array): void => {
    for (;;) {
      const sent = transport.send(bytes, bytes.length)
      if (sent >= 0) return
      if (sent !== -libc.EINTR) throw new NetlinkError('netlink-request', 'a netlink request could not be sent', sent)
    }
  }

  const receive = (): number => {
    for (;;) {
      const bytes = transport.receive(buffer)
      if (bytes >= 0) return bytes
      if (bytes === -libc.EAGAIN) {
        throw new NetlinkError('netlink-no-answer', `no answer to a netlink request (message ${lastSequence})`, bytes)
      }
      if (bytes !== -libc.EINTR) throw new NetlinkError('netlink-request', 'a netlink socket failed', bytes)
    }
  }

  const encode = (request: Request): Uint8Array => {
    lastSequence = lastSequence >= 0x7fffffff ? 1 : lastSequence + 1
    return encodeMessage({ ...request, sequence: lastSequence, portId: 0 })
  }

  function* exchange(
    request: Request,
    onMessage: OnMessage | undefined,
    single: boolean,
  ): Steps<number | 'interrupted'> {
    send(encode(request))
    let interrupted = false
    let failure: { readonly cause: unknown } | undefined
    for (;;) {
      const end = receive()
      for (let at = 0; messageBytes(buffer, at, end) !== 0; at = nextMessage(buffer, at, end)) {
        if (messageSequence(buffer, at) !== lastSequence) continue
        if ((messageFlags(buffer, at) & NLM_F_DUMP_INTR) !== 0) interrupted = true
        const type = messageType(buffer, at)
        if (type === NLMSG_ERROR || type === NLMSG_DONE) {
          const errno = acknowledgedErrno(buffer, at, end) ?? 0
          if (failure !== undefined) throw failure.cause
          return errno === 0 && interrupted ? 'interrupted' : errno
        }
        try {
          if (failure === undefined) onMessage?.(buffer, at, at + messageBytes(buffer, at, end))
        } catch (cause) {
          // The rest has to be read first: while this dump runs, the kernel refuses the next one with EBUSY.
          failure = { cause }
          if (single) throw cause
        }
        if (single) return 0
      }
      yield
    }
  }

  const requestSome = (requests: readonly Request[]): number[] => {
    const encoded = requests.map(encode)
    const first = lastSequence - requests.length + 1
    for (let i = 0; i < encoded.length; ) {
      const begin = i
      let bytes = 0
      while (i < encoded.length && (i === begin || bytes + (encoded[i] as Uint8Array).length <= SEND_BYTES)) {
        bytes += (encoded[i++] as Uint8Array).length
      }
      const batch = new Uint8Array(bytes)
      let at = 0
      for (const one of encoded.slice(begin, i)) {
        batch.set(one, at)
        at += one.length
      }
      send(batch)
    }
    const results: number[] = new Array(requests.length).fill(0)
    for (let answered = 0; answered < requests.length; ) {
      const end = receive()
      for (let at = 0; messageBytes(buffer, at, end) !== 0; at = nextMessage(buffer, at, end)) {
        const errno = acknowledgedErrno(buffer, at, end)
        const index = messageSequence(buffer, at) - first
        if (errno === undefined || index < 0 || index >= requests.length) continue
        results[index] = errno
        answered++
      }
    }
    return results
  }

  return {
    request: (request, onMessage) => takeAll(exchange(request, onMessage, false)),
    requestInSteps: (request, onMessage) => exchange(request, onMessage, false),
    lookUp(request, onMessage) {
      const result = takeAll(exchange(request, onMessage, true))
      return result === 'interrupted' ? 0 : result
    },
    requestAll(requests) {
      const results: number[] = []
      for (let i = 0; i < requests.length; i += REQUESTS_IN_FLIGHT) {
        if (lastSequence > 0x7fff0000) lastSequence = 0
        results.push(...requestSome(requests.slice(i, i + REQUESTS_IN_FLIGHT)))
      }
      return results
    },
    close: () => transport.close(),
  }
}

/** How often a dump that was interrupted is begun anew. */
const DUMP_ATTEMPTS = 5

/**
 * Runs a dump in steps; where the table changed meanwhile `restart` is called and the dump begun anew.
 * Throws NetlinkError `netlink-dump-interrupted` after five attempts and `netlink-request` for the kernel's refusal.
 */
export function* dumpInSteps(
  requester: Requester,
  what: string,
  request: Request,
  onMessage: OnMessage,
  restart: () => void,
): Steps<void> {
  for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
    const result = yield* requester.requestInSteps(request, onMessage)
    if (result === 0) return
    if (result !== 'interrupted') throw new NetlinkError('netlink-request', `cannot list ${what}`, result)
    restart()
  }
  throw new NetlinkError('netlink-dump-interrupted', `${what} changed during each of ${DUMP_ATTEMPTS} listings`)
}

/** `dumpInSteps` at once. */
export function dumpAll(...dump: Parameters<typeof dumpInSteps>): void {
  takeAll(dumpInSteps(...dump))
}

/** Takes all steps at once. */
export function takeAll<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
  }
}
