import { appendFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { VOLUME_STATE } from '../../../api/names.ts'
import { runCommand } from '../../../lab/command.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { addressOf, allowOnly } from '../../lab/objects.ts'
import { createRig, type Rig, type Streams } from './rig.ts'

const PORT = 7100
let rig: Rig
let server: RunningPod
let stays: RunningPod
let goes: RunningPod
let echo: Streams

beforeAll(async () => {
  rig = await createRig()
  server = await rig.runPod('guarded', 'server')
  stays = await rig.runPod('guarded', 'stays')
  goes = await rig.runPod('guarded', 'goes')
  echo = await rig.streams(server, 'server', String(PORT))
}, 60_000)
afterAll(async () => await rig?.stop())

const pause = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds))

interface Report {
  readonly open: number
  readonly ended: number
  readonly wrong: number
  readonly exchanged: number
}

const openStreams = async (pod: RunningPod, count: number) =>
  await rig.streams(pod, 'client', addressOf(server), String(PORT), String(count))

const report = async (streams: Streams) => (await streams.ask('report')) as Report

/** Waits until the condition holds; the milliseconds it took, or a failure after `limit`. */
async function until(limit: number, holds: () => Promise<boolean>): Promise<number> {
  const started = performance.now()
  while (!(await holds())) {
    if (performance.now() - started > limit) throw new Error(`not within ${limit} ms`)
    await pause(20)
  }
  return performance.now() - started
}

/** SYNs that the kernel of a Pod repeated so far (/proc/net/netstat). */
async function repeatedSyns({ network }: RunningPod): Promise<number> {
  const text = await runCommand('ip', ['netns', 'exec', network.netns, 'cat', '/proc/net/netstat'])
  const [names = [], values = []] = [...text.matchAll(/^TcpExt: (.*)$/gm)].map((line) => (line[1] ?? '').split(' '))
  return Number(values[names.indexOf('TCPSynRetrans')])
}

describe('a sidecar that starts', () => {
  it('asks nobody before it lets its own SYN through: that cost each Pod the second to its repetition', async () => {
    const repeated = await Promise.all([server, stays, goes].map(repeatedSyns))
    // A busy machine may take a second for anything; but not each time.
    expect(Math.min(...repeated)).toBe(0)
  })
})

describe('a policy changed under 200 open connections', () => {
  it('ends at both ends those no longer allowed, and the others lose no byte', async () => {
    allowOnly(rig.lab, ['stays', 'goes'])
    await pause(1_000)
    const [staying, going] = [await openStreams(stays, 100), await openStreams(goes, 100)]
    await pause(500)
    for (const round of [1, 2]) {
      allowOnly(rig.lab, ['stays'])
      // Ten times the target of one second.
      const ended = await until(10_000, async () => {
        const counts = (await echo.ask('report')) as Record<string, number>
        return (await report(going)).open === 0 && counts[addressOf(goes)] === undefined
      })
      process.stdout.write(`revocation, round ${round}: both ends of all within ${ended.toFixed(0)} ms\n`)
      const refused = (await going.ask('connect')) as { connected: boolean; error?: string }
      expect(refused).toEqual({ connected: false, error: 'ECONNREFUSED' })

      allowOnly(rig.lab, ['stays', 'goes'])
      await until(10_000, async () => ((await going.ask('connect')) as { connected: boolean }).connected)
    }
    const before = await report(staying)
    await pause(500)
    const after = await report(staying)
    expect({ open: after.open, ended: after.ended, wrong: after.wrong }).toEqual({ open: 100, ended: 0, wrong: 0 })
    expect(after.exchanged).toBeGreaterThan(before.exchanged + 100)
  }, 60_000)
})

describe('a killed sidecar', () => {
  it.each([
    ["the server's", () => server],
    ["the client's", () => stays],
  ])(
    '%s: released connections go on without it, a new one waits and then succeeds',
    async (_whose, pod) => {
      const streams = await openStreams(stays, 20)
      const before = await report(streams)
      const sidecar = pod().containers.get('synguard-sidecar')
      sidecar?.current().kill('SIGKILL')
      const waited = (await streams.ask('connect')) as { connected: boolean; milliseconds: number }
      expect(waited.connected).toBe(true)
      process.stdout.write(`a connection opened as the sidecar died waited ${waited.milliseconds.toFixed(0)} ms\n`)
      const after = await report(streams)
      expect({ open: after.open, ended: after.ended, wrong: after.wrong }).toEqual({ open: 21, ended: 0, wrong: 0 })
      expect(after.exchanged).toBeGreaterThan(before.exchanged)
      expect(sidecar?.restarts()).toBeGreaterThan(0)
    },
    60_000,
  )

  it('a restarted sidecar still knows who runs on: a policy ends what it no longer allows', async () => {
    const streams = await openStreams(stays, 10)
    server.containers.get('synguard-sidecar')?.current().kill('SIGKILL')
    await until(20_000, async () => ((await streams.ask('connect')) as { connected: boolean }).connected)
    allowOnly(rig.lab, ['goes'])
    await until(10_000, async () => (await report(streams)).open === 0)
    expect(await streams.ask('connect')).toEqual({ connected: false, error: 'ECONNREFUSED' })
  }, 60_000)

  it('whose identity table is damaged begins a new one, and ends the connections that nothing speaks for', async () => {
    allowOnly(rig.lab, ['stays'])
    await pause(1_000)
    const streams = await openStreams(stays, 10)
    const folder = server.volumes.get(VOLUME_STATE) ?? ''
    appendFileSync(join(folder, 'identities.jsonl'), 'not a row\n')
    server.containers.get('synguard-sidecar')?.current().kill('SIGKILL')
    await until(20_000, async () => (await report(streams)).open === 0)
    await until(20_000, async () => ((await streams.ask('connect')) as { connected: boolean }).connected)
    expect(existsSync(join(folder, 'identities.damaged.jsonl'))).toBe(true)
    expect(server.logs.get('synguard-sidecar')?.text()).toContain('"code":"state-unreadable"')
    // The new row takes the index of the old one: what it stands for now is judged by it alone.
    allowOnly(rig.lab, ['goes'])
    await until(10_000, async () => (await report(streams)).open === 0)
  }, 90_000)
})
