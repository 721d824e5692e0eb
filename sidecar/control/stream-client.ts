import type { IncomingMessage } from 'node:http'
import type { StreamMessage, StreamRequest } from '../../api/identity.ts'
import { type BackoffLimits, backoffMs } from './backoff.ts'
import { ControlError, IssuerRefusal } from './errors.ts'
import type { IssuerHttp } from './issuer-http.ts'
import { parseStreamMessage } from './issuer-messages.ts'
import { createLineSplitter } from './line-splitter.ts'
import type { LogSink } from './log.ts'

export interface StreamClientOptions {
  readonly http: IssuerHttp
  /** The headers that authenticate a request for the path; rejects where there is no identity yet. */
  readonly authenticate: (path: string) => Promise<Record<string, string>>
  /** What the sidecar holds, asked at each connection. */
  readonly holding: () => StreamRequest
  /** Messages in their order, `hello` first; `sent` is what this connection asked for. Pings are not passed on. */
  readonly onMessage: (message: Exclude<StreamMessage, { type: 'ping' }>, sent: StreamRequest) => void
  /** Hears of the first message of a connection, and of its end. */
  readonly onState: (connected: boolean) => void
  /** Hears the issuer's own code where it refuses a connection. */
  readonly onRefused?: (issuerCode: string) => void
  /** Hears of every line: its type, or `unknown`. For the metric. */
  readonly onLine?: (type: string) => void
  readonly log: LogSink
  readonly random: () => number
  readonly retry?: BackoffLimits
  readonly pingIntervalMs?: number
  readonly connectTimeoutMs?: number
  /** After an end in good order the next connection comes within this time. */
  readonly resumeSpreadMs?: number
}

export interface StreamClient {
  /** Connects at once, unless it is connected or about it; with a new identity there is nothing to wait for. */
  start(): void
  connected(): boolean
  /** Ends the connection and makes a new one at once: what `holding` gives has changed. */
  reconnect(): void
  stop(): void
}

export const STREAM_PATH = '/v1/stream'
const RETRY: BackoffLimits = { initialMs: 500, maxMs: 30_000 }
/** The issuer sends a ping this often. */
const PING_INTERVAL_MS = 10_000
const MISSED_PINGS = 3
const CONNECT_TIMEOUT_MS = 10_000
const RESUME_SPREAD_MS = 1000
/** Far above the largest message: a hello with the void list. */
const MAX_LINE_BYTES = 1024 * 1024

/** Keeps one stream from the issuer open: resumes it, backs off, and ends it where it falls silent or talks nonsense. */
export function createStreamClient(options: StreamClientOptions): StreamClient {
  const { log, random } = options
  const retry = options.retry ?? RETRY
  const silenceMs = (options.pingIntervalMs ?? PING_INTERVAL_MS) * MISSED_PINGS
  let stopped = false
  let connected = false
  let failures = 0
  let timer: NodeJS.Timeout | undefined
  let current: AbortController | undefined
  let again = false

  function setConnected(value: boolean): void {
    if (connected === value) return
    connected = value
    options.onState(value)
  }

  async function run(): Promise<void> {
    timer = undefined
    const aborter = new AbortController()
    current = aborter
    let failure: unknown
    try {
      const sent = options.holding()
      const headers = await options.authenticate(STREAM_PATH)
      const response = await options.http.open({
        method: 'POST',
        path: STREAM_PATH,
        headers,
        body: sent,
        timeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
        signal: aborter.signal,
      })
      await read(response, sent)
    } catch (error) {
      failure = error
    }
    current = undefined
    setConnected(false)
    if (!stopped) next(failure)
  }

  function next(failure: unknown): void {
    if (again) {
      again = false
      timer = setTimeout(() => void run(), 0)
      return
    }
    if (failure === undefined) {
      timer = setTimeout(() => void run(), random() * (options.resumeSpreadMs ?? RESUME_SPREAD_MS))
      return
    }
    if (failure instanceof IssuerRefusal) options.onRefused?.(failure.issuerCode)
    const asked = failure instanceof IssuerRefusal ? (failure.retryAfterMs ?? 0) : 0
    const retryInMs = Math.round(Math.max(backoffMs(failures, retry, random), asked))
    failures += 1
    timer = setTimeout(() => void run(), retryInMs)
    const code = failure instanceof ControlError ? failure.code : 'internal'
    const message = failure instanceof Error ? failure.message : String(failure)
    log.warn({ code, error: message, attempt: failures, retryInMs }, 'the issuer stream is broken')
  }

  /** Resolves where the issuer ends the stream in good order, else rejects. */
  function read(response: IncomingMessage, sent: StreamRequest): Promise<void> {
    return new Promise((resolve, reject) => {
      function fail(error: Error): void {
        clearTimeout(watchdog)
        reject(error)
        response.destroy()
      }
      const watchdog = setTimeout(() => {
        fail(new ControlError('stream-silent', `the issuer sent nothing for ${silenceMs} ms`))
      }, silenceMs)
      const splitter = createLineSplitter(MAX_LINE_BYTES, (line) => accept(parseStreamMessage(line), sent))
      response.on('data', (chunk: Buffer) => {
        watchdog.refresh()
        try {
          if (splitter.push(chunk)) return
          fail(new ControlError('stream-message', `a line is longer than ${MAX_LINE_BYTES} bytes`))
        } catch (error) {
          const why = error instanceof Error ? error.message : String(error)
          fail(
            error instanceof ControlError ? new ControlError('stream-message', why) : new Error(why, { cause: error }),
          )
        }
      })
      response.on('end', () => {
        clearTimeout(watchdog)
        if (connected) resolve()
        else reject(new ControlError('issuer-unreachable', 'the stream ended before its first message'))
      })
      response.on('error', (error) =>
        fail(new ControlError('issuer-unreachable', `the stream broke: ${error.message}`)),
      )
    })
  }

  function accept(message: StreamMessage | undefined, sent: StreamRequest): void {
    options.onLine?.(message?.type ?? 'unknown')
    // A newer issuer's message, or one read from a chunk after stop().
    if (message === undefined || stopped) return
    if (!connected && message.type !== 'hello') {
      throw new ControlError('issuer-answer', `the first message is ${message.type} and not hello`)
    }
    failures = 0
    setConnected(true)
    if (message.type !== 'ping') options.onMessage(message, sent)
  }

  return {
    start() {
      if (current !== undefined || stopped) return
      clearTimeout(timer)
      timer = setTimeout(() => void run(), 0)
    },
    connected: () => connected,
    reconnect() {
      // Without a connection the next attempt asks for what is held then; its backoff stays.
      if (!connected) return
      again = true
      current?.abort()
    },
    stop() {
      stopped = true
      clearTimeout(timer)
      current?.abort()
    },
  }
}
