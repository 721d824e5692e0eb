import { describe, expect, it } from '@jest/globals'
import { createLimitedLog, createLog } from '../../../sidecar/control/log.ts'

function captured(level: 'info' | 'error' = 'info') {
  const lines: string[] = []
  const log = createLog({
    level,
    namespace: 'shop',
    pod: 'api-0',
    destination: { write: (line) => void lines.push(line) },
  })
  return { lines, log, objects: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) }
}

const JWT = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmUifQ.c2lnbmF0dXJl'

describe('the log', () => {
  it('is one JSON object a line with level, time, namespace and pod', () => {
    const { log, objects } = captured()
    log.info({ peer: '10.0.0.1' }, 'released')
    expect(objects()).toEqual([
      { level: 'info', time: expect.any(String), namespace: 'shop', pod: 'api-0', peer: '10.0.0.1', msg: 'released' },
    ])
  })

  it('holds no line below its level', () => {
    const { log, objects } = captured('error')
    log.warn('no')
    log.error('yes')
    expect(objects().map((object) => object.msg)).toEqual(['yes'])
  })

  it('redacts fields that hold secrets by name', () => {
    const { log, objects } = captured()
    log.info({ token: 'abc', wit: 'def', request: { proof: 'ghi', authorization: 'jkl', path: '/v1' } }, 'x')
    expect(objects()[0]).toMatchObject({
      token: '[redacted]',
      wit: '[redacted]',
      request: { proof: '[redacted]', authorization: '[redacted]', path: '/v1' },
    })
  })

  it('redacts anything that looks like a token or a private key, in messages, fields and errors', () => {
    const { log, lines } = captured()
    const pem = '-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----\n'
    log.error({ deep: { er: { still: [JWT] } }, err: new Error(`bad header ${JWT}`), pem }, `Bearer ${JWT} refused`)
    const all = lines.join('')
    expect(all).not.toContain('eyJ')
    expect(all).not.toContain('c2lnbmF0dXJl')
    expect(all).not.toContain('MIGHAgEAMBMG')
    expect(JSON.parse(all)).toMatchObject({ msg: 'Bearer [redacted] refused', deep: { er: { still: ['[redacted]'] } } })
  })
})

describe('the limited log', () => {
  it('logs the first event of a key at once, then a count at the end of the window', () => {
    const { log, objects } = captured()
    const limited = createLimitedLog({ log, windowMs: 10_000 })
    for (let port = 1; port <= 4; port++) limited.report('warn', 'no-wit 10.0.0.1', { port }, 'refused')
    limited.report('warn', 'no-wit 10.0.0.2', { port: 9 }, 'refused')
    expect(objects().map(({ port, repeated }) => ({ port, repeated }))).toEqual([{ port: 1 }, { port: 9 }])
    limited.flush()
    expect(objects().slice(2)).toEqual([
      expect.objectContaining({ level: 'warn', port: 4, repeated: 3, seconds: 10, msg: 'refused' }),
    ])
    limited.close()
  })

  it('goes on with one line a window while an event goes on, and starts anew after a quiet window', () => {
    const { log, objects } = captured()
    const limited = createLimitedLog({ log })
    limited.report('info', 'k', {}, 'm')
    limited.report('info', 'k', {}, 'm')
    limited.flush()
    limited.report('info', 'k', {}, 'm')
    limited.flush()
    limited.flush()
    limited.report('info', 'k', {}, 'm')
    expect(objects().map(({ repeated }) => repeated)).toEqual([undefined, 1, 1, undefined])
    limited.close()
  })

  it('remembers a bounded number of keys and counts the rest together', () => {
    const { log, objects } = captured()
    const limited = createLimitedLog({ log, maxKeys: 2 })
    for (let i = 0; i < 100; i++) limited.report('warn', `key ${i}`, {}, 'refused')
    expect(objects().length).toBe(2)
    limited.close()
    expect(objects().slice(2)).toEqual([expect.objectContaining({ repeated: 98 })])
  })
})
