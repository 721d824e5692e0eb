import { execFile } from 'node:child_process'
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'

const SOAK = join(import.meta.dirname, 'soak.ts')
const run = promisify(execFile)

/** No other test's, so that all that is left there is the soak's. Containers do not see the machine's /tmp. */
const folder = mkdtempSync('/var/tmp/synguard-soak-')
chmodSync(folder, 0o755)
afterAll(() => rmSync(folder, { recursive: true }))

const soak = async (...args: readonly string[]) =>
  await run(process.execPath, ['--no-warnings', SOAK, ...args], {
    timeout: 280_000,
    maxBuffer: 64 << 20,
    env: { ...process.env, TMPDIR: folder },
  })

interface Output {
  readonly connections: number
  readonly succeeded: number
  readonly plainConnections: number
  readonly byParallel: Readonly<Record<string, number>>
  readonly failures: Readonly<Record<string, number>>
  readonly policyChanges: number
  readonly labelChanges: number
  readonly kills: number
  readonly renewals: number
  readonly transfers: { whole: number; broken: number; sentBytes: number; echoedBytes: number; wrongBytes: number }
  readonly sidecars: readonly { pod: string; restarts: number; rssMegabytes: readonly number[] }[]
  readonly incidents: object
  readonly reasons: readonly string[]
}

describe('20,000 connections while policies, labels and identities change and sidecars are killed', () => {
  let output: Output
  let remains: readonly string[]

  beforeAll(async () => {
    // A broken rule ends it with 1; what it printed says which.
    const { stdout } = await soak('--json', '--connections', '20000', '--seed', '1').catch(
      (error: { stdout: string }) => error,
    )
    output = JSON.parse(stdout)
    remains = readdirSync(folder)
  }, 300_000)

  it('break no rule: none fails but beside a kill or while denied, no transfer loses a byte, no table outgrows its use', () => {
    expect({ reasons: output.reasons, incidents: output.reasons.length > 0 ? output.incidents : {} }).toEqual({
      reasons: [],
      incidents: {},
    })
  })

  it('were as many as asked for, alone, eight and 64 at a time, and as many between plain Pods', () => {
    expect(output.connections).toBeGreaterThanOrEqual(20_000)
    expect(output.plainConnections).toBeGreaterThanOrEqual(20_000)
    expect(Object.keys(output.byParallel)).toEqual(['1', '8', '64'])
    const { besideKill = 0, refusedWhileDenied = 0, unexplained = 0 } = output.failures
    expect(output.succeeded).toBe(output.connections - besideKill - refusedWhileDenied - unexplained)
  })

  it('had the changes, kills and renewals among them that they are to bear', () => {
    expect(output.policyChanges).toBeGreaterThanOrEqual(2)
    expect(output.labelChanges).toBeGreaterThanOrEqual(2)
    expect(output.renewals).toBeGreaterThanOrEqual(2)
    expect(output.kills).toBeGreaterThanOrEqual(2)
    const killed = output.sidecars.filter(({ restarts }) => restarts > 0).map(({ pod }) => pod)
    expect(killed).toEqual(['victim', 'victim-server'])
    expect(output.failures.refusedWhileDenied).toBeGreaterThan(0)
  })

  it('ran beside transfers that carried something from first to last', () => {
    const { whole, sentBytes } = output.transfers
    expect({ whole, carried: sentBytes > 24 * 4_096 }).toEqual({ whole: 24, carried: true })
  })

  it('leave no file behind', () => {
    expect(remains).toEqual([])
  })
})

it('a wrong option is one line, with status 2', async () => {
  await expect(soak('--connections', 'many')).rejects.toMatchObject({
    code: 2,
    stdout: '',
    stderr: 'soak: --connections many: a whole number from 1000 on\n',
  })
})
