/**
 * A tuple used again while both kernels and conntrack still know, released, the connection that was on it before. Each
 * attempt has a port of its own, and all are made at once: most of them wait until their client gives up.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { runCommand } from '../../../lab/command.ts'
import {
  createField,
  type Field,
  type Heard,
  type Outcome,
  type Peer,
  PORT,
  pause,
  type Treatment,
} from './attacker.ts'

let field: Field
let client: Peer
let server: Peer

/** For what must succeed; for what must not, time for a SYN and its repetitions after 1 and 3 s. */
const [LONG_SECONDS, SHORT_SECONDS] = [25, 5] as const

const say = (name: string, text: string, seconds: number) => client.ask({ do: 'say', name, text, seconds })

async function open(from: number, name: string, seconds: number): Promise<Outcome> {
  return await client.ask({ do: 'open', name, address: server.address, port: PORT, from, seconds })
}

/** Waits until the server's socket of this port of the client is in this state, as ss names it. */
async function reaches(from: number, state: string): Promise<void> {
  const command = ['netns', 'exec', server.pod.network.netns, 'ss', '-Htan', 'dport', '=', `:${from}`]
  for (const deadline = Date.now() + 5_000; ; await pause(50)) {
    const lines = (await runCommand('ip', command)).trim().split('\n')
    const states = lines.map((line) => line.split(/\s+/)[0] ?? '')
    if (states.join() === state) return
    if (Date.now() > deadline) throw new Error(`port ${from}: the server is in ${states.join()}, not in ${state}`)
  }
}

/** Leaves the server's end of a connection in the state while the client's end is gone. */
const LEAVE: Readonly<Record<string, (from: number, name: string) => Promise<void>>> = {
  ESTAB: async (from, name) => {
    await field.path.treat({ port: from, drop: ['rst'], from: client.address })
    await client.ask({ do: 'reset', name })
    await pause(200)
  },
  'LAST-ACK': async (from, name) => {
    await client.ask({ do: 'end', name })
    await reaches(from, 'CLOSE-WAIT')
    await field.path.treat({ port: from, drop: ['rst'], from: client.address })
    await client.ask({ do: 'reset', name })
    await pause(100)
    await server.ask({ do: 'end accepted', from })
  },
  'TIME-WAIT': async (from, name) => {
    await server.ask({ do: 'end accepted', from })
    await reaches(from, 'FIN-WAIT-2')
    await client.ask({ do: 'end', name })
  },
}

const STATES = Object.keys(LEAVE)
const WITHOUT: readonly (readonly [string, Treatment])[] = [
  ['its proof', { drop: ['proof'] }],
  ['the frame of its SYN', { strip: ['syn'] }],
  ['all of its frames', { strip: ['syn', 'syn-ack', 'proof'] }],
]

interface Attempt {
  readonly opened: Outcome
  readonly said: Outcome
  readonly heard: Heard
}
const attempts = new Map<string, Attempt>()
const keyOf = (state: string, what: string) => `${state}: ${what}`

/** Leaves a connection in the state, and connects on its tuple, treated so. */
async function attempt(state: string, from: number, treatment: Treatment): Promise<Attempt> {
  const [former, next] = [`former ${from}`, `next ${from}`]
  expect(await open(from, former, LONG_SECONDS)).toEqual({ opened: true })
  expect(await say(former, 'former', LONG_SECONDS)).toEqual({ echoed: 'former' })
  await LEAVE[state]?.(from, former)
  await reaches(from, state)
  await server.ask({ do: 'heard', from })
  const succeeds = Object.keys(treatment).length === 0
  await field.path.treat({ port: from, ...treatment })
  const seconds = succeeds ? LONG_SECONDS : SHORT_SECONDS
  const [opened, said] = [await open(from, next, seconds), await say(next, 'next', seconds)]
  const heard = await server.ask({ do: 'heard', from })
  await client.ask({ do: 'reset', name: next })
  return { opened, said, heard }
}

beforeAll(async () => {
  field = await createField()
  client = await field.peer('guarded', 'client')
  server = await field.peer('guarded', 'server')
  await server.ask({ do: 'listen', port: PORT })
  const cases = STATES.flatMap((state) => [['nothing', {}] as const, ...WITHOUT].map((one) => [state, ...one] as const))
  await Promise.all(
    cases.map(async ([state, what, treatment], index) => {
      attempts.set(keyOf(state, what), await attempt(state, 45_000 + index, treatment))
    }),
  )
}, 90_000)
afterAll(async () => await field?.stop())

describe.each(STATES)('over a released connection whose server is in %s', (state) => {
  it('a client that proves who it is connects, and its data arrives whole', () => {
    expect(attempts.get(keyOf(state, 'nothing'))).toEqual({
      opened: { opened: true },
      said: { echoed: 'next' },
      heard: { accepted: 1, text: 'next' },
    })
  })

  it.each(WITHOUT)('without %s it does not take over the former release', (what) => {
    expect(attempts.get(keyOf(state, what))).toMatchObject({
      said: { error: expect.any(String) },
      heard: { accepted: 0, text: '' },
    })
  })
})
