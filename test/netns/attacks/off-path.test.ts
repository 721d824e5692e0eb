/** Packets with a victim's addresses and ports from a third Pod's raw socket, which does not see the connection. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import {
  ACK,
  createField,
  FIN,
  type Field,
  forge,
  type Path,
  type Peer,
  PORT,
  pause,
  RST,
  SYN,
  SYN_ACK,
} from './attacker.ts'

let field: Field
let client: Peer
let server: Peer
let mallory: Path

beforeAll(async () => {
  field = await createField()
  client = await field.peer('guarded', 'client')
  server = await field.peer('guarded', 'server')
  mallory = await field.offPath((await field.peer('plain', 'mallory')).pod)
  await server.ask({ do: 'listen', port: PORT })
}, 60_000)
afterAll(async () => await field?.stop())
afterEach(async () => await field.path.letPass())

/** Numbers that the attacker guesses: all over the space, the same in every run. */
function guesses(count: number): number[] {
  return Array.from({ length: count }, (_, number) => Math.imul(number + 1, 0x9e37_79b1) >>> 0)
}

const NOTHING = Buffer.alloc(0)
const GARBAGE = Buffer.from('SYNG\x01\x01\x00\x30 no frame of anybody, and not forty-eight', 'latin1')

/** Packets towards both ends of the client's connection from `port`, as if the other end had sent them. */
function forgeries(flags: number, port: number, payload: Buffer): Buffer[] {
  const toServer = { from: client.address, fromPort: port, to: server.address, toPort: PORT }
  const toClient = { from: server.address, fromPort: PORT, to: client.address, toPort: port }
  return guesses(300).flatMap((sequence) =>
    [toServer, toClient].map((tuple) =>
      forge({ ...tuple, flags, sequence, acknowledgement: Math.imul(sequence, 7), payload }),
    ),
  )
}

const KINDS: readonly [string, number, Buffer][] = [
  ['SYNs', SYN, NOTHING],
  ['SYNs with a broken frame', SYN, GARBAGE],
  ['SYNs with data', SYN, Buffer.from('GET / HTTP/1.0\r\n\r\n')],
  ['ACKs', ACK, NOTHING],
  ['ACKs with data', ACK, Buffer.from('forged')],
  ['FINs', FIN | ACK, NOTHING],
  ['resets', RST, NOTHING],
  ['resets that acknowledge', RST | ACK, NOTHING],
  ['SYN-ACKs', SYN_ACK, NOTHING],
  ['SYN-ACKs with a broken frame', SYN_ACK, GARBAGE],
]

const say = (name: string, text: string) => client.ask({ do: 'say', name, text })

describe('a released connection lives on, and carries only what its ends say', () => {
  it.each(KINDS)('through %s', async (what, flags, payload) => {
    const from = 41_000 + KINDS.findIndex(([name]) => name === what)
    expect(await client.ask({ do: 'open', name: what, address: server.address, port: PORT, from })).toEqual({
      opened: true,
    })
    expect(await say(what, 'before')).toEqual({ echoed: 'before' })
    await server.ask({ do: 'heard', from })
    await mallory.send(forgeries(flags, from, payload))
    await pause(300)
    expect(await say(what, 'after')).toEqual({ echoed: 'after' })
    expect(await server.ask({ do: 'heard', from })).toEqual({ accepted: 0, text: 'after' })
    await client.ask({ do: 'end', name: what })
  })

  it('through a reset in every window of the sequence space, also after conntrack forgot it', async () => {
    const from = 41_500
    await client.ask({ do: 'open', name: 'swept', address: server.address, port: PORT, from })
    expect(await say('swept', 'before')).toEqual({ echoed: 'before' })
    const tuple = { from: client.address, fromPort: from, to: server.address, toPort: PORT }
    await mallory.sweep(forge({ ...tuple, flags: RST }), 32_771)
    expect(await say('swept', 'after')).toEqual({ echoed: 'after' })
    await mallory.sweep(forge({ ...tuple, flags: RST }), 32_771)
    // conntrack keeps what it believes closed for 10 s.
    await pause(11_000)
    expect(await say('swept', 'much later')).toEqual({ echoed: 'much later' })
  }, 60_000)
})

describe('a pending connection is neither released nor ended', () => {
  it.each(KINDS)('by %s', async (what, flags, payload) => {
    const from = 42_000 + KINDS.findIndex(([name]) => name === what)
    await server.ask({ do: 'heard', from })
    // The client is released and the server waits: its proof and all behind it are lost.
    await field.path.treat({ drop: ['proof', 'ack', 'data'], from: client.address })
    await client.ask({ do: 'open', name: what, address: server.address, port: PORT, from })
    const echo = say(what, 'hello')
    await mallory.send(forgeries(flags, from, payload))
    await pause(300)
    expect(await server.ask({ do: 'heard', from })).toEqual({ accepted: 0, text: '' })
    await field.path.letPass()
    expect(await echo).toEqual({ echoed: 'hello' })
    expect(await server.ask({ do: 'heard', from })).toEqual({ accepted: 1, text: 'hello' })
    await client.ask({ do: 'end', name: what })
  })

  // What lives on here is up to conntrack, which learns a wrong window from a forged answer to a SYN: docs/attacks.md.
  it.each(KINDS)(
    'by %s while its client waits for the SYN-ACK: it opens nothing, and connects again',
    async (what, flags, payload) => {
      const from = 43_000 + KINDS.findIndex(([name]) => name === what)
      await server.ask({ do: 'heard', from })
      await field.path.treat({ drop: ['syn-ack'] })
      const opened = client.ask({ do: 'open', name: what, address: server.address, port: PORT, from, seconds: 1 })
      await pause(200)
      await mallory.send(forgeries(flags, from, payload))
      expect(await opened).toEqual({ error: 'timeout' })
      expect(await server.ask({ do: 'heard', from })).toEqual({ accepted: 0, text: '' })
      await client.ask({ do: 'reset', name: what })
      await field.path.letPass()
      await client.ask({ do: 'open', name: 'again', address: server.address, port: PORT, from: from + 100 })
      expect(await say('again', 'hello')).toEqual({ echoed: 'hello' })
      await client.ask({ do: 'end', name: 'again' })
    },
  )
})
