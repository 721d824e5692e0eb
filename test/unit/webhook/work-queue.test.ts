import { describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import { pause, retryDelayMs } from '../../../kubernetes/backoff.ts'
import { ApiError } from '../../../kubernetes/errors.ts'
import { createWorkQueue } from '../../../webhook/kubernetes/work-queue.ts'
import { createLog } from '../../../webhook/log.ts'
import { until } from '../../contract/stage.ts'

const log = pino({ level: 'silent' })
const backoff = { initialMs: 2, maxMs: 8 }
const random = () => 0.5

describe('a work queue', () => {
  it('runs a key once however often it was added before, and once more where it was added meanwhile', async () => {
    const rounds: string[] = []
    const release: (() => void)[] = []
    const work = (key: string) => {
      rounds.push(key)
      return new Promise<void>((resolve) => release.push(resolve))
    }
    const queue = createWorkQueue({ work, log, random, backoff })
    for (const key of ['a', 'b', 'a', 'a']) queue.add(key)
    expect(rounds).toEqual(['a', 'b'])
    release[0]?.()
    await until('the second round', () => rounds.length === 3)
    expect(rounds).toEqual(['a', 'b', 'a'])
    release[2]?.()
    release[1]?.()
    await queue.stop()
    expect(rounds).toHaveLength(3)
  })

  it('runs a few keys at a time and every one in the end', async () => {
    let running = 0
    let most = 0
    const done = new Set<string>()
    const work = async (key: string) => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setImmediate(resolve))
      running--
      done.add(key)
    }
    const queue = createWorkQueue({ work, log, random, backoff })
    for (let number = 0; number < 50; number++) queue.add(String(number))
    await until('all', () => done.size === 50)
    expect(most).toBe(4)
    await queue.stop()
  })

  it('repeats what fails until it succeeds, and nothing after stop', async () => {
    let left = 3
    let rounds = 0
    const work = async () => {
      rounds++
      if (left-- > 0) throw new Error('not yet')
    }
    const queue = createWorkQueue({ work, log, random, backoff })
    queue.add('a')
    await until('four rounds', () => rounds === 4)
    left = 1
    queue.add('a')
    await until('a failure', () => rounds === 5)
    await queue.stop()
    queue.add('a')
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(rounds).toBe(5)
  })
})

describe('the wait before the next attempt', () => {
  const limits = { initialMs: 100, maxMs: 1_000 }

  it('doubles up to its bound, half of it random', () => {
    const waits = (chance: number) =>
      [1, 2, 3, 4, 5, 99].map((attempt) => retryDelayMs(undefined, attempt, () => chance, limits))
    expect(waits(0)).toEqual([50, 100, 200, 400, 500, 500])
    expect(waits(1)).toEqual([100, 200, 400, 800, 1_000, 1_000])
  })

  it('is never less than the API server asks for', () => {
    const error = new ApiError('api-refused', 'busy', { status: 429, retryAfterMs: 5_000 })
    expect(retryDelayMs(error, 1, () => 0, limits)).toBe(5_000)
    expect(retryDelayMs(error, 1, () => 1, limits)).toBe(5_050)
  })

  it('ends at once when it is over', async () => {
    const ending = new AbortController()
    const paused = pause(3_600_000, ending.signal)
    ending.abort()
    await paused
    await pause(3_600_000, ending.signal)
  })
})

describe("the webhook's log", () => {
  it('has level, time and replica in words, and neither tokens nor keys', () => {
    const lines: string[] = []
    const destination = { write: (line: string) => void lines.push(line) }
    const token = 'eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsic3luZ3VhcmQiXX0.c2lnbmF0dXJl'
    const key = '-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----'
    createLog({ level: 'info', replica: 'webhook-1', destination }).warn({ error: `bad ${token}`, key }, 'refused')
    const line = JSON.parse(lines[0] ?? '') as Record<string, string>
    expect(line).toMatchObject({ level: 'warn', replica: 'webhook-1', msg: 'refused', error: 'bad [redacted]' })
    expect(line.time).toMatch(/^\d{4}-\d\d-\d\dT/)
    expect(lines[0]).not.toContain('MIIEow')
  })
})
