/** Connections between real sidecars while the key behind their identities is rotated. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { RotationRequest, RotationStatus } from '../../../api/rotation.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { ECHO_PORT, type LoadFigures } from '../../bench/load.ts'
import { signalSidecar } from '../exhaustion/field.ts'
import { createRig, type Rig, type Streams } from './rig.ts'

/** The shortest that there is: what a key signed has ended 23 s after. */
const LIFETIME_SECONDS = 20
const STREAM_PORT = 7100
const STREAMS = 20
const TIMEOUT_MS = 180_000

let rig: Rig
let client: RunningPod
let server: RunningPod
let address: string
let streams: Streams
beforeAll(async () => {
  rig = await createRig({ witLifetimeSeconds: LIFETIME_SECONDS })
  client = await rig.runPod('guarded', 'client')
  server = await rig.runPod('guarded', 'server')
  address = server.network.addresses[0] ?? ''
  await Promise.all([rig.serveLoad(client), rig.serveLoad(server)])
  await rig.streams(server, 'server', String(STREAM_PORT))
  streams = await rig.streams(client, 'client', address, String(STREAM_PORT), String(STREAMS))
}, 120_000)
afterAll(async () => await rig?.stop())

async function readStatus(): Promise<RotationStatus> {
  const status = await rig.lab.controlPlane.rotationStatus()
  if (status === null) throw new Error('no status yet')
  return status
}

/** Asks, and opens connections until it is done: all phases that were seen, and how the connections went. */
async function connectDuring(request: RotationRequest) {
  const phases: string[] = []
  const loads: LoadFigures[] = []
  let isOver = false
  await rig.lab.controlPlane.requestRotation(request)
  async function watch(): Promise<void> {
    while (!isOver) {
      const { phase, answered } = await readStatus()
      if (phases.at(-1) !== phase) phases.push(phase)
      isOver = phase === 'idle' && answered?.request === request.id
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  async function connect(): Promise<void> {
    while (!isOver) {
      // Those of a pair that knows each other well, and each renewal makes a first contact.
      loads.push(await rig.connect(client, address, ECHO_PORT, 200, 4))
      loads.push(await rig.connect(server, client.network.addresses[0] ?? '', ECHO_PORT, 50, 2))
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
  }
  await Promise.all([watch(), connect()])
  const sum = (name: 'connections' | 'succeeded') => loads.reduce((total, load) => total + load[name], 0)
  return { phases, connections: sum('connections'), lost: sum('connections') - sum('succeeded') }
}

const kids = async () => (await readStatus()).keys.map(({ id }) => id)
type Report = { readonly open: number; readonly ended: number; readonly wrong: number; readonly exchanged: number }
const report = async (of: Streams) => (await of.ask('report')) as Report

/** What became of streams, once they are at their end. */
async function ended(of: Streams): Promise<Report> {
  const end = Date.now() + 10_000
  while ((await report(of)).open > 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 100))
  return report(of)
}

describe('while the identity key is rotated', () => {
  it(
    'no connection fails, none that runs ends, and the phases take their turns',
    async () => {
      const [before] = await kids()
      const [exchanged, { phases, connections, lost }] = [
        await report(streams),
        await connectDuring({ id: 'r1', type: 'rotate' }),
      ]
      const after = await report(streams)
      expect(phases.join(' ')).toMatch(/^(idle )?prepared offered (switched )?draining idle$/)
      expect([lost, connections > 1_000]).toEqual([0, true])
      expect(after).toMatchObject({ open: STREAMS, ended: 0, wrong: 0 })
      expect(after.exchanged).toBeGreaterThan(exchanged.exchanged + STREAMS * LIFETIME_SECONDS)
      expect(await kids()).toEqual([expect.not.stringMatching(before ?? '')])
      process.stdout.write(`rotation: ${connections} connections, ${lost} lost\n`)
    },
    TIMEOUT_MS,
  )

  it(
    'nor where it is compromised; but who shows nothing new before the cut loses what rests on the old key alone',
    async () => {
      const quiet = await rig.runPod('guarded', 'quiet')
      const resting = await rig.streams(quiet, 'client', address, String(STREAM_PORT), '2')
      const startedAt = Date.now()
      const { connections, lost } = await connectDuring({ id: 'r2', type: 'compromised' })
      const seconds = (Date.now() - startedAt) / 1_000
      expect([lost, connections > 500]).toEqual([0, true])
      expect(await report(streams)).toMatchObject({ open: STREAMS, ended: 0, wrong: 0 })
      expect(await ended(resting)).toMatchObject({ open: 0, ended: 2 })
      expect(seconds).toBeLessThan(60)
      process.stdout.write(`compromised: ${connections} connections, ${lost} lost, over after ${seconds} s\n`)
    },
    TIMEOUT_MS,
  )
})

describe('a sidecar that is frozen through a rotation', () => {
  it(
    'is named, holds it until its identity has ended, and comes back when it wakes',
    async () => {
      const frozen = await rig.runPod('guarded', 'frozen')
      signalSidecar(frozen, 'SIGSTOP')
      const startedAt = Date.now()
      let named: readonly string[] = []
      const watch = setInterval(() => {
        void readStatus().then(({ phase, sidecars }) => {
          if (phase === 'offered' && sidecars.missing.length > 0) named = sidecars.missing
        })
      }, 200)
      try {
        const { lost } = await connectDuring({ id: 'r3', type: 'rotate' })
        expect([lost, named]).toEqual([0, ['guarded/frozen']])
        expect((Date.now() - startedAt) / 1_000).toBeGreaterThan(2 * LIFETIME_SECONDS)
      } finally {
        clearInterval(watch)
        signalSidecar(frozen, 'SIGCONT')
      }
      const end = Date.now() + 60_000
      let back: LoadFigures | undefined
      while (back?.failed !== 0 && Date.now() < end) back = await rig.connect(frozen, address, ECHO_PORT, 5, 1)
      expect(back).toMatchObject({ succeeded: 5, failed: 0 })
    },
    TIMEOUT_MS,
  )
})
