import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import { parseRetryAfter } from './backoff.ts'
import { ControlError, IssuerRefusal } from './errors.ts'

export interface IssuerHttpOptions {
  readonly address: string
  readonly port: number
  /** The name that the certificate must carry; also the TLS server name. */
  readonly name: string
  /** PEM file of the CA, read again for each request: a rotation changes it in place. */
  readonly caPath: string
  readonly now: () => number
  /** Hears once of each request: its path without query, and the HTTP status or the code of the failure. */
  readonly onResult?: (endpoint: string, code: string) => void
}

export interface IssuerRequest {
  readonly method: 'GET' | 'POST'
  /** Path and query, exactly as sent. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
  /** From the start to the end of the answer, or to its headers for a stream. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}

/** HTTPS requests to the issuer; both reject with ControlError or, for a status other than 200, IssuerRefusal. */
export interface IssuerHttp {
  /** The parsed JSON body of the answer. */
  send(request: IssuerRequest): Promise<unknown>
  /** The open body of the answer. */
  open(request: IssuerRequest): Promise<IncomingMessage>
  close(): void
}

/** More than any answer: a Service with thousands of backends. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024
/** A Retry-After beyond this is cut: one bad answer must not silence a sidecar for longer. */
const MAX_RETRY_AFTER_MS = 300_000

/** The client of the issuer's address, trusting only the CA in caPath. */
export function createIssuerHttp(options: IssuerHttpOptions): IssuerHttp {
  let trusted: { readonly ca: string; readonly agent: Agent } | undefined

  async function currentAgent(): Promise<Agent> {
    const ca = await readFile(options.caPath, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw new ControlError(
        'credentials-unreadable',
        `${options.caPath} cannot be read (${error.code ?? error.message})`,
      )
    })
    if (ca.trim() === '') throw new ControlError('credentials-unreadable', `${options.caPath} is empty`)
    if (trusted?.ca !== ca) {
      // Connections in use go on; idle ones were trusted by the old CA and go.
      for (const socket of Object.values(trusted?.agent.freeSockets ?? {}).flat()) socket?.destroy()
      trusted = { ca, agent: new Agent({ ca, keepAlive: true, maxFreeSockets: 4 }) }
    }
    return trusted.agent
  }

  async function start(sent: IssuerRequest, deadline: AbortSignal): Promise<IncomingMessage> {
    const agent = await currentAgent()
    const body = sent.body === undefined ? undefined : Buffer.from(JSON.stringify(sent.body))
    const headers = {
      host: options.name,
      accept: 'application/json, application/x-ndjson',
      ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': body.length }),
      ...sent.headers,
    }
    const { address: host, port, name: servername } = options
    return new Promise((resolve, reject) => {
      const { method, path } = sent
      const outgoing = request({ agent, host, port, servername, method, path, headers, signal: deadline }, resolve)
      outgoing.on('error', reject)
      outgoing.end(body)
    })
  }

  async function answered(sent: IssuerRequest, deadline: AbortSignal): Promise<IncomingMessage> {
    const response = await start(sent, deadline)
    const status = response.statusCode ?? 0
    if (status === 200) return response
    throw await refusalOf(response, status)
  }

  async function refusalOf(response: IncomingMessage, status: number): Promise<IssuerRefusal> {
    const retryAfterMs = parseRetryAfter(response.headers['retry-after'], options.now(), MAX_RETRY_AFTER_MS)
    const { code, message } = parseRefusal(await readBody(response).catch(() => ''))
    return new IssuerRefusal(status, code, message, retryAfterMs)
  }

  /** Runs with the request's time limit; every failure becomes a ControlError that says what was asked. */
  async function limited<T>(sent: IssuerRequest, run: (deadline: AbortSignal) => Promise<T>): Promise<T> {
    const timeout = new AbortController()
    const timer = setTimeout(() => timeout.abort(), sent.timeoutMs)
    const signals = sent.signal === undefined ? [timeout.signal] : [timeout.signal, sent.signal]
    try {
      const result = await run(AbortSignal.any(signals))
      options.onResult?.(endpointOf(sent.path), '200')
      return result
    } catch (error) {
      if (error instanceof ControlError) {
        options.onResult?.(endpointOf(sent.path), error instanceof IssuerRefusal ? String(error.status) : error.code)
        throw error
      }
      const cause = error as NodeJS.ErrnoException
      const why = timeout.signal.aborted ? `no answer within ${sent.timeoutMs} ms` : (cause.code ?? cause.message)
      const code = timeout.signal.aborted ? 'timeout' : (cause.code ?? 'error')
      options.onResult?.(endpointOf(sent.path), code)
      const where = `${options.address} port ${options.port} as ${options.name}`
      throw new ControlError('issuer-unreachable', `${endpointOf(sent.path)} at ${where}: ${why}`, { cause })
    } finally {
      clearTimeout(timer)
    }
  }

  return {
    send: (sent) =>
      limited(sent, async (deadline) => {
        const text = await readBody(await answered(sent, deadline))
        try {
          return JSON.parse(text) as unknown
        } catch {
          throw new ControlError('issuer-answer', `${endpointOf(sent.path)} answered with a body that is no JSON`)
        }
      }),
    open: (sent) => limited(sent, (deadline) => answered(sent, deadline)),
    close() {
      trusted?.agent.destroy()
      trusted = undefined
    },
  }
}

function endpointOf(path: string): string {
  return path.split('?', 1)[0] ?? path
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length
    if (bytes > MAX_ANSWER_BYTES) {
      response.destroy()
      throw new ControlError('issuer-answer', `the issuer's answer is longer than ${MAX_ANSWER_BYTES} bytes`)
    }
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Code and message of an ErrorResponse (api/identity.ts), bounded, whatever the body is. */
function parseRefusal(text: string): { code: string; message: string } {
  try {
    const { error } = JSON.parse(text) as { error?: { code?: unknown; message?: unknown } }
    if (typeof error?.code === 'string' && typeof error.message === 'string') {
      return { code: error.code.slice(0, 64), message: error.message.slice(0, 512) }
    }
  } catch {
    // Not from the issuer (a proxy's page, for example): told below.
  }
  return { code: 'no-code', message: 'the body is not an error of the issuer' }
}
