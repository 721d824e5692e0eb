import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import type { PodIdentity } from '../../../api/identity.ts'
import { DENIAL_STALE_MILLISECONDS } from '../../../sidecar/datapath/bounds.ts'
import { createDenialTable, type DenialSnapshot, type NotedDenial } from '../../../sidecar/datapath/denials.ts'

function pod(name: string): PodIdentity {
  const facts = { labels: {}, namespaceLabels: {}, addresses: ['10.244.0.9'], ports: [] }
  return { namespace: 'shop', name, uid: `uid-${name}`, serviceAccount: 'default', ...facts }
}

/** A denial of a Pod, or of an address where the name is one. */
function denial(peer: string, port = 80, more: Partial<NotedDenial> = {}): NotedDenial {
  const isAddress = /[.:]/.test(peer)
  return {
    direction: 'ingress',
    refusal: 'policy',
    enforced: false,
    protocol: 'TCP',
    port,
    address: isAddress ? peer : '10.244.0.9',
    pod: isAddress ? undefined : pod(peer),
    identified: !isAddress,
    policies: ['shop/nobody'],
    ...more,
  }
}

const peerOf = ({ pod, address }: { pod: PodIdentity | undefined; address: string }) => pod?.name ?? address
const listed = ({ rows }: DenialSnapshot) => rows.map((row) => `${peerOf(row)}:${row.port} ${row.count}`)
const sumOf = ({ rows, unlisted }: DenialSnapshot) => rows.reduce((sum, { count }) => sum + count, unlisted)

describe('the table of denials', () => {
  it('has one row for each peer, port, protocol, direction, reason and mode, with its count and times', () => {
    const table = createDenialTable(10, 10)
    table.note(denial('web'), 1_000)
    table.note(denial('web', 80, { policies: ['shop/other'] }), 5_000)
    table.note(denial('web', 81), 6_000)
    table.note(denial('web', 80, { enforced: true }), 7_000)
    table.note(denial('web', 80, { direction: 'egress' }), 8_000)
    table.note(denial('web', 80, { protocol: 'UDP' }), 9_000)
    table.note(denial('web', 80, { refusal: 'no-wit' }), 10_000)
    const { rows, unlisted } = table.snapshot()
    expect(unlisted).toBe(0)
    expect(rows.map(({ count, firstAt, lastAt, policies }) => [count, firstAt, lastAt, policies[0]])).toEqual([
      [2, 1_000, 5_000, 'shop/other'],
      ...[6_000, 7_000, 8_000, 9_000, 10_000].map((at) => [1, at, at, 'shop/nobody']),
    ])
  })

  it('makes room by a row of whoever has most, the one that came longest ago', () => {
    const table = createDenialTable(4, 1)
    table.note(denial('web'), 0)
    for (const [at, port] of [1, 2, 3].entries()) table.note(denial('scanner', port), at + 1)
    table.note(denial('scanner', 1), 5_000)
    table.note(denial('db'), 5_001)
    expect(listed(table.snapshot())).toEqual(['web:80 1', 'scanner:3 1', 'scanner:1 2', 'db:80 1'])
    expect(table.snapshot().unlisted).toBe(1)
  })

  it('counts whoever has most, and those for whom nobody has two more, without a row', () => {
    const table = createDenialTable(3, 1)
    for (const port of [1, 2, 3, 4, 5]) table.note(denial('scanner', port), port)
    expect(listed(table.snapshot())).toEqual(['scanner:1 1', 'scanner:2 1', 'scanner:3 1'])
    table.note(denial('web', 1), 6)
    table.note(denial('web', 2), 7)
    expect(listed(table.snapshot())).toEqual(['scanner:2 1', 'scanner:3 1', 'web:1 1'])
    expect(sumOf(table.snapshot())).toBe(7)
  })

  it('gives the place of a row that nothing came to for an hour to whoever comes', () => {
    const table = createDenialTable(2, 1)
    table.note(denial('old'), 0)
    table.note(denial('busy'), 0)
    table.note(denial('busy'), DENIAL_STALE_MILLISECONDS)
    table.note(denial('new'), DENIAL_STALE_MILLISECONDS - 1)
    expect(listed(table.snapshot())).toEqual(['old:80 1', 'busy:80 2'])
    table.note(denial('new'), DENIAL_STALE_MILLISECONDS)
    expect(listed(table.snapshot())).toEqual(['busy:80 2', 'new:80 1'])
  })

  it('lets no address take the place of a Pod, and makes addresses of one network share', () => {
    const table = createDenialTable(2, 4)
    table.note(denial('web'), 0)
    table.note(denial('db'), 0)
    table.note(denial('203.0.113.7'), 1)
    for (let i = 0; i < 100; i++) table.note(denial(`198.51.${i}.1`), 2)
    table.note(denial('2001:db8:1::7'), 3)
    expect(listed(table.snapshot())).toEqual([
      'web:80 1',
      'db:80 1',
      '203.0.113.7:80 1',
      '198.51.1.1:80 1',
      '198.51.2.1:80 1',
      '2001:db8:1::7:80 1',
    ])
    expect(sumOf(table.snapshot())).toBe(104)
  })

  it('forgets no denial, and stays within its bound', () => {
    const noted = fc.record({ peer: fc.integer({ min: 0, max: 30 }), port: fc.integer({ min: 1, max: 30 }) })
    fc.assert(
      fc.property(fc.array(noted, { maxLength: 400, size: 'max' }), fc.integer({ min: 1, max: 40 }), (all, maximum) => {
        const table = createDenialTable(maximum, 1)
        for (const [at, { peer, port }] of all.entries()) table.note(denial(`pod-${peer}`, port), at)
        const snapshot = table.snapshot()
        expect(snapshot.rows.length).toBeLessThanOrEqual(maximum)
        expect(sumOf(snapshot)).toBe(all.length)
      }),
    )
  })

  it('keeps of H peers the rows of each that has at most maximum / H - 1, whatever the others do', () => {
    const attack = fc.record({ peer: fc.integer({ min: 0, max: 2 }), port: fc.integer({ min: 1, max: 5_000 }) })
    fc.assert(
      fc.property(fc.array(attack, { maxLength: 600, size: 'max' }), fc.nat(600), (attacks, after) => {
        const [peers, maximum] = [4, 40]
        const table = createDenialTable(maximum, 1)
        const honest = Array.from({ length: maximum / peers - 1 }, (_, port) => `honest:${port + 1}`)
        const noteHonest = () => {
          for (const row of honest) table.note(denial('honest', Number(row.split(':')[1])), 0)
        }
        if (attacks.length <= after) noteHonest()
        for (const [at, { peer, port }] of attacks.entries()) {
          if (at === after) noteHonest()
          table.note(denial(`attacker-${peer}`, port), at)
        }
        expect(listed(table.snapshot())).toEqual(expect.arrayContaining(honest.map((row) => `${row} 1`)))
      }),
    )
  })
})
