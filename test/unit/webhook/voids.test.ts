import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import type { VoidEntry } from '../../../api/identity.ts'
import {
  answerRequest,
  cleanReason,
  formatEntry,
  joinNotes,
  parseEntries,
  VOID_REQUESTS,
} from '../../../webhook/issuer/void-entries.ts'
import {
  coversRecord,
  endOfRecord,
  formatRecord,
  isBlocked,
  joinRecords,
  parseRecord,
  VOID_CAUSES,
  type VoidRecord,
} from '../../../webhook/issuer/void-record.ts'
import { createVoidList } from '../../../webhook/issuer/voids.ts'
import { VOIDS, VOIDS_SLACK } from '../../../webhook/limits.ts'

const NOW = 1_800_000_000
const time = fc.integer({ min: NOW - 10_000, max: NOW })
const record: fc.Arbitrary<VoidRecord> = fc
  .record(Object.fromEntries(VOID_CAUSES.map((cause) => [cause, time])), { requiredKeys: [] })
  .map((fields) => fields as VoidRecord)

describe('the record of a Pod', () => {
  it('merges to the same in whatever order replicas hear of it, and however often', () => {
    fc.assert(
      fc.property(record, record, record, (a, b, c) => {
        expect(joinRecords(a, joinRecords(b, c))).toEqual(joinRecords(joinRecords(c, a), b))
        expect(joinRecords(a, a)).toEqual(a)
        expect([coversRecord(joinRecords(a, b), a), coversRecord(joinRecords(a, b), b)]).toEqual([true, true])
      }),
    )
  })

  it('is read as it was written, with a note for people', () => {
    fc.assert(
      fc.property(
        record.filter((one) => Object.keys(one).length > 0),
        (one) => {
          expect(parseRecord(`${formatRecord(one)} shop/web-1`, NOW)).toEqual(one)
        },
      ),
    )
  })

  it.each([
    ['', 'it is empty'],
    ['shop/web-1', 'it is empty'],
    ['gone@2026-01-31T12:00:00Z', '"gone@2026-01-31T12:00:00Z" is none of relabelled, ended'],
    ['voided', '"voided" lacks a time'],
    ['voided@2026-13-31T12:00:00Z', '"voided@2026-13-31T12:00:00Z" lacks a time'],
    ['voided@2026-01-31', '"voided@2026-01-31" lacks a time'],
    ['voided@2126-01-31T12:00:00Z', '"voided@2126-01-31T12:00:00Z" is in the future'],
    [`voided@${'9'.repeat(500)}`, `"voided@${'9'.repeat(53)}…" lacks a time`],
  ])('says what is wrong with %j', (text, problem) => {
    expect(parseRecord(text, NOW)).toEqual(expect.stringContaining(problem))
  })

  it('blocks from a revocation to a later restoration, in whatever second both are asked for', () => {
    const revoked = answerRequest('revoke', {}, NOW)
    const restored = joinRecords(revoked, answerRequest('restore', revoked, NOW - 60))
    const again = joinRecords(restored, answerRequest('revoke', restored, NOW))
    expect([revoked, restored, again].map(isBlocked)).toEqual([true, false, true])
    expect(isBlocked(answerRequest('void', {}, NOW))).toBe(false)
  })

  it('ends with the last WIT that it concerns; one that blocks only after its Pod', () => {
    expect(endOfRecord({ relabelled: 5, voided: 7 }, 100)).toBe(107)
    expect(endOfRecord({ revoked: 5 }, 100)).toBe(Number.POSITIVE_INFINITY)
    expect(endOfRecord({ revoked: 5, ended: 9 }, 100)).toBe(109)
    expect(endOfRecord({ revoked: 5, restored: 6 }, 100)).toBe(106)
  })
})

describe('the entries of the ConfigMap', () => {
  const uid = '0b5c9d1e-0000-4000-8000-000000000001'
  const findPod = (namespace: string, name: string) => (`${namespace}/${name}` === 'shop/web.1' ? uid : undefined)
  const parse = (data: Record<string, string>) => parseEntries(data, { now: NOW, findPod })

  it('are records by uid, and what operators ask for by uid or by name', () => {
    const at = formatRecord({ ended: NOW })
    const { records, requests, invalid } = parse({ [uid]: at, 'shop.web.1': ' revoke\n' })
    expect([[...records], requests, invalid]).toEqual([
      [[uid, { ended: NOW }]],
      [{ key: 'shop.web.1', uid, request: 'revoke', note: { words: [] } }],
      [],
    ])
    expect(parse({ [uid]: 'restore' }).requests).toEqual([{ key: uid, uid, request: 'restore', note: { words: [] } }])
  })

  it('are read as they were written, with record, request, Pod and reason', () => {
    const reason = fc.string({ unit: 'binary', maxLength: 300 }).map(cleanReason)
    const request = fc.option(fc.constantFrom(...VOID_REQUESTS), { nil: undefined })
    fc.assert(
      fc.property(record, fc.subarray(['shop/web-1', 'a/b']), reason, request, (one, words, why, asked) => {
        if (Object.keys(one).length === 0 && asked === undefined) return
        const note = { words, ...(why !== '' && { reason: why }) }
        const { records, notes, requests, invalid } = parse({ [uid]: formatEntry(one, note, asked) })
        expect([invalid, notes.get(uid)]).toEqual([[], note])
        expect(records.get(uid) ?? {}).toEqual(one)
        expect(requests).toEqual(asked === undefined ? [] : [{ key: uid, uid, request: asked, note }])
      }),
    )
  })

  it('have a reason of one bounded line behind a sign of their own', () => {
    expect(parse({ 'shop.web.1': 'revoke # its key\n was\u0007 stolen#2 ' }).requests).toEqual([
      { key: 'shop.web.1', uid, request: 'revoke', note: { words: [], reason: 'its key was stolen#2' } },
    ])
    expect(cleanReason('x'.repeat(500))).toBe('x'.repeat(200))
    expect(joinNotes({ words: ['a/b'], reason: 'first' }, { words: ['a/b', 'c/d'] })).toEqual({
      words: ['a/b', 'c/d'],
      reason: 'first',
    })
    expect(joinNotes({ words: [], reason: 'first' }, { words: [], reason: 'second' }).reason).toBe('second')
  })

  it('by name hold a request alone', () => {
    const at = formatRecord({ voided: NOW })
    expect(parse({ 'shop.web.1': `revoke ${at}` }).invalid).toEqual([
      { key: 'shop.web.1', problem: 'its value is none of void, revoke, restore' },
    ])
    expect(parse({ [uid]: 'revoke voided@yesterday' }).invalid).toEqual([
      { key: uid, problem: expect.stringContaining('"voided@yesterday" lacks a time') },
    ])
  })

  it('name what says nothing, whatever it is', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.string()), (data) => {
        const { records, requests, invalid } = parse(data)
        expect(records.size + requests.length + invalid.length).toBe(Object.keys(data).length)
        for (const { problem } of invalid) expect(problem).not.toBe('')
      }),
    )
  })
})

describe('the void list', () => {
  const PRESENT = { labels: { app: 'new' }, namespaceLabels: {} }

  it('tells sidecars what grew, and nothing twice', () => {
    const list = createVoidList({ now: () => NOW, keepSeconds: 100 })
    const heard: VoidEntry[] = []
    list.subscribe((entry) => heard.push(entry))
    list.merge('a', { relabelled: NOW - 1 }, PRESENT)
    list.merge('a', { relabelled: NOW - 1 }, PRESENT)
    list.merge('a', { ended: NOW })
    list.merge('a', { voided: NOW - 5 })
    expect(heard).toEqual([
      { uid: 'a', iatBefore: NOW - 1, ...PRESENT },
      { uid: 'a', iatBefore: NOW },
    ])
    expect(list.get('a')).toEqual({ relabelled: NOW - 1, ended: NOW, voided: NOW - 5 })
  })

  it('gives no WIT to a Pod that is revoked until it is restored, and keeps that while the Pod lives', () => {
    let now = NOW
    const list = createVoidList({ now: () => now, keepSeconds: 100 })
    list.merge('a', { revoked: NOW })
    now += 10_000
    expect([list.isBlocked('a'), list.entries(), list.records().size]).toEqual([true, [], 1])
    list.merge('a', { restored: now })
    expect([list.isBlocked('a'), list.isRevoked('a', NOW), list.isRevoked('a', NOW + 1)]).toEqual([false, true, false])
  })

  it('is bounded: what is nearest to its end goes first, and nothing that an operator said', () => {
    const list = createVoidList({ now: () => NOW, keepSeconds: 100_000 })
    list.merge('operator', { voided: NOW - 90_000 })
    for (let index = 0; index <= VOIDS + VOIDS_SLACK; index++)
      list.merge(`pod-${index}`, { ended: NOW - 20_000 + index })
    const uids = new Set(list.records().keys())
    expect(uids.size).toBeLessThanOrEqual(VOIDS + VOIDS_SLACK)
    expect([uids.has('operator'), uids.has('pod-0'), uids.has(`pod-${VOIDS + VOIDS_SLACK}`)]).toEqual([
      true,
      false,
      true,
    ])
    expect(list.dropped()).toBe(VOIDS + VOIDS_SLACK + 2 - uids.size)
  })
})
