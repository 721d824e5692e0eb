/** A tuple used again while both kernels and conntrack still know, released, the connection that was on it before. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { runCommand } from '../../../lab/command.ts'
import { createField, type Field, type Peer, PORT, pause, type Treatment } from './attacker.ts'

let field: Field
let client: Peer
let server: Peer
let nextPort = 45_000

beforeAll(async () => {
  field = await createField()
  client = await field.peer('guarded', 'client')
  server = await field.peer('guarded', 'server')
  await server.ask({ do: 'listen', port: PORT })
}, 60_000)
afterAll(async () => await field?.stop())
afterEach(async () => await field.path.treat({}))

const open = (from: number, name: string) => client.ask({ do: 'open', name, address: server.address, port: PORT, from })
const say = (name: string, text: string) => client.ask({ do: 'say', name, text })
const inServer = (...command: string[]) => runCommand('ip', ['netns', 'exec', server.pod.network.netns, ...command])

/** States of the server's sockets of this port of the client, as ss names them. */
async function statesOf(from: number): Promise<string[]> {
  const lines = (await inServer('ss', '-Htan', 'dport', '=', `:${from}`)).trim().split('\n')
  return lines.map((line) => line.split(/\s+/)[0] ?? '')
}

/** Opens a connection, and leaves the server's end in the state while the client's end is gone. */
const LEAVE: Readonly<Record<string, (name: string) => Promise<unknown>>> = {
  ESTAB: async (name) => {
    await field.path.treat({ drop: ['rst'], from: client.address })
    return await client.ask({ do: 'reset', name })
  },
  'LAST-ACK': async (name) => {
    await client.ask({ do: 'end', name })
    await pause(100)
    await field.path.treat({ drop: ['rst'], from: client.address })
    await client.ask({ do: 'reset', name })
    await pause(100)
    return await server.ask({ do: 'end accepted' })
  },
  'TIME-WAIT': async (name) => {
    await server.ask({ do: 'end accepted' })
    await pause(100)
    return await client.ask({ do: 'end', name })
  },
}

describe.each(Object.keys(LEAVE))('over a released connection whose server is in %s', (state) => {
  async function left(): Promise<number> {
    const from = nextPort++
    expect(await open(from, 'former')).toEqual({ opened: true })
    expect(await say('former', 'former')).toEqual({ echoed: 'former' })
    await LEAVE[state]?.('former')
    await pause(200)
    expect(await statesOf(from)).toEqual([state])
    await field.path.treat({})
    await server.ask({ do: 'heard' })
    return from
  }

  it('a client that proves who it is connects, and its data arrives whole', async () => {
    const from = await left()
    expect(await open(from, 'next')).toEqual({ opened: true })
    expect(await say('next', 'next')).toEqual({ echoed: 'next' })
    expect(await server.ask({ do: 'heard' })).toEqual({ accepted: 1, text: 'next' })
    await client.ask({ do: 'reset', name: 'next' })
  }, 30_000)

  it.each<[string, Treatment]>([
    ['its proof', { drop: ['proof'] }],
    ['the frame of its SYN', { strip: ['syn'] }],
    ['all of its frames', { strip: ['syn', 'syn-ack', 'proof'] }],
  ])(
    'without %s it does not take over the former release',
    async (_what, treatment) => {
      const from = await left()
      await field.path.treat(treatment)
      await open(from, 'next')
      const said = await say('next', 'stolen')
      expect(said).toMatchObject({ error: expect.any(String) })
      expect(await server.ask({ do: 'heard', from })).toEqual({ accepted: 0, text: '' })
      await field.path.treat({})
      await client.ask({ do: 'reset', name: 'next' })
    },
    30_000,
  )
})
