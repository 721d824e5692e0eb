import { describe, expect, it } from '@jest/globals'
import type { VoidEntry } from '../../../api/identity.ts'
import { refusalOf } from '../../../webhook/errors.ts'
import { createReplayCache } from '../../../webhook/issuer/replay.ts'
import { createVoidList } from '../../../webhook/issuer/voids.ts'

function codeOf(call: () => void): string {
  try {
    call()
    return 'ok'
  } catch (error) {
    return refusalOf(error).code
  }
}

describe('the replay cache', () => {
  it('knows a proof for as long as it could be used, and forgets it then', () => {
    let now = 1_000
    const cache = createReplayCache({ now: () => now })
    const codes = [codeOf(() => cache.use('pod', 'a')), codeOf(() => cache.use('pod', 'a'))]
    now += 240
    codes.push(codeOf(() => cache.use('pod', 'a')))
    now += 1
    codes.push(codeOf(() => cache.use('pod', 'a')))
    expect(codes).toEqual(['ok', 'proof-replayed', 'proof-replayed', 'ok'])
  })

  it('refuses when it is full, for one Pod or in all, until there is room again', () => {
    let now = 1_000
    const cache = createReplayCache({ now: () => now, perPod: 2, total: 3 })
    const use = (uid: string, jti: string) => codeOf(() => cache.use(uid, jti))
    const codes = [use('a', '1'), use('a', '2'), use('a', '3'), use('b', '1'), use('c', '1')]
    now += 241
    codes.push(use('c', '1'))
    expect(codes).toEqual(['ok', 'ok', 'busy', 'ok', 'busy', 'ok'])
  })
})

describe('the void list', () => {
  const revoked: VoidEntry = { uid: 'a', iatBefore: 1_000 }
  const overridden: VoidEntry = { uid: 'a', iatBefore: 1_001, labels: { app: 'x' }, namespaceLabels: {} }

  it('revokes WITs up to and with the second it names; an override revokes none', () => {
    const list = createVoidList({ now: () => 1_001, keepSeconds: 100 })
    list.add(revoked)
    list.add(overridden)
    expect([999, 1_000, 1_001].map((issuedAt) => list.isRevoked('a', issuedAt))).toEqual([true, true, false])
    expect([list.isRevoked('b', 0), list.issuableFrom('a'), list.issuableFrom('b')]).toEqual([false, 1_002, 0])
    expect(list.entries()).toEqual([revoked, overridden])
  })

  it('keeps the furthest entry of a Pod', () => {
    const list = createVoidList({ now: () => 1_001, keepSeconds: 100 })
    const heard: VoidEntry[] = []
    list.subscribe((entry) => heard.push(entry))
    list.add(revoked)
    list.add({ uid: 'a', iatBefore: 900 })
    expect([list.entries(), heard]).toEqual([[revoked], [revoked]])
  })

  it('forgets an entry once every WIT it concerns has expired', () => {
    let now = 1_000
    const list = createVoidList({ now: () => now, keepSeconds: 100 })
    list.add(revoked)
    now = 1_100
    const before = list.entries()
    now = 1_101
    expect([before, list.entries()]).toEqual([[revoked], []])
  })
})
