import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { ApiConnection } from './connection.ts'
import { ApiError } from './errors.ts'

export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  readonly body?: unknown
  /** `application/json` where nothing else is said. */
  readonly contentType?: string
  /** An answer beyond this is given up, with ApiError `api-too-large`, before it takes more memory. */
  readonly maxAnswerBytes?: number
  readonly signal?: AbortSignal
}

/** Requests to the API server as JSON. client-node's typed ones turn every object into classes, at some memory. */
export interface ApiClient {
  /** The parsed answer. Rejects with ApiError. */
  send<Answer>(request: ApiRequest): Promise<Answer>
  /**
   * The open answer of a watch, line by line, parsed; `onOpen` is called once it is open, which may be long before the
   * first line. Its iteration ends where the API server ends it, or says nothing for longer than WATCH_SILENCE_MS; it
   * throws ApiError where the connection is lost.
   */
  watch(request: Omit<ApiRequest, 'method' | 'body'>, onOpen: () => void): AsyncGenerator<unknown, void, void>
}

/** From the start to the end of an answer; the API server gives up on most requests after 60 s, we long before. */
const REQUEST_TIMEOUT_MS = 15_000
/**
 * The API server sends a bookmark about every minute, but none of a kind of which nothing ever changed. A new watch
 * then shows that it still answers; that its host is gone the kernel's own probes say before (connection.ts).
 */
export const WATCH_SILENCE_MS = 90_000
/** Where a request does not say: whole lists of a large cluster, as `synguard check` asks for. */
const MAX_ANSWER_BYTES = 256 * 1_048_576
/** etcd's bound of an object is 1.5 MiB; JSON is longer than what etcd stores. */
const MAX_LINE_CHARACTERS = 16 * 1_048_576
/** A Retry-After beyond this is cut: one bad answer must not silence anybody for longer. */
const MAX_RETRY_AFTER_MS = 60_000

export interface ApiClientOptions {
  /** Who asks, for the API server's log and metrics. */
  readonly userAgent: string
  /** WATCH_SILENCE_MS without it. */
  readonly watchSilenceMs?: number
}

export function createApiClient(connection: ApiConnection, options: ApiClientOptions): ApiClient {
  const { userAgent, watchSilenceMs = WATCH_SILENCE_MS } = options

  async function open(sent: ApiRequest, silenceMs: number, onSilence = () => {}): Promise<IncomingMessage> {
    const { agent, headers } = await connection.credentials()
    const url = new URL(connection.server)
    // Behind a proxy an API server may have a path of its own.
    url.pathname = url.pathname.replace(/\/$/, '') + sent.path
    url.search = new URLSearchParams(sent.query).toString()
    const body = sent.body === undefined ? undefined : Buffer.from(JSON.stringify(sent.body))
    const requestOptions = {
      agent,
      method: sent.method,
      timeout: silenceMs,
      headers: {
        ...headers,
        accept: 'application/json',
        'user-agent': userAgent,
        ...(body && { 'content-type': sent.contentType ?? 'application/json', 'content-length': body.length }),
      },
      ...(sent.signal && { signal: sent.signal }),
    }
    return new Promise((resolve, reject) => {
      const outgoing = httpsRequest(url, requestOptions, resolve)
      outgoing.on('timeout', () => {
        onSilence()
        outgoing.destroy(new ApiError('api-unreachable', 'The API server is silent.'))
      })
      outgoing.on('error', (error) => reject(unreachable(error)))
      outgoing.end(body)
    })
  }

  return {
    async send<Answer>(request: ApiRequest): Promise<Answer> {
      const limit = AbortSignal.timeout(REQUEST_TIMEOUT_MS)
      const signal = request.signal === undefined ? limit : AbortSignal.any([limit, request.signal])
      const response = await open({ ...request, signal }, REQUEST_TIMEOUT_MS)
      const text = await readText(response, request.maxAnswerBytes)
      if (!isSuccess(response)) throw refusal(request, response, text)
      try {
        return JSON.parse(text) as Answer
      } catch {
        throw new ApiError('api-answer', `The answer to ${request.method} ${request.path} is no JSON.`)
      }
    },
    async *watch(request, onOpen) {
      let isSilent = false
      const response = await open({ ...request, method: 'GET' }, watchSilenceMs, () => {
        isSilent = true
      })
      if (!isSuccess(response)) throw refusal({ ...request, method: 'GET' }, response, await readText(response))
      onOpen()
      try {
        for await (const line of readLines(response)) yield line
      } catch (error) {
        if (!isSilent) throw unreachable(error)
      } finally {
        response.destroy()
      }
    },
  }
}

function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode < 300
}

async function readText(response: IncomingMessage, maxBytes = MAX_ANSWER_BYTES): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of response) {
      bytes += chunk.length
      if (bytes > maxBytes) throw new ApiError('api-too-large', `The answer is larger than ${maxBytes} bytes.`)
      chunks.push(chunk)
    }
  } catch (error) {
    throw unreachable(error)
  } finally {
    response.destroy()
  }
  return Buffer.concat(chunks).toString('utf8')
}

async function* readLines(response: IncomingMessage): AsyncGenerator<unknown, void, void> {
  let rest = ''
  response.setEncoding('utf8')
  for await (const text of response as AsyncIterable<string>) {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > MAX_LINE_CHARACTERS) throw new ApiError('api-answer', 'A line of the watch has no end.')
    for (const line of lines) yield parseLine(line)
  }
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    // What is skipped would be missing for good: the watch starts again.
    throw new ApiError('api-answer', 'A line of the watch is no JSON.')
  }
}

/** Failures of the connection, as one kind; their messages name no secrets, but their code is what helps. */
function unreachable(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  const { code, name, message } = error as NodeJS.ErrnoException
  const timedOut = name === 'TimeoutError' || (error as Error).cause instanceof DOMException
  const reason = timedOut ? 'no answer in time' : (code ?? message)
  return new ApiError('api-unreachable', `The API server cannot be reached (${reason}).`, {}, { cause: error })
}

interface Status {
  readonly reason?: string
  readonly message?: string
  readonly details?: { readonly retryAfterSeconds?: number }
}

function refusal(request: ApiRequest, response: IncomingMessage, text: string): ApiError {
  const { statusCode = 0, headers } = response
  const status = parseStatus(text)
  const retryAfterSeconds = status.details?.retryAfterSeconds ?? Number(headers['retry-after'] ?? Number.NaN)
  return new ApiError(
    'api-refused',
    `${request.method} ${request.path}: ${statusCode} ${status.reason ?? ''} ${status.message ?? ''}`.trimEnd(),
    {
      status: statusCode,
      ...(status.reason !== undefined && { reason: status.reason }),
      ...(retryAfterSeconds > 0 && { retryAfterMs: Math.min(retryAfterSeconds * 1_000, MAX_RETRY_AFTER_MS) }),
    },
  )
}

function parseStatus(text: string): Status {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Status) : {}
  } catch {
    // Proxies and the API server's filters answer in plain text.
    return { message: text.slice(0, 200).trim() }
  }
}
