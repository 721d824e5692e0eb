import { describe, expect, it } from '@jest/globals'
import { ROTATION_KEYS_MAX } from '../../../../certs/limits.ts'
import { EMPTY_KEYRING, PHASES, phaseOf } from '../../../../certs/rotation/keyring.ts'
import { advance, TRANSITIONS } from '../../../../certs/rotation/transitions.ts'
import {
  activate,
  bootstrap,
  confirm,
  type Event,
  fresh,
  NOW,
  openFacts,
  play,
  RINGS,
  type Ring,
  remove,
  rotate,
  TIMING,
} from './fixtures.ts'

/** Everything is 1 s apart from NOW on, so this is after each keyring of RINGS, and before anything has ended. */
const LATER = NOW + 100
/** When the key that was confirmed as previous at NOW + 4 may go. */
const END = NOW + 4 + 3_600 + 3 * 120

const EVENTS: readonly Event[] = [
  { type: 'bootstrap', fresh: fresh('x') },
  { type: 'rotate', fresh: fresh('x'), request: 'r2' },
  { type: 'compromised', fresh: fresh('x'), request: 'r2' },
  { type: 'force', request: 'r2' },
  { type: 'abort', request: 'r2' },
  { type: 'dismiss', request: 'r2' },
  { type: 'lifetime', seconds: 7_200 },
  { type: 'restore', above: LATER + 1_000 },
  confirm,
  activate,
  remove,
]

/** `keys [writes]`, each key as `id:state`, with ! confirmed, * compromised, ^ forced, ~ aborted; or the refusal's code. */
function outcome(ring: Ring, event: Event, facts = openFacts(LATER)): string {
  const result = advance(ring, event, facts)
  if ('refused' in result) return result.refused
  return `${show(result.ring)} [${result.writes.join(' ')}]`
}

function show({ keys }: Ring): string {
  const mark = (on: unknown, sign: string) => (on ? sign : '')
  return keys
    .map(({ id, state, confirmed, compromised, forced, aborted }) => {
      const marks = mark(confirmed, '!') + mark(compromised, '*') + mark(forced, '^') + mark(aborted, '~')
      return `${id}:${state}${marks}`
    })
    .join(' ')
}

describe('every event in every phase', () => {
  const [none, has, run, idle, order] = [
    'rotation-no-keys',
    'rotation-has-keys',
    'rotation-running',
    'rotation-not-running',
    'rotation-order',
  ]
  const expected: Readonly<Record<Event['type'], readonly string[]>> = {
    // In the order of PHASES: none, idle, prepared, offered, switched, draining.
    bootstrap: ['rotation-keys-lost', has, has, has, has, has],
    rotate: [none, 'a:active x:prepared [secret bundle status]', run, run, run, run],
    compromised: [
      none,
      'a:active* x:prepared [secret bundle status]',
      'a:active* x:prepared [secret bundle status]',
      'a:active* x:prepared [secret bundle status]',
      'a:previous* b:active* x:prepared [secret bundle status]',
      'a:previous* b:active* x:prepared [secret bundle status]',
    ],
    force: [
      none,
      idle,
      'a:active b:prepared^ [secret status]',
      'a:active b:prepared!^ [secret status]',
      'rotation-not-forcible',
      'rotation-not-forcible',
    ],
    abort: [
      none,
      idle,
      'a:active [secret bundle status]',
      'a:active [secret bundle status]',
      'a:active b:previous~ [secret signer status]',
      'a:active b:previous~ [secret signer status]',
    ],
    dismiss: [
      none,
      'a:active [secret status]',
      'a:active b:prepared [secret status]',
      'a:active b:prepared! [secret status]',
      'a:previous b:active [secret status]',
      'a:previous! b:active [secret status]',
    ],
    restore: [
      none,
      'a:active [secret status]',
      'a:active b:prepared [secret status]',
      'a:active b:prepared [secret status]',
      'a:previous b:active [secret status]',
      'a:previous b:active [secret status]',
    ],
    lifetime: [
      none,
      'a:active [secret status]',
      'a:active b:prepared [secret status]',
      'a:active b:prepared! [secret status]',
      'a:previous b:active [secret status]',
      'a:previous! b:active [secret status]',
    ],
    confirm: [
      order,
      order,
      'a:active b:prepared! [secret status]',
      order,
      'a:previous! b:active [secret status]',
      order,
    ],
    activate: [order, order, order, 'a:previous b:active [secret signer status]', order, order],
    remove: [order, order, order, order, order, 'rotation-waits-time'],
  }

  it('has a row, and each phase a keyring', () => {
    expect(Object.keys(TRANSITIONS)).toEqual(EVENTS.map(({ type }) => type))
    expect(PHASES.map((phase) => phaseOf(RINGS[phase]))).toEqual(PHASES)
  })

  it.each(EVENTS)('is taken or refused as the table says: $type', (event) => {
    expect(PHASES.map((phase) => outcome(RINGS[phase], event))).toEqual(expected[event.type])
  })

  it.each(EVENTS)('leaves the keyring that it was given as it was: $type', (event) => {
    const before = JSON.stringify(RINGS)
    for (const phase of PHASES) advance(RINGS[phase], event, openFacts(LATER))
    expect(JSON.stringify(RINGS)).toBe(before)
  })
})

describe('the first key', () => {
  it('is made where no replica that may act has keys that the Secret lost', () => {
    const replicas = [
      { name: 'starting', generation: 0, silentSeconds: 0 },
      { name: 'dead', generation: NOW, silentSeconds: 60 },
    ]
    expect(outcome(RINGS.none, bootstrap, openFacts(LATER, { replicas }))).toBe(
      'a:active [secret bundle signer status]',
    )
    const acting = [...replicas, { name: 'acting', generation: 1, silentSeconds: 59 }]
    expect(advance(RINGS.none, bootstrap, openFacts(LATER, { replicas: acting }))).toMatchObject({
      refused: 'rotation-keys-lost',
      names: ['acting'],
    })
  })
})

describe('a rotation', () => {
  it('ends with the new key alone, and with the request noted', () => {
    const result = advance(RINGS.draining, remove, openFacts(END))
    const since = NOW + 3
    expect(result).toEqual({
      ring: {
        generation: END,
        request: 'r1',
        keys: [{ ...fresh('b'), state: 'active', generation: since, since }],
      },
      writes: ['secret', 'bundle', 'status'],
    })
  })

  it('stamps what it writes with a generation that is no less than the time, and grows with a clock that is behind', () => {
    const early = advance(RINGS.idle, rotate, openFacts(NOW - 5_000))
    const late = advance(RINGS.idle, rotate, openFacts(NOW + 5_000))
    expect([early, late].map((result) => 'ring' in result && result.ring.generation)).toEqual([NOW + 1, NOW + 5_000])
  })

  it('takes a request once, whatever comes of it', () => {
    expect(outcome(RINGS.prepared, rotate)).toBe('a:active b:prepared []')
    const done = play(RINGS.draining, [remove], END)
    expect(advance(done, rotate, openFacts(END + 10))).toEqual({ ring: done, writes: [] })
    const dismissed = play(done, [{ type: 'dismiss', request: 'r9' }], END)
    expect(outcome(dismissed, { type: 'abort', request: 'r9' })).toBe('b:active []')
  })

  it('by schedule leaves the request of an operator noted', () => {
    const ring = play(play(RINGS.draining, [remove], END), [{ type: 'rotate', fresh: fresh('c') }], END + 1)
    expect([show(ring), ring.request]).toEqual(['b:active c:prepared', 'r1'])
  })

  it('that is aborted before the new key signs ends at once; after that, once what it signed has ended', () => {
    const aborted = play(RINGS.switched, [{ type: 'abort', request: 'r2' }, confirm], NOW + 10)
    expect(show(aborted)).toBe('a:active b:previous!~')
    expect(outcome(aborted, remove, openFacts(NOW + 11 + 3_600 + 360 - 1))).toBe('rotation-waits-time')
    expect(outcome(aborted, remove, openFacts(NOW + 11 + 3_600 + 360))).toBe('a:active [secret bundle status]')
    expect(outcome(aborted, { type: 'abort', request: 'r3' })).toBe('rotation-no-way-back')
  })

  it('refuses a key that it has, and more keys than sidecars are promised', () => {
    expect(outcome(RINGS.idle, { ...rotate, fresh: fresh('a') } as Event)).toBe('rotation-known-key')
    let ring: Ring = RINGS.idle
    let count = 0
    const again = (): Event => ({ type: 'compromised', fresh: fresh(`k${count}`), request: `k${count++}` })
    while (ring.keys.length < ROTATION_KEYS_MAX) ring = play(ring, [again(), confirm, activate], NOW + count * 10)
    expect(outcome(ring, again())).toBe('rotation-too-many-keys')
  })

  it('records a longer life of identities, and never a shorter one', () => {
    const longer = play(RINGS.idle, [{ type: 'lifetime', seconds: 7_200 }], LATER)
    expect(longer.keys.map(({ lifetimeSeconds }) => lifetimeSeconds)).toEqual([7_200])
    expect(advance(longer, { type: 'lifetime', seconds: 3_600 }, openFacts(LATER + 1))).toEqual({
      ring: longer,
      writes: [],
    })
  })
})

describe('what a step waits for', () => {
  const slow = { name: 'slow', generation: 0, silentSeconds: 59 }
  const quick = { name: 'quick', generation: LATER, silentSeconds: 0 }
  const facts = (differences: Parameters<typeof openFacts>[1], now = LATER) => openFacts(now, differences)

  it.each(['prepared', 'switched'] as const)('is every replica that may act: %s', (phase) => {
    const ring = RINGS[phase]
    const taken = expect.objectContaining({ writes: ['secret', 'status'] })
    const refused = (names: string[]) => expect.objectContaining({ refused: 'rotation-waits-replicas', names })
    expect(advance(ring, confirm, facts({ replicas: [quick, slow] }))).toEqual(refused(['slow']))
    expect(advance(ring, confirm, facts({ replicas: [quick, { ...slow, generation: ring.generation - 1 }] }))).toEqual(
      refused(['slow']),
    )
    expect(advance(ring, confirm, facts({ replicas: [quick, { ...slow, generation: ring.generation }] }))).toEqual(
      taken,
    )
    expect(advance(ring, confirm, facts({ replicas: [quick, { ...slow, silentSeconds: 60 }] }))).toEqual(taken)
    // Who steps publishes too: none at all says that the records are lost.
    expect(advance(ring, confirm, facts({ replicas: [] }))).toEqual(refused([]))
    expect(advance(ring, confirm, facts({ replicas: [{ ...slow, silentSeconds: 60 }] }))).toEqual(refused([]))
  })

  it('is caBundle and the ConfigMaps', () => {
    expect(outcome(RINGS.prepared, confirm, facts({ published: false }))).toBe('rotation-waits-trust')
  })

  it('is each sidecar, by name, until its identity must have ended', () => {
    const confirmedAt = NOW + 2
    const until = confirmedAt + 3_600 + 3 * 120
    const expected = ['pod-1', 'pod-2', 'pod-3', 'pod-4']
    const acknowledged = new Map([
      ['pod-1', confirmedAt],
      ['pod-2', confirmedAt - 1],
      ['pod-4', confirmedAt + 7],
      ['gone', 1],
    ])
    const refusal = expect.objectContaining({ refused: 'rotation-waits-sidecars', names: ['pod-2', 'pod-3'], until })
    expect(advance(RINGS.offered, activate, facts({ expected, acknowledged }, until - 1))).toEqual(refusal)
    const switched = 'a:previous b:active [secret signer status]'
    expect(outcome(RINGS.offered, activate, facts({ expected, acknowledged }, until))).toBe(switched)
    expect(outcome(RINGS.offered, activate, facts({ expected: ['pod-1', 'pod-4'], acknowledged }))).toBe(switched)
  })

  it('is, of sidecars, as long as the longest life that any key or the setting allows', () => {
    const ring = play(EMPTY_KEYRING, [{ ...bootstrap, fresh: fresh('a', 9_000) } as Event, rotate, confirm])
    const now = NOW + 2 + 3_600 + 360
    expect(outcome(ring, activate, facts({ expected: ['p'] }, now))).toBe('rotation-waits-sidecars')
    const timing = { ...TIMING, witLifetimeSeconds: 9_000 }
    expect(outcome(RINGS.offered, activate, facts({ expected: ['p'], timing }, now))).toBe('rotation-waits-sidecars')
  })

  it('is no sidecar where an operator forces it, at the start or later', () => {
    const switched = 'a:previous b:active [secret signer status]'
    const forced = play(RINGS.offered, [{ type: 'force', request: 'r2' }])
    const atOnce = play(RINGS.idle, [{ ...rotate, force: true } as Event, confirm])
    for (const ring of [forced, atOnce]) expect(outcome(ring, activate, facts({ expected: ['p'] }))).toBe(switched)
  })
})

describe('an emergency', () => {
  const emergency: Event = { type: 'compromised', fresh: fresh('x'), request: 'r2' }
  const facts = (now: number, acknowledged: [string, number][] = []) =>
    openFacts(now, { expected: ['p'], acknowledged: new Map(acknowledged) })

  it('waits for replicas, not for sidecars, and makes these fetch identities at once', () => {
    const ring = play(RINGS.idle, [emergency], LATER)
    const behind = openFacts(LATER + 1, { replicas: [{ name: 'one', generation: LATER - 1, silentSeconds: 0 }] })
    expect(outcome(ring, confirm, behind)).toBe('rotation-waits-replicas')
    expect(outcome(play(ring, [confirm], LATER + 1), activate, facts(LATER + 2))).toBe(
      'a:previous* x:active [secret signer reissue status]',
    )
  })

  it('ends the old key once every sidecar has its identity, or its time is over, or an operator wants it', () => {
    const ring = play(RINGS.idle, [emergency, confirm, activate, confirm], LATER)
    const confirmedAt = LATER + 3
    const ended = 'x:active [secret bundle status]'
    expect(outcome(ring, remove, facts(confirmedAt + 59))).toBe('rotation-waits-sidecars')
    expect(outcome(ring, remove, facts(confirmedAt + 1, [['p', confirmedAt - 1]]))).toBe('rotation-waits-sidecars')
    expect(outcome(ring, remove, facts(confirmedAt + 1, [['p', confirmedAt]]))).toBe(ended)
    expect(outcome(ring, remove, facts(confirmedAt + 60))).toBe(ended)
    const forced = play(ring, [{ type: 'force', request: 'r3' }], LATER + 5)
    expect(outcome(forced, remove, facts(LATER + 6))).toBe(ended)
  })

  it('can be aborted before its key signs, but not after', () => {
    const abort: Event = { type: 'abort', request: 'r3' }
    expect(outcome(play(RINGS.idle, [emergency, confirm], LATER), abort)).toBe('a:active [secret bundle status]')
    expect(outcome(play(RINGS.idle, [emergency, confirm, activate], LATER), abort)).toBe('rotation-no-way-back')
  })

  it('in the midst of another rotation ends all its keys; the previous one may go first', () => {
    const ring = play(RINGS.draining, [emergency, confirm], LATER)
    expect(show(ring)).toBe('a:previous!* b:active* x:prepared!')
    expect(outcome(ring, remove, facts(LATER + 2))).toBe('rotation-waits-sidecars')
    expect(outcome(ring, remove, facts(LATER + 61))).toBe('b:active* x:prepared! [secret bundle status]')
    expect(outcome(ring, { type: 'abort', request: 'r3' })).toBe('a:previous!* b:active [secret bundle status]')
  })
})

describe('a Secret that was put back to an earlier state', () => {
  it('is written above what was acted by, so that sidecars take it; once', () => {
    const restored = play(RINGS.draining, [{ type: 'restore', above: LATER + 1_000 }], LATER)
    expect(restored.generation).toBe(LATER + 1_001)
    expect(restored.keys.map(({ generation, since }) => [generation, since])).toEqual([
      [LATER + 1_001, LATER],
      [RINGS.draining.keys[1]?.generation, RINGS.draining.keys[1]?.since],
    ])
    expect(advance(restored, { type: 'restore', above: LATER + 1_001 }, openFacts(LATER + 5))).toEqual({
      ring: restored,
      writes: [],
    })
  })
})
