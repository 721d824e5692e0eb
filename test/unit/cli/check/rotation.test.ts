import { describe, expect, it } from '@jest/globals'
import { seen, unseen } from '../../../../cli/check/facts.ts'
import { ABSENT, AT, findings, lines, rotation } from './facts.ts'

const NOW = AT / 1_000
const DAY = 86_400
const LOGS = 'kubectl -n synguard logs deployment/synguard-webhook'
const FINE = 'ok serving: one key, 10 days old'

/** The lines about the identity key, the other one being as it should be. */
function identity(...change: Parameters<typeof rotation>): string[] {
  const found = lines('key-rotation', {
    installation: { rotation: seen({ identity: rotation(...change), serving: rotation() }) },
  })
  expect(found.at(-1)).toBe(FINE)
  return found.slice(0, -1)
}

describe('key-rotation', () => {
  it('is fine with one key of each kind, and with a rotation that waits no longer than it should', () => {
    expect(lines('key-rotation')).toEqual(['ok identity: one key, 10 days old', FINE])
    const waits = [
      { code: 'rotation-waits-sidecars', message: 'They are named.', names: ['shop/web-1'], count: 1, until: NOW + 60 },
    ]
    const keys = [
      { id: 'kid-a', state: 'active', since: NOW - DAY },
      { id: 'kid-b', state: 'prepared', since: NOW - 3_000 },
    ] as const
    expect(
      identity({ phase: 'offered', waits, keys, sidecars: { expected: 3, acknowledged: 2, missing: [] } }),
    ).toEqual(['ok identity: a rotation is under way (offered), 2 of 3 sidecars'])
  })

  it('tells of a step that waits for longer than it should, with whom for and what to do', () => {
    const wait = { code: 'rotation-waits-sidecars', message: 'They are named.', names: ['shop/web-1'], count: 1 }
    expect(identity({ phase: 'offered', waits: [{ ...wait, until: NOW - 601 }] })).toEqual([
      'fix identity: They are named. shop/web-1 [rotation-waits-sidecars], for longer than it should',
    ])
    const keys = (ago: number) => [{ id: 'kid-a', state: 'active', since: NOW - ago }] as const
    const waits = [{ code: 'rotation-waits-replicas', message: 'A replica lags.', names: ['webhook-1'], count: 1 }]
    expect(identity({ phase: 'prepared', waits, keys: keys(601) })[0]).toMatch(
      /^fix identity: A replica lags. webhook-1/,
    )
    expect(identity({ phase: 'prepared', waits, keys: keys(599) })[0]).toMatch(/^ok/)
    const lost = { code: 'rotation-keys-lost', message: 'The Secret lost them.' }
    expect(identity({ phase: 'none', waits: [lost], keys: [] })).toEqual([
      'fix identity: The Secret lost them. [rotation-keys-lost]',
    ])
  })

  it('tells of conditions, of a status that nobody writes, and of one that is not there', () => {
    const conditions = [{ code: 'rotation-request', message: 'identity: is no text.' }]
    const views = { identity: rotation({ conditions }), serving: rotation({ at: NOW - 301 }) }
    const found = findings({ installation: { rotation: seen(views) } }).filter(({ check }) => check === 'key-rotation')
    expect(found.map(({ status, message, fix }) => [status, message, fix])).toEqual([
      ['fix', 'identity: is no text. [rotation-request]', 'write it anew: synguard certs rotate identity'],
      ['fix', 'serving: no replica of the webhook has written this status since 2026-11-24T11:54:59Z', LOGS],
    ])
    const missing = { identity: { problems: ['synguard/x, identity: is missing.'] }, serving: rotation() }
    expect(lines('key-rotation', { installation: { rotation: seen(missing) } })).toEqual([
      'fix synguard/x, identity: is missing.',
      FINE,
    ])
  })

  it('notes requests that were refused or not answered', () => {
    const answered = { request: 'monday', outcome: 'refused', code: 'rotation-running', message: 'It runs.' } as const
    expect(identity({ answered }, { request: { id: 'tuesday', type: 'abort' } })).toEqual([
      'note identity: the request tuesday is not answered yet',
      'note identity: the last request was refused: monday: refused: It runs. [rotation-running]',
    ])
  })

  it('tells of a schedule that is not kept, and notes a key that is old without one', () => {
    expect(identity({ scheduledAt: NOW - 601 })).toEqual([
      'fix identity: a rotation was due by schedule and has not begun',
    ])
    const keys = [{ id: 'kid-a', state: 'active', since: NOW - 366 * DAY }] as const
    expect(identity({ keys })).toEqual(['note identity: the active key is 366 days old, and no schedule rotates it'])
    expect(identity({ keys, scheduledAt: NOW + 60 })).toEqual(['ok identity: one key, 366 days old'])
  })

  it('says where it could not look, and nothing before an installation', () => {
    const blind = unseen('you may not get configmaps in the namespace synguard')
    expect(lines('key-rotation', { installation: { rotation: blind } })).toEqual([
      'unseen the rotation of keys could not be seen: you may not get configmaps in the namespace synguard',
    ])
    expect(lines('key-rotation', { installation: ABSENT })).toEqual([])
  })
})
