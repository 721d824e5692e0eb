import { execFile } from 'node:child_process'
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { VARIANTS } from '../bench/options.ts'

const CHECKOUT = resolve(import.meta.dirname, '../..')
const BENCH = join(CHECKOUT, 'test/bench/bench.ts')
const run = promisify(execFile)

/** No other test's, so that all that is left there is the bench's. Containers do not see the machine's /tmp. */
const folder = mkdtempSync('/var/tmp/synguard-bench-')
chmodSync(folder, 0o755)
afterAll(() => rmSync(folder, { recursive: true }))

const bench = async (...args: readonly string[]) =>
  await run(process.execPath, ['--no-warnings', BENCH, ...args], {
    timeout: 150_000,
    env: { ...process.env, TMPDIR: folder },
  })

/** Nobody, who can still read this checkout where it is root's alone. */
const AS_NOBODY = [
  ...['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'],
  ...['--inh-caps=-all,+dac_read_search', '--ambient-caps=-all,+dac_read_search'],
]

interface Load {
  readonly failed: number
  readonly queuedPerConnection: number
}

interface Output {
  readonly [field: string]: unknown
  readonly variants: readonly { readonly name: string; readonly parallel1: Load; readonly parallel64: Load }[]
}

describe('the bench with few connections', () => {
  let output: Output
  let remains: readonly string[]

  beforeAll(async () => {
    const { stdout } = await bench('--json', '--rounds', '2', '--connections', '200', '--first-contacts', '2')
    output = JSON.parse(stdout)
    remains = readdirSync(folder)
  }, 160_000)

  it('measures every variant, and every connection of each succeeds', () => {
    expect(output.variants.map(({ name }) => name)).toEqual(VARIANTS)
    for (const { parallel1, parallel64 } of output.variants) {
      expect([parallel1.failed, parallel64.failed]).toEqual([0, 0])
    }
    expect(output.failedConnections).toBe(0)
  })

  it('prints a positive number for every figure that a program may ask for', () => {
    const figures = [
      ...['latencyRatio', 'rateRatio', 'p99Ratio', 'plainLatencyRatio', 'mtlsLatencyRatio', 'mtlsRateRatio'],
      ...['bulkRatio', 'trackedBulkRatio', 'queuedPerConnection', 'firstContactMicroseconds', 'rssMegabytes'],
    ]
    for (const name of figures) expect([name, Number(output[name]) > 0]).toEqual([name, true])
  })

  it('gives each ratio the spread of its rounds, with the median inside', () => {
    const spreads = Object.entries(output.spreads as Record<string, Record<'median' | 'minimum' | 'maximum', number>>)
    expect(spreads.length).toBeGreaterThanOrEqual(7)
    for (const [name, { minimum, median, maximum }] of spreads) {
      expect([name, minimum <= median && median <= maximum]).toEqual([name, true])
      if (name in output) expect([name, output[name]]).toEqual([name, median])
    }
  })

  it('has the yardstick queue the handshake, and plain TCP and mutual TLS nothing', () => {
    const queued = Object.fromEntries(
      output.variants.map(({ name, parallel1 }) => [name, parallel1.queuedPerConnection]),
    )
    expect([queued.plain, queued.tracked, queued.mtls]).toEqual([0, 0, 0])
    // SYN and SYN-ACK at both ends, and the ACK at the server.
    expect(queued['accept-only']).toBeGreaterThanOrEqual(5)
    expect(queued.synguard).toBeGreaterThanOrEqual(5)
  })

  it('leaves no file behind', () => {
    expect(remains).toEqual([])
  })
})

describe('what the bench cannot do is one line', () => {
  it('without root, with status 2', async () => {
    const [file = '', ...args] = [...AS_NOBODY, process.execPath, '--no-warnings', BENCH, '--json']
    const failed = run(file, args)
    await expect(failed).rejects.toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(/^bench: needs root.*\n$/),
    })
  })

  it('of a wrong option, with status 2', async () => {
    await expect(bench('--rounds', 'few')).rejects.toMatchObject({
      code: 2,
      stderr: 'bench: --rounds few: a whole number from 1 on\n',
    })
  })
})
