/** A sidecar that has little CPU or memory: it slows, or says what it lacks, and never opens what policy denies. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { RunningPod } from '../../../lab/pod.ts'
import { ECHO_PORT, type LoadFigures, SINK_PORT } from '../../bench/load.ts'
import { addressOf, allowOnly } from '../../lab/objects.ts'
import { deadGroups, removeDeadGroups } from './cgroup.ts'
import { type ConfinedRig, createConfinedRig } from './confined.ts'

const CONNECTIONS = 200
const PARALLEL = 8
const MEBIBYTE = 1 << 20

let rig: ConfinedRig
let friend: RunningPod
let stranger: RunningPod

beforeAll(async () => {
  rig = await createConfinedRig()
  for (const app of ['slow', 'small']) allowOnly(rig.lab, ['friend'], app)
  friend = await rig.runPod('guarded', 'friend')
  stranger = await rig.runPod('guarded', 'stranger')
}, 120_000)
afterAll(async () => await rig?.stop())

const logOf = (pod: RunningPod): string => pod.logs.get('synguard-sidecar')?.text() ?? ''
const print = (what: string, value: unknown): void =>
  void process.stdout.write(`${what}: ${typeof value === 'object' ? JSON.stringify(value) : value}\n`)

const connect = async (from: RunningPod, to: RunningPod, count = CONNECTIONS): Promise<LoadFigures> =>
  await rig.connect(from, addressOf(to), ECHO_PORT, count, PARALLEL)

/** What becomes of some attempts at once, each given up after eight seconds. */
function reachTimes(from: RunningPod, to: RunningPod): Promise<string>[] {
  const target = { protocol: 'TCP', address: addressOf(to), port: ECHO_PORT } as const
  return Array.from({ length: PARALLEL }, async () => {
    return (await from.agent.ask({ do: 'reach', target, timeoutMs: 8_000 })).outcome
  })
}

/** What the readiness probe of the node sees; 0 where nobody answered in time. */
async function readiness(pod: RunningPod): Promise<number> {
  const request = { do: 'httpGet', address: addressOf(pod), port: 15_900, path: '/readyz', timeoutMs: 3_000 } as const
  return await rig.lab.node.ask(request).then(
    ({ status }) => status,
    () => 0,
  )
}

describe('a sidecar with 100 m of CPU', () => {
  let slow: RunningPod
  beforeAll(async () => {
    rig.limit('slow', { cpuCores: 0.1 })
    const started = performance.now()
    slow = await rig.runPod('guarded', 'slow')
    print('100 m of CPU: ready after, ms', (performance.now() - started).toFixed(0))
    await rig.serveLoad(slow)
  }, 120_000)

  it('says that it has too little', () => {
    expect(logOf(slow)).toContain('"cpuLimitCores":0.1,"neededCores":0.25,"msg":"the CPU limit is low')
  })

  it('lets in whom policy allows, however slowly, and nobody else, while its readiness is true', async () => {
    const throttledBefore = rig.group('slow').throttledPeriods()
    const [allowed, denied] = await Promise.all([connect(friend, slow), connect(stranger, slow)])
    print('allowed', allowed)
    print('denied', denied)
    print('throttled periods', rig.group('slow').throttledPeriods() - throttledBefore)
    expect(denied.succeeded).toBe(0)
    expect(allowed.succeeded).toBeGreaterThan(0)
    expect(rig.group('slow').throttledPeriods()).toBeGreaterThan(throttledBefore)
    // Ready means: an allowed connection is answered.
    expect(await readiness(slow)).toBe(200)
    expect(await connect(friend, slow, 1)).toMatchObject({ succeeded: 1 })
  }, 180_000)

  it('is not asked about a released connection, which keeps its speed', async () => {
    const before = await rig.queued(slow)
    const confined = await rig.bulk(friend, addressOf(slow), 1)
    const asked = (await rig.queued(slow)) - before
    rig.limit('slow', {})
    const free = await rig.bulk(friend, addressOf(slow), 1)
    print(`bulk to port ${SINK_PORT}, Gbit/s`, { confined, free, asked })
    expect(confined).toBeGreaterThan(0)
    // SYN, SYN-ACK, proof, ACK and what comes before the release, of one connection and of the two that ask for metrics.
    expect(asked).toBeLessThan(50)
  }, 60_000)
})

describe('a sidecar with 64 MiB of memory', () => {
  let small: RunningPod
  beforeAll(async () => {
    rig.limit('small', { memoryBytes: 64 * MEBIBYTE })
    small = await rig.runPod('guarded', 'small')
    await rig.serveLoad(small)
  }, 120_000)

  it('says that it has little, starts, and decides', async () => {
    expect(logOf(small)).toContain('"memoryLimitMebibytes":64,"neededMebibytes":96,"msg":"the memory limit is low')
    const [allowed, denied] = await Promise.all([connect(friend, small), connect(stranger, small)])
    print('64 MiB: allowed', allowed)
    print('64 MiB: denied', denied)
    print('64 MiB: peak MiB', (rig.group('small').memoryPeak() / MEBIBYTE).toFixed(1))
    expect([denied.succeeded, rig.group('small').kills()]).toEqual([0, 0])
    expect(allowed.succeeded).toBe(CONNECTIONS)
  }, 120_000)

  it('with less than it can live in, it is killed again and again: running connections go on, no new one opens', async () => {
    const sidecar = small.containers.get('synguard-sidecar')
    const echo = await rig.streams(small, 'server', '7100')
    const streams = await rig.streams(friend, 'client', addressOf(small), '7100', '10')
    const exchanged = async () => ((await streams.ask('report')) as { exchanged: number }).exchanged
    const before = await exchanged()
    sidecar?.current().kill('SIGKILL')
    await sidecar?.current().exited
    rig.limit('small', { memoryBytes: 24 * MEBIBYTE })
    const outcomes = await Promise.all([friend, stranger].flatMap((peer) => reachTimes(peer, small)))
    print('24 MiB: outcomes', [...new Set(outcomes)].join(', '))
    print('24 MiB: killed', rig.group('small').kills())
    expect(outcomes.filter((outcome) => outcome === 'answered' || outcome === 'silent')).toEqual([])
    expect(await readiness(small)).not.toBe(200)
    expect(rig.group('small').kills()).toBeGreaterThan(0)
    expect(await streams.ask('report')).toMatchObject({ open: 10, ended: 0, wrong: 0 })
    expect(await exchanged()).toBeGreaterThan(before)
    expect(await echo.ask('report')).toEqual({ [addressOf(friend)]: 10 })
    expect(logOf(small)).toContain('"memoryLimitMebibytes":24')
  }, 180_000)

  it('with enough again it is back by itself', async () => {
    rig.limit('small', { memoryBytes: 64 * MEBIBYTE })
    for (let waited = 0; waited < 200 && (await readiness(small)) !== 200; waited++) await pause(100)
    expect(await connect(friend, small, 1)).toMatchObject({ succeeded: 1 })
    expect((await connect(stranger, small, PARALLEL)).succeeded).toBe(0)
  }, 120_000)
})

describe('the control group of a test that was killed', () => {
  it('is gone once the next one has begun', async () => {
    const script = `
      import { createControlGroup } from '${join(import.meta.dirname, 'cgroup.ts')}'
      createControlGroup('abandoned')`
    await promisify(execFile)(process.execPath, ['--no-warnings', '--input-type=module-typescript', '-e', script])
    expect(deadGroups().length).toBeGreaterThan(0)
    await removeDeadGroups()
    expect(deadGroups()).toEqual([])
  })
})
