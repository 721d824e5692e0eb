/**
 * What a sidecar remembers, each pushed beyond its bound through the packet path itself (what a flood of packets fills
 * in ten seconds, the half-open ring and the held packets, is filled so in floods.test.ts): it grows no further, the
 * oldest goes first, and somebody honest still gets in.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { PodIdentity } from '../../../api/identity.ts'
import { type IdentityRow, openIdentityTable } from '../../../sidecar/control/identity-table.ts'
import { MAXIMUM_PEERS, MAXIMUM_REFUSED_WITS, MAXIMUM_SOURCES } from '../../../sidecar/datapath/bounds.ts'
import { applyMessage } from '../../../sidecar/datapath/control-messages.ts'
import type { VerifiedPeer } from '../../../sidecar/datapath/messages.ts'
import { encodeSynFrame, encodeWitSection } from '../../../sidecar/handshake/frame.ts'
import { advance, connect, establish, fromClient, judge, SYN, type TestPod, twoPods } from '../../unit/datapath/pods.ts'
import { print } from './field.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function heapMebibytes(): number {
  collect()
  return process.memoryUsage().heapUsed / (1 << 20)
}

const addressOf = (number: number) => [10, 100 + (number >>> 16), (number >>> 8) & 0xff, number & 0xff]

function sectionOf(number: number): Buffer {
  const header = Buffer.from('{"alg":"ES256"}')
  const payload = Buffer.alloc(500)
  payload.writeUInt32BE(number)
  return encodeWitSection({ header, payload, signature: Buffer.alloc(64) })
}

function synOf(server: TestPod, number: number): Buffer {
  const payload = encodeSynFrame(sectionOf(number))
  return fromClient(connect(server, server), SYN, { from: Buffer.from(addressOf(number)), payload, sequence: number })
}

function identityOf(number: number): PodIdentity {
  return {
    namespace: 'shop',
    name: `pod-${number}`,
    uid: `uid-${number}`,
    serviceAccount: 'default',
    labels: { app: 'shop', 'pod-template-hash': '7c9d8f5b6d' },
    namespaceLabels: { 'kubernetes.io/metadata.name': 'shop' },
    addresses: [addressOf(number).join('.')],
    ports: [],
  }
}

/** Runs rounds beyond the bound; the heap after the first and after the last. */
function heapOverRounds(rounds: number, run: (round: number) => void): number[] {
  return Array.from({ length: rounds }, (_, round) => {
    run(round)
    return heapMebibytes()
  })
}

describe('the table of known peers', () => {
  it('keeps its size over four times its bound, forgets the oldest, and takes a new one', async () => {
    const { client, server } = await twoPods()
    const { gate } = server
    const verified = (number: number): VerifiedPeer => ({
      index: 1 + number,
      identity: identityOf(number),
      witHash: randomBytes(32),
      cnf: { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' },
      thumbprint: `thumbprint-${number}`,
      kid: 'kid',
      issuedAt: gate.nowMilliseconds / 1000,
      expiresAt: gate.nowMilliseconds / 1000 + 3600,
    })
    const heaps = heapOverRounds(4, (round) => {
      for (let i = 0; i < MAXIMUM_PEERS; i++) {
        const number = round * MAXIMUM_PEERS + i
        const section = sectionOf(number)
        const key = `wit ${section.toString('latin1')}`
        applyMessage(gate, { type: 'verified', key, section, result: verified(number) })
      }
    })
    print('known peers: heap after 1 to 4 times the bound', heaps.map((heap) => heap.toFixed(1)).join(', '), 'MiB')
    expect(gate.peers.size()).toBe(MAXIMUM_PEERS)
    const find = (number: number) => gate.peers.findBySection(sectionOf(number), 0, sectionOf(number).length, 0)
    expect([find(3 * MAXIMUM_PEERS - 1), find(3 * MAXIMUM_PEERS)]).toEqual([undefined, expect.anything()])
    expect((await establish(connect(client, server))).release.action).toBe('release')
    expect([gate.peers.size(), find(3 * MAXIMUM_PEERS)]).toEqual([MAXIMUM_PEERS, undefined])
    expect((heaps[3] ?? 0) - (heaps[1] ?? 0)).toBeLessThan(8)
  }, 60_000)
})

describe('refused WITs and the sources that showed them', () => {
  it('keep their size over many times their bounds, and a peer never met is verified', async () => {
    const { client, server } = await twoPods()
    const { gate } = server
    const actions: Record<string, number> = {}
    const heaps = heapOverRounds(4, (round) => {
      for (let i = 0; i < 2 * MAXIMUM_SOURCES; i++) {
        const number = round * 2 * MAXIMUM_SOURCES + i
        // 200 a second: no rate is in the way, and 10 s bring twice as many as are kept.
        advance([server, client], 5)
        const { action } = judge(server, 'in', synOf(server, number))
        actions[action] = (actions[action] ?? 0) + 1
        const section = sectionOf(number)
        const key = `wit ${section.toString('latin1')}`
        applyMessage(gate, { type: 'verified', key, section, result: 'wit-invalid' })
      }
    })
    print('refused WITs: heap', heaps.map((heap) => heap.toFixed(1)).join(', '), 'MiB;', JSON.stringify(actions))
    expect(actions).toEqual({ hold: 8 * MAXIMUM_SOURCES })
    expect(gate.verifying.size()).toBe(0)
    const last = 8 * MAXIMUM_SOURCES - 1
    const answers = [last, last - MAXIMUM_REFUSED_WITS + 1, last - MAXIMUM_REFUSED_WITS].map(
      (number) => judge(server, 'in', synOf(server, number)).action,
    )
    expect(answers).toEqual(['refuse', 'refuse', 'hold'])
    expect((await establish(connect(client, server))).release.action).toBe('release')
    expect((heaps[3] ?? 0) - (heaps[1] ?? 0)).toBeLessThan(32)
  }, 60_000)
})

describe('the identity table', () => {
  const PEERS = 20_000
  const NOW = 1_900_000_000
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'synguard-bounds-'))
  })
  afterEach(() => rmSync(directory, { recursive: true, force: true }))
  const fail = (error: Error): never => {
    throw error
  }
  const rowOf = (number: number, issuedAt: number): Omit<IdentityRow, 'index'> => ({
    identity: identityOf(number),
    port: 0,
    kid: 'kid',
    issuedAt,
    expiresAt: issuedAt + 3_600,
  })
  const fileBytes = () => statSync(join(directory, 'identities.jsonl')).size

  it('is freed of whom nobody is connected to and whose WIT expired, and a restart finds the others', () => {
    const table = openIdentityTable(directory, fail)
    const sizes: number[] = []
    const heaps = heapOverRounds(3, (round) => {
      const now = NOW + round * 7_200
      for (let i = 0; i < PEERS; i++) table.obtain(rowOf(round * PEERS + i, now))
      table.prune(new Set([1, 2]), now)
      sizes.push(table.size())
    })
    print('identity table: rows', sizes.join(', '), 'heap', heaps.map((heap) => heap.toFixed(1)).join(', '), 'MiB')
    expect(sizes).toEqual([PEERS, PEERS + 2, PEERS + 2])
    expect(table.get(1)?.identity.name).toBe('pod-0')
    expect(table.get(3)).toBeUndefined()
    expect(openIdentityTable(directory, fail).size()).toBe(PEERS + 2)
    expect((heaps[2] ?? 0) - (heaps[0] ?? 0)).toBeLessThan(8)
  }, 60_000)

  it('takes no more of the disk for peers that renew their WITs a hundred times', () => {
    const table = openIdentityTable(directory, fail)
    const bytes: number[] = []
    for (let renewal = 0; renewal < 100; renewal++) {
      for (let i = 0; i < 200; i++) table.obtain(rowOf(i, NOW + renewal * 1_800))
      bytes.push(fileBytes())
    }
    print('identity table: bytes after 1, 50 and 100 renewals', [bytes[0], bytes[49], bytes[99]].join(', '))
    expect(table.size()).toBe(200)
    expect(Math.max(...bytes)).toBeLessThan(1 << 20)
    const reopened = openIdentityTable(directory, fail)
    expect(reopened.get(1)?.issuedAt).toBe(NOW + 99 * 1_800)
  }, 60_000)
})
