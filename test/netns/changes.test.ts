import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from '@jest/globals'
import type { ChangeResults, Times } from '../bench/changes/run.ts'

const CHECKOUT = resolve(import.meta.dirname, '../..')
const ROUNDS = 6
/** Ten times what a change may take. */
const LIMIT_MILLISECONDS = { policies: 10_000, labels: 20_000 } as const

describe('policies and labels that change beside 1,000 open connections and 500 new ones a second', () => {
  let results: ChangeResults

  beforeAll(async () => {
    const options = ['--json', '--policies', String(ROUNDS), '--labels', String(2 * ROUNDS)]
    const script = resolve(CHECKOUT, 'test/bench/changes/changes.ts')
    // A broken run ends it with 1; what it printed says how.
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--no-warnings', script, ...options], {
      timeout: 110_000,
    }).catch((error: { stdout: string; stderr: string }) => error)
    if (stdout === '') throw new Error(stderr)
    results = JSON.parse(stdout)
    for (const what of ['policies', 'labels'] as const) {
      const times: Times = results[what]
      for (const name of ['ended', 'refused', 'allowed'] as const) {
        process.stdout.write(`${what} ${name}: ${times[name].map((time) => time.toFixed(0)).join(', ')} ms\n`)
      }
    }
    process.stdout.write(`new connections: ${JSON.stringify(results.paced)}\n`)
  }, 120_000)

  it('cost nobody a connection who stays allowed, and let nobody in who is denied', () => {
    expect(results.reasons).toEqual([])
    expect(results.held).toEqual({ open: 1_000, ended: 0 })
    expect(results.paced.succeeded).toBe(results.paced.opened)
    expect(results.paced.opened).toBeGreaterThanOrEqual(2_500)
    expect(results.streams).toMatchObject({ open: 10, ended: 0, wrong: 0 })
  })

  it.each(['policies', 'labels'] as const)('%s count soon, for what runs and for what is new', (what) => {
    const { ended, refused, allowed } = results[what]
    expect([ended.length, refused.length, allowed.length]).toEqual([ROUNDS, ROUNDS, ROUNDS])
    expect(Math.max(...ended, ...refused, ...allowed)).toBeLessThan(LIMIT_MILLISECONDS[what])
  })
})
