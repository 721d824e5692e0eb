import { request } from 'node:http'
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from '@jest/globals'
import { type Condition, createHealthServer, type HealthServer } from '../../../sidecar/control/health.ts'
import { createMetrics } from '../../../sidecar/control/metrics.ts'

let server: HealthServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

async function start(live: readonly Condition[], ready: readonly Condition[], documents = {}): Promise<HealthServer> {
  server = await createHealthServer({
    port: 0,
    live: () => live,
    conditions: () => ready,
    registry: createMetrics().registry,
    documents,
  })
  return server
}

function get(
  port: number,
  path: string,
  method = 'GET',
  host = '127.0.0.1',
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host, port, path, method, agent: false }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (part: string) => {
        body += part
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
    sent.on('error', reject).end()
  })
}

const alive: Condition = { name: 'worker', ok: true, reason: 'running' }
const identity: Condition = { name: 'identity', ok: false, reason: 'expired 12 s ago' }

describe('the health server', () => {
  it('answers 200 where every condition holds, with each of them', async () => {
    const { port } = await start([alive], [alive])
    const { status, body } = await get(port, '/healthz')
    expect({ status, body: JSON.parse(body) }).toEqual({ status: 200, body: { status: 'ok', conditions: [alive] } })
  })

  it('answers 503 where one fails, and says which and why; being alive is a question of its own', async () => {
    const { port } = await start([alive], [alive, identity])
    const { status, body } = await get(port, '/readyz?verbose')
    expect({ status, body: JSON.parse(body) }).toEqual({
      status: 503,
      body: { status: 'failed', conditions: [alive, identity] },
    })
    expect((await get(port, '/healthz')).status).toBe(200)
  })

  it('waits until all hold where it is asked to, for as long as it is asked to', async () => {
    const conditions = [identity]
    const { port } = await start([alive], conditions)
    expect((await get(port, '/readyz?wait=0.05')).status).toBe(503)
    expect((await get(port, '/readyz?wait=soon')).status).toBe(503)
    const waiting = get(port, '/readyz?wait=10')
    const early = await Promise.race([waiting, new Promise((resolve) => setTimeout(resolve, 200, 'waiting'))])
    conditions[0] = alive
    expect({ early, late: (await waiting).status }).toEqual({ early: 'waiting', late: 200 })
  })

  it('serves the metrics', async () => {
    const { port } = await start([], [])
    const { status, body } = await get(port, '/metrics')
    expect(status).toBe(200)
    expect(body).toContain('# TYPE synguard_connections_released_total counter')
  })

  it('listens on both families', async () => {
    const { port } = await start([alive], [])
    expect((await get(port, '/healthz', 'GET', '::1')).status).toBe(200)
  })

  it('serves documents that it is given, and nothing else', async () => {
    const { port } = await start([], [], { '/flows': () => ({ flows: [] }) })
    expect(await get(port, '/flows')).toEqual({ status: 200, body: '{"flows":[]}\n' })
    const others = ['/', '/debug', '/constructor', '/__proto__', '//healthz', '/healthz/']
    expect(await Promise.all(others.map(async (path) => (await get(port, path)).status))).toEqual(others.map(() => 404))
    expect((await get(port, '/healthz', 'POST')).status).toBe(405)
  })

  it('answers 500 and lives on where a condition throws', async () => {
    const { port } = await start([alive], [], {
      '/flows': () => {
        throw new Error('no')
      },
    })
    expect((await get(port, '/flows')).status).toBe(500)
    expect((await get(port, '/healthz')).status).toBe(200)
  })

  it('lives on after bytes that are no HTTP', async () => {
    const { port } = await start([alive], [])
    await new Promise<void>((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => socket.end('\0\x16\x03\x01 nonsense\r\n\r\n'))
      socket
        .on('close', () => resolve())
        .on('error', reject)
        .resume()
    })
    expect((await get(port, '/healthz')).status).toBe(200)
  })

  it('rejects where the port is taken', async () => {
    const { port } = await start([], [])
    const options = { port, live: () => [], conditions: () => [], registry: createMetrics().registry }
    await expect(createHealthServer(options)).rejects.toMatchObject({ code: 'EADDRINUSE' })
  })
})
