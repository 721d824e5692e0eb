import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { StreamMessage, StreamRequest } from '../../../api/identity.ts'
import { createSigningKey, trustBundle } from '../../../certs/authority.ts'
import { ControlError } from '../../../sidecar/control/errors.ts'
import {
  createStreamClient,
  type StreamClient,
  type StreamClientOptions,
} from '../../../sidecar/control/stream-client.ts'
import { createKeptLog, type FakeIssuer, json, startFakeIssuer, until } from './fake-issuer.ts'

const bundle = trustBundle([createSigningKey()])
const hello: StreamMessage = { type: 'hello', bundle, voids: [], mode: 'enforce' }

let issuer: FakeIssuer
let client: StreamClient | undefined
beforeEach(async () => {
  issuer = await startFakeIssuer()
})
afterEach(async () => {
  client?.stop()
  await issuer.close()
})

interface Seen {
  readonly messages: { readonly message: StreamMessage; readonly sent: StreamRequest }[]
  readonly states: boolean[]
  readonly lines: Record<string, unknown>[]
  readonly types: string[]
  readonly client: StreamClient
}

function start(options: Partial<StreamClientOptions> = {}): Seen {
  const { log, lines } = createKeptLog()
  const messages: Seen['messages'] = []
  const states: boolean[] = []
  const types: string[] = []
  client = createStreamClient({
    http: issuer.http,
    authenticate: async (path) => ({ 'x-proof-for': path }),
    holding: () => ({ bundle: ['kid-1'], addresses: ['10.0.0.1'] }),
    onMessage: (message, sent) => void messages.push({ message, sent }),
    onState: (connected) => void states.push(connected),
    onLine: (type) => void types.push(type),
    log,
    random: () => 0.5,
    retry: { initialMs: 10, maxMs: 40 },
    resumeSpreadMs: 10,
    ...options,
  })
  client.start()
  return { messages, states, lines, types, client }
}

/** Keeps the responses of /v1/stream open; each begins with a hello. */
function serveStreams(): { readonly open: ServerResponse[]; readonly bodies: string[]; readonly headers: unknown[] } {
  const open: ServerResponse[] = []
  const bodies: string[] = []
  const headers: unknown[] = []
  issuer.handle((request, response, body) => {
    bodies.push(body)
    headers.push({ method: request.method, url: request.url, proof: request.headers['x-proof-for'] })
    response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    response.write(`${JSON.stringify(hello)}\n`)
    open.push(response)
  })
  return { open, bodies, headers }
}

const line = (message: StreamMessage) => `${JSON.stringify(message)}\n`

describe('the stream client', () => {
  it('says what it holds, and hands over the messages in order', async () => {
    const { open, bodies, headers } = serveStreams()
    const { messages, states, types, client } = start()
    await until(() => open.length === 1 && messages.length === 1)
    const renew = line({ type: 'renew' })
    open[0]?.write(line({ type: 'ping' }) + renew.slice(0, 5))
    open[0]?.write(`${renew.slice(5)}{"type":"newer"}\n${line({ type: 'mode', mode: 'audit' })}`)
    await until(() => messages.length === 3)
    const sent = { bundle: ['kid-1'], addresses: ['10.0.0.1'] }
    expect(bodies.map((body) => JSON.parse(body) as unknown)).toEqual([sent])
    expect(headers).toEqual([{ method: 'POST', url: '/v1/stream', proof: '/v1/stream' }])
    expect(messages).toEqual([
      { message: hello, sent },
      { message: { type: 'renew' }, sent },
      { message: { type: 'mode', mode: 'audit' }, sent },
    ])
    expect(types).toEqual(['hello', 'ping', 'renew', 'unknown', 'mode'])
    expect({ states, connected: client.connected() }).toEqual({ states: [true], connected: true })
  })

  it('resumes with what it holds then, after an end in good order', async () => {
    const { open, bodies } = serveStreams()
    const held = [['10.0.0.1'], ['10.0.0.1', '10.0.0.2']]
    const { states, lines } = start({ holding: () => ({ bundle: [], addresses: held[bodies.length] ?? [] }) })
    await until(() => states.length === 1)
    open[0]?.end()
    await until(() => states.length === 3)
    expect(states).toEqual([true, false, true])
    expect(bodies.map((body) => (JSON.parse(body) as StreamRequest).addresses)).toEqual(held)
    expect(lines).toEqual([])
  })

  it('connects anew with backoff where the connection breaks or is refused, and says why', async () => {
    const { open } = serveStreams()
    const { states, lines } = start()
    await until(() => states.length === 1)
    issuer.handle((_, response) => json(response, { error: { code: 'busy', message: 'later' } }, 503))
    open[0]?.destroy()
    await until(() => lines.length === 3)
    serveStreams()
    await until(() => states.length === 3)
    expect(states).toEqual([true, false, true])
    expect(lines.slice(0, 3).map(({ code, attempt, retryInMs }) => ({ code, attempt, retryInMs }))).toEqual([
      { code: 'issuer-unreachable', attempt: 1, retryInMs: 8 },
      { code: 'issuer-refused', attempt: 2, retryInMs: 15 },
      { code: 'issuer-refused', attempt: 3, retryInMs: 30 },
    ])
  })

  it('tells why the issuer refuses it, and does not wait once somebody starts it with a new identity', async () => {
    let asked = 0
    issuer.handle((_, response) => {
      if (++asked === 1) return json(response, { error: { code: 'wit-void', message: 'revoked' } }, 401)
      response.writeHead(200, { 'content-type': 'application/x-ndjson' })
      response.write(`${JSON.stringify(hello)}\n`)
    })
    const refused: string[] = []
    const { client, states } = start({
      retry: { initialMs: 600_000, maxMs: 600_000 },
      onRefused: (code) => void refused.push(code),
    })
    await until(() => refused.length === 1)
    expect([refused, states]).toEqual([['wit-void'], []])
    client.start()
    await until(() => states.length === 1)
    client.start()
    expect([asked, states, client.connected()]).toEqual([2, [true], true])
  })

  it('waits as long as Retry-After asks', async () => {
    issuer.handle((_, response) => json(response, {}, 429, { 'retry-after': '30' }))
    const { lines } = start()
    await until(() => lines.length === 1)
    expect(lines[0]?.retryInMs).toBe(30_000)
  })

  it('takes silence beyond three pings for a broken connection', async () => {
    const { open } = serveStreams()
    const { states, lines } = start({ pingIntervalMs: 200 })
    await until(() => states.length === 1)
    const ping = setInterval(() => open[0]?.write(line({ type: 'ping' })), 100)
    await new Promise((resolve) => setTimeout(resolve, 900))
    clearInterval(ping)
    expect(states).toEqual([true])
    await until(() => states.length === 3)
    expect(lines.map(({ code }) => code)).toEqual(['stream-silent'])
  })

  it.each([
    ['a known type of the wrong shape', '{"type":"void","void":{"uid":7}}\n'],
    ['no JSON', 'hello\n'],
    ['a line without end', 'x'.repeat(1024 * 1024 + 1)],
  ])('connects anew after %s', async (_, text) => {
    const { open } = serveStreams()
    const { messages, states, lines } = start()
    await until(() => states.length === 1)
    open[0]?.write(text)
    await until(() => states.length === 3)
    expect(lines.map(({ code }) => code)).toEqual(['stream-message'])
    expect(messages.map(({ message }) => message.type)).toEqual(['hello', 'hello'])
  })

  it('is connected only after a hello', async () => {
    let count = 0
    issuer.handle((_, response) => {
      count += 1
      response.writeHead(200)
      response.end(count === 1 ? '' : line({ type: 'renew' }))
    })
    const { messages, states, lines } = start()
    await until(() => lines.length >= 2)
    expect({ messages, states }).toEqual({ messages: [], states: [] })
    expect(lines.slice(0, 2).map(({ code }) => code)).toEqual(['issuer-unreachable', 'stream-message'])
  })

  it('tries again where there is no identity yet', async () => {
    const { open } = serveStreams()
    let identity = false
    const { lines } = start({
      authenticate: async () => {
        if (!identity) throw new ControlError('identity-missing', 'none yet')
        return {}
      },
    })
    await until(() => lines.length === 1)
    identity = true
    await until(() => open.length === 1)
    expect(lines[0]?.code).toBe('identity-missing')
  })

  it('connects anew at once where it is told to', async () => {
    const { open } = serveStreams()
    const { states, lines, client } = start({ retry: { initialMs: 60_000, maxMs: 60_000 } })
    await until(() => states.length === 1)
    client.reconnect()
    await until(() => open.length === 2 && states.length === 3)
    expect({ states, lines }).toEqual({ states: [true, false, true], lines: [] })
  })

  it('ends where it is stopped', async () => {
    const { open } = serveStreams()
    const { states, client } = start()
    await until(() => states.length === 1)
    client.stop()
    await until(() => states.length === 2 && open[0]?.destroyed === true)
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect({ states, streams: open.length }).toEqual({ states: [true, false], streams: 1 })
  })
})
