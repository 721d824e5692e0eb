/**
 * A connection that one end has half closed is idle for 180 s. conntrack has forgotten it by then, at both ends, and
 * with it that it was released: it is judged again.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, it } from '@jest/globals'
import { runCommand } from '../../../lab/command.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { allowOnly } from '../../lab/objects.ts'
import { createRig, type Rig } from '../connections/rig.ts'
import { pause, print, until } from './field.ts'

const PORT = 7_200
const SILENCE_MILLISECONDS = 180_000
/** conntrack keeps them for 60 s (CLOSE_WAIT) or 120 s (FIN_WAIT). */
const FORGOTTEN_MILLISECONDS = 150_000
const LATE = 'late\n'

interface Report {
  readonly mode: string
  readonly peer: string
  readonly received: string
  readonly state: string
}

let rig: Rig
const children: ChildProcessWithoutNullStreams[] = []

beforeAll(async () => {
  rig = await createRig()
}, 60_000)
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  await rig?.stop()
})

/** Starts half-closed.ts in a Pod; resolves once it is ready. */
async function start(pod: RunningPod, ...parameters: readonly string[]) {
  const program = [process.execPath, '--no-warnings', join(import.meta.dirname, 'half-closed.ts'), ...parameters]
  const child = spawn('ip', ['netns', 'exec', pod.network.netns, ...program])
  children.push(child)
  child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<unknown> => {
    const { value, done } = await lines.next()
    if (done) throw new Error('half-closed.ts ended')
    return JSON.parse(value)
  }
  await next()
  return async (line: 'speak' | 'report') => {
    child.stdin.write(`${line}\n`)
    return (await next()) as readonly Report[]
  }
}

/** How many entries conntrack has for the port in a Pod. */
async function tracked(pod: RunningPod): Promise<number> {
  const text = await runCommand('ip', ['netns', 'exec', pod.network.netns, 'cat', '/proc/net/nf_conntrack'])
  return text.split('\n').filter((line) => line.includes(`port=${PORT} `)).length
}

it('goes on where policy allows it, and where policy denies it by now it does not come back', async () => {
  allowOnly(rig.lab, ['stays', 'goes'])
  const server = await rig.runPod('guarded', 'server')
  const stays = await rig.runPod('guarded', 'stays')
  const goes = await rig.runPod('guarded', 'goes')
  const atServer = await start(server, 'server', String(PORT))
  const atStays = await start(stays, 'client', String(PORT), ...server.network.addresses)
  const atGoes = await start(goes, 'client', String(PORT), ...server.network.addresses)
  await until('the server’s report of all', 30_000, async () => (await atServer('report')).length === 8)
  expect(await tracked(server)).toBe(8)
  expect((await atServer('report')).map(({ state }) => state)).toEqual(Array(8).fill('open'))

  await pause(FORGOTTEN_MILLISECONDS)
  expect([await tracked(server), await tracked(stays), await tracked(goes)]).toEqual([0, 0, 0])
  allowOnly(rig.lab, ['stays'])
  await pause(SILENCE_MILLISECONDS - FORGOTTEN_MILLISECONDS)
  for (const speak of [atServer, atStays, atGoes]) await speak('speak')
  const isHeard = ({ received }: Report) => received.includes(LATE)
  await until('the late word, at each end of each family', 60_000, async () => {
    const [heard, heardBack] = [await atServer('report'), await atStays('report')]
    return heard.filter(isHeard).length >= 2 && heardBack.filter(isHeard).length >= 2
  })
  // What must not come has as long again.
  await pause(3_000)

  const [server8, stays4, goes4] = [await atServer('report'), await atStays('report'), await atGoes('report')]
  print('after 180 s of silence:', JSON.stringify({ server: server8, stays: stays4, goes: goes4 }))
  const of = (reports: readonly Report[], mode: string) => reports.filter((report) => report.mode === mode)
  const fromStays = server8.filter(({ peer }) => stays.network.addresses.includes(peer))
  expect(of(stays4, 'client-closes').map(({ received }) => received)).toEqual(Array(2).fill(`hello\n${LATE}`))
  expect(of(fromStays, 'server-closes').map(({ received }) => received)).toEqual(Array(2).fill(LATE))
  expect([...stays4, ...fromStays].map(({ state }) => state)).toEqual(Array(8).fill('open'))

  const fromGoes = server8.filter((report) => !fromStays.includes(report))
  expect(fromGoes).toHaveLength(4)
  expect([...goes4, ...fromGoes].filter(({ received }) => received.includes(LATE))).toEqual([])
}, 300_000)
