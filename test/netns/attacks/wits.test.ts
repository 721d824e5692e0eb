/** WITs that do not hold, on real SYNs from a raw socket: they open nothing, and cost no memory. */
import { createHmac, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { deflateRawSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { createSigningKey } from '../../../certs/authority.ts'
import { runCommand } from '../../../lab/command.ts'
import { encodeSynFrame, encodeWitSection } from '../../../sidecar/handshake/frame.ts'
import {
  createField,
  type Field,
  forge,
  frameType,
  type Path,
  type Peer,
  PORT,
  pause,
  SYN,
  SYN_ACK,
} from './attacker.ts'

/** SYNs of each kind, each with a WIT of its own. */
const COUNT = 2_000
const RSS_GROWTH_BYTES = 24 << 20

let field: Field
let client: Peer
let server: Peer
let mallory: Peer
let raw: Path
let nextPort = 46_000

beforeAll(async () => {
  field = await createField()
  client = await field.peer('guarded', 'client')
  server = await field.peer('guarded', 'server')
  mallory = await field.peer('plain', 'mallory')
  raw = await field.offPath(mallory.pod)
  await server.ask({ do: 'listen', port: PORT })
}, 60_000)
afterAll(async () => await field?.stop())

/** Resident bytes of the server's sidecar. */
async function sidecarBytes(): Promise<number> {
  const pids = (await runCommand('ip', ['netns', 'pids', server.pod.network.netns])).trim().split('\n')
  const statuses = pids.map((pid) => readFileSync(`/proc/${pid}/status`, 'utf8'))
  const kilobytes = statuses
    .filter((status) => /^Uid:\t15900\t/m.test(status))
    .map((status) => Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0))
  return Math.max(0, ...kilobytes) * 1024
}

const stranger = createSigningKey()
const HEADER = { alg: 'ES256', kid: stranger.kid, typ: 'wit+jwt', zip: 'DEF' }
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url')

type Signer = (input: Buffer) => Buffer
const byStranger: Signer = (input) => sign('sha256', input, { key: stranger.privateKey, dsaEncoding: 'ieee-p1363' })
const byHmac: Signer = (input) => createHmac('sha256', JSON.stringify(stranger.publicJwk)).update(input).digest()

function section(header: object, payload: Buffer, signer: Signer): Buffer {
  const bytes = Buffer.from(JSON.stringify(header))
  return encodeWitSection({
    header: bytes,
    payload,
    signature: signer(Buffer.from(`${base64(bytes)}.${base64(payload)}`)),
  })
}

/** A payload that differs with the number. */
const claims = (number: number) =>
  deflateRawSync(JSON.stringify({ iss: 'https://issuer', jti: `never-seen-${number}` }))

const KINDS: readonly [string, (number: number) => Buffer][] = [
  ['of an unknown key', (number) => section(HEADER, claims(number), byStranger)],
  ['with alg none', (number) => section({ ...HEADER, alg: 'none' }, claims(number), () => Buffer.alloc(0))],
  ['with alg HS256', (number) => section({ ...HEADER, alg: 'HS256' }, claims(number), byHmac)],
  [
    'of 10,000 labels',
    (number) =>
      section(HEADER, deflateRawSync(`{"n":${number},"labels":{${'"a":"b",'.repeat(10_000)}"z":""}}`), byStranger),
  ],
  [
    'that inflate a thousandfold',
    (number) => section(HEADER, deflateRawSync(Buffer.alloc(900_000 + number)), byStranger),
  ],
  ['whose lengths are wrong', (number) => Buffer.concat([section(HEADER, claims(number), byStranger), Buffer.of(0)])],
]

const tuple = () => ({ from: mallory.address, to: server.address, toPort: PORT })

async function expectHonestClientConnects(name: string): Promise<void> {
  const from = nextPort++
  expect(await client.ask({ do: 'open', name, address: server.address, port: PORT, from })).toEqual({ opened: true })
  expect(await client.ask({ do: 'say', name, text: 'hello' })).toEqual({ echoed: 'hello' })
  expect(await server.ask({ do: 'heard', from })).toEqual({ accepted: 1, text: 'hello' })
}

describe('SYNs with WITs', () => {
  it.each(KINDS)(
    `%s, ${COUNT} different ones: none is answered, memory stays flat, and a client connects meanwhile`,
    async (what, make) => {
      await field.path.seen()
      const before = await sidecarBytes()
      for (let sent = 0; sent < COUNT; sent += 200) {
        await raw.send(
          Array.from({ length: 200 }, (_, index) =>
            forge({
              ...tuple(),
              fromPort: 10_000 + sent + index,
              flags: SYN,
              sequence: 7,
              payload: encodeSynFrame(make(sent + index)),
            }),
          ),
        )
        await pause(50)
      }
      await expectHonestClientConnects(what)
      const answered = (await field.path.seen()).filter(
        (packet) => packet.flags === SYN_ACK && packet.bytes.subarray(16, 20).join('.') === mallory.address,
      )
      expect(answered).toEqual([])
      expect((await sidecarBytes()) - before).toBeLessThan(RSS_GROWTH_BYTES)
    },
    60_000,
  )

  it('of 60,000 bytes, in fragments: larger than a frame, and nothing of it is inflated', async () => {
    const before = await sidecarBytes()
    const payload = encodeSynFrame(section(HEADER, deflateRawSync(Buffer.alloc(58_000_000)), byStranger))
    for (let number = 0; number < 20; number++) {
      await raw.send(fragments(forge({ ...tuple(), fromPort: 20_000 + number, flags: SYN, payload }), number + 1))
    }
    await pause(300)
    expect((await sidecarBytes()) - before).toBeLessThan(RSS_GROWTH_BYTES)
    await expectHonestClientConnects('in fragments')
  }, 30_000)

  it('that were declared void: neither the recorded SYN nor the Pod itself connects until it has a new one', async () => {
    const other = await field.peer('guarded', 'other')
    await field.path.seen()
    const open = (from: number) => other.ask({ do: 'open', name: 'other', address: server.address, port: PORT, from })
    expect(await open(47_000)).toEqual({ opened: true })
    const recorded = (await field.path.seen()).find((packet) => frameType(packet) === 1)
    if (!recorded) throw new Error('the path saw no SYN')
    const uid = other.pod.pod.metadata?.uid ?? ''
    await field.lab.controlPlane.revoke({ uid, iatBefore: Math.floor(Date.now() / 1000) + 1 })
    await pause(1_000)
    await field.path.seen()
    const source = { from: other.address, to: server.address, toPort: PORT }
    await field.path.send([forge({ ...source, fromPort: 47_001, flags: SYN, sequence: 9, payload: recorded.payload })])
    await pause(500)
    expect((await field.path.seen()).filter((packet) => packet.destinationPort === 47_001)).toEqual([])
    await expectHonestClientConnects('void')
  }, 60_000)
})

/** An IPv4 packet in fragments that fit an MTU of 1,500; the kernel fills in lengths and checksums. */
function fragments(packet: Buffer, identification: number): Buffer[] {
  const BYTES = 1_480
  const parts: Buffer[] = []
  for (let at = 20; at < packet.length; at += BYTES) {
    const part = Buffer.concat([packet.subarray(0, 20), packet.subarray(at, at + BYTES)])
    part.writeUInt16BE(part.length, 2)
    part.writeUInt16BE(identification, 4)
    part.writeUInt16BE(((at - 20) >>> 3) | (at + BYTES < packet.length ? 0x2000 : 0), 6)
    parts.push(part)
  }
  return parts
}
