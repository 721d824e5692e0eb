import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import {
  formatRotationRequest,
  formatRotationStatus,
  parseRotationRequest,
  ROTATION_KEY_STATES,
  ROTATION_KINDS,
  ROTATION_NAMES_MAX,
  ROTATION_OUTCOMES,
  ROTATION_PHASES,
  ROTATION_REQUESTS,
  type RotationRequest,
  type RotationStatus,
} from '../../../api/rotation.ts'
import { parseRotationStatus } from '../../../api/rotation-status.ts'
import { KEY_STATES, PHASES } from '../../../certs/rotation/keyring.ts'
import { TRANSITIONS } from '../../../certs/rotation/transitions.ts'

const problemsOf = (data: Record<string, unknown>) => parseRotationRequest('identity', data).problems

const requests: fc.Arbitrary<RotationRequest> = fc
  .record({
    id: fc.stringMatching(/^[A-Za-z0-9]([A-Za-z0-9._:-]{0,61}[A-Za-z0-9])?$/),
    type: fc.constantFrom(...ROTATION_REQUESTS),
    force: fc.boolean(),
  })
  .filter(({ id }) => !(ROTATION_REQUESTS as readonly string[]).includes(id))
  .map(({ id, type, force }) => ({ id, type, ...(type === 'rotate' && force && { force: true as const }) }))

/** The latest time that RFC 3339 can write. */
const times = fc.integer({ min: 0, max: 253_402_300_799 })
const texts = fc.string({ minLength: 1, maxLength: 60 }).filter((text) => !/\p{C}|^\s|\s$|\s\s/u.test(text))
const names = fc.array(texts, { maxLength: ROTATION_NAMES_MAX })
const flag = fc.constant(true as const)

const statuses: fc.Arbitrary<RotationStatus> = fc.record(
  {
    at: times,
    phase: fc.constantFrom(...ROTATION_PHASES),
    keys: fc.array(
      fc.record(
        {
          id: fc.stringMatching(/^[\w-]{1,64}$/),
          state: fc.constantFrom(...ROTATION_KEY_STATES),
          since: times,
          compromised: flag,
          forced: flag,
          aborted: flag,
        },
        { requiredKeys: ['id', 'state', 'since'] },
      ),
      { maxLength: 8 },
    ),
    sidecars: fc.record({ expected: fc.nat(), acknowledged: fc.nat(), missing: names }),
    waits: fc.array(
      fc
        .record(
          { code: texts, message: texts, names, more: fc.nat(100), until: times },
          { requiredKeys: ['code', 'message'] },
        )
        .map(({ more = 0, ...wait }) => ({ ...wait, ...(wait.names && { count: wait.names.length + more }) })),
      { maxLength: 3 },
    ),
    answered: fc.record(
      { request: texts, outcome: fc.constantFrom(...ROTATION_OUTCOMES), code: texts, message: texts },
      { requiredKeys: ['request', 'outcome'] },
    ),
    conditions: fc.array(
      fc.record({ code: texts, message: texts, since: times }, { requiredKeys: ['code', 'message'] }),
      { maxLength: 8 },
    ),
    scheduledAt: times,
  },
  { requiredKeys: ['at', 'phase', 'keys', 'sidecars', 'waits', 'conditions'] },
)

const SAMPLE: RotationStatus = {
  at: 1_800_000_000,
  phase: 'offered',
  keys: [
    { id: 'kid-a', state: 'active', since: 1_799_000_000 },
    { id: 'kid-b', state: 'prepared', since: 1_799_999_900, forced: true },
  ],
  sidecars: { expected: 3, acknowledged: 2, missing: ['shop/web-1'] },
  waits: [
    {
      code: 'rotation-waits-sidecars',
      message: 'Sidecars have not acknowledged the latest keys yet; they are named.',
      names: ['shop/web-1'],
      count: 1,
      until: 1_800_003_960,
    },
  ],
  answered: { request: 'monday', outcome: 'refused', code: 'rotation-running', message: 'A rotation is under way.' },
  conditions: [{ code: 'rotation-request', message: 'identity: is no text.', since: 1_800_000_000 }],
  scheduledAt: 1_802_592_000,
}

/** The entry with one field replaced, or removed where it is undefined. */
function damaged(path: readonly (string | number)[], value: unknown): Record<string, string> {
  const whole = JSON.parse(formatRotationStatus('identity', SAMPLE).identity ?? '') as Record<string, unknown>
  const last = path.at(-1) as string
  const holder = path
    .slice(0, -1)
    .reduce<Record<string, unknown>>((at, key) => at[key] as Record<string, unknown>, whole)
  holder[last] = value
  return { identity: JSON.stringify(whole) }
}

describe('a request for a rotation', () => {
  it('has the words of the events, states and phases that the rotation itself has', () => {
    expect(ROTATION_REQUESTS.filter((type) => !(type in TRANSITIONS))).toEqual([])
    expect([ROTATION_KEY_STATES, ROTATION_PHASES]).toEqual([KEY_STATES, PHASES])
  })

  it('is an event and a name', () => {
    expect(parseRotationRequest('identity', { identity: 'rotate monday', serving: 'abort x' })).toEqual({
      request: { id: 'monday', type: 'rotate' },
      problems: [],
    })
    expect(parseRotationRequest('identity', { identity: ' rotate\t2026-01-31T12:00:00Z  force\n' })).toEqual({
      request: { id: '2026-01-31T12:00:00Z', type: 'rotate', force: true },
      problems: [],
    })
  })

  it('is read as it was written', () => {
    fc.assert(
      fc.property(fc.constantFrom(...ROTATION_KINDS), requests, (kind, request) => {
        expect(parseRotationRequest(kind, { [kind]: formatRotationRequest(request) })).toEqual({
          request,
          problems: [],
        })
      }),
    )
  })

  it('is not there in a ConfigMap without data, without the entry or with an empty one', () => {
    for (const data of [undefined, {}, { serving: 'rotate x' }, { identity: '' }]) {
      expect(parseRotationRequest('identity', data)).toEqual({ problems: [] })
    }
  })

  it('says what is wrong with it by its key, and what to write', () => {
    const wanted = '"rotate NAME", "rotate NAME force", "compromised NAME", "force NAME" or "abort NAME"'
    const events = 'rotate, compromised, force, abort'
    expect(problemsOf({ identity: 'Rotate monday' })).toEqual([`identity: the event "Rotate" is none of ${events}.`])
    expect(problemsOf({ identity: ' ' })).toEqual([`identity: the event "" is none of ${events}.`])
    expect(problemsOf({ identity: 'rotate' })).toEqual([
      'identity: the request\'s name is missing; write "rotate NAME".',
    ])
    expect(problemsOf({ identity: 'rotate force' })).toEqual([
      'identity: the request\'s name is missing; write "rotate NAME".',
    ])
    expect(problemsOf({ identity: 'abort -x' })).toEqual([
      'identity: the name "-x" is not 1 to 63 letters, digits, ".", "_", ":" or "-".',
    ])
    expect(problemsOf({ identity: 'abort x force' })).toEqual([`identity: "force" is too much; write ${wanted}.`])
    expect(problemsOf({ identity: 'rotate x force now' })).toEqual([
      `identity: "force now" is too much; write ${wanted}.`,
    ])
    expect(problemsOf({ identity: 'rotate '.repeat(20) })).toEqual([
      `identity: is longer than 100 characters; write ${wanted}.`,
    ])
    expect(problemsOf({ identity: { rotate: 'x' } })).toEqual([`identity: is no text; write ${wanted}.`])
  })

  it('is taken beside an entry of no kind, which is named', () => {
    expect(parseRotationRequest('serving', { serving: 'abort x', identty: 'rotate y', 'a\u001b[2J': '' })).toEqual({
      request: { id: 'x', type: 'abort' },
      problems: ['"identty": is neither identity nor serving.', '"a\ufffd[2J": is neither identity nor serving.'],
    })
  })

  it('never throws, says no more of what it read than a line, and nothing that a terminal acts upon', () => {
    const values = fc.oneof(fc.anything(), fc.string({ unit: 'binary' }), requests.map(formatRotationRequest))
    const data = fc.oneof(
      fc.dictionary(fc.oneof(fc.constantFrom(...ROTATION_KINDS), fc.string({ unit: 'binary' })), values),
      fc.array(fc.string()).map((words) => ({ identity: ['rotate', ...words].join(' ') })),
    )
    fc.assert(
      fc.property(data, (entries) => {
        const { request, problems } = parseRotationRequest('identity', entries)
        if (request !== undefined) {
          expect(parseRotationRequest('identity', { identity: formatRotationRequest(request) }).request).toEqual(
            request,
          )
        }
        for (const problem of problems) {
          expect(problem).toMatch(/^[^\p{C}]+: [^\p{C}]+\.$/u)
          expect(problem.length).toBeLessThan(260)
        }
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('the status of a rotation', () => {
  it('is read as it was written, by people too', () => {
    const data = formatRotationStatus('identity', SAMPLE)
    expect(parseRotationStatus('identity', data)).toEqual(SAMPLE)
    expect(data).toEqual({
      identity: expect.stringContaining('\n  "at": "2027-01-15T08:00:00Z",\n  "phase": "offered",\n'),
      'identity-phase': 'offered',
      'identity-answered': 'monday',
    })
    fc.assert(
      fc.property(fc.constantFrom(...ROTATION_KINDS), statuses, (kind, status) => {
        expect(parseRotationStatus(kind, formatRotationStatus(kind, status))).toEqual(status)
      }),
    )
  })

  it('is not there before the webhook wrote it', () => {
    expect([parseRotationStatus('identity', undefined), parseRotationStatus('identity', { serving: '{}' })]).toEqual([
      undefined,
      undefined,
    ])
  })

  it('names the first of many, with their number, and cuts what is long or no text for a terminal', () => {
    const many = Array.from({ length: 300 }, (_, index) => `shop/web-${index}`)
    const [wait] = SAMPLE.waits
    if (wait === undefined) throw new Error('the sample waits for nothing')
    const { count: _, ...bare } = wait
    const status = {
      ...SAMPLE,
      sidecars: { expected: 300, acknowledged: 0, missing: many },
      waits: [{ ...bare, names: many, message: `${'x'.repeat(2_000)}` }],
      conditions: Array.from({ length: 20 }, () => ({ code: 'internal', message: 'one\ntwo \u001b[2J' })),
    }
    expect(parseRotationStatus('serving', formatRotationStatus('serving', status))).toEqual({
      ...status,
      sidecars: { ...status.sidecars, missing: many.slice(0, 20) },
      waits: [{ ...wait, names: many.slice(0, 20), count: 300, message: `${'x'.repeat(999)}…` }],
      conditions: Array.from({ length: 8 }, () => ({ code: 'internal', message: 'one two \ufffd[2J' })),
    })
  })

  it('holds nothing but its own fields, whatever it is given', () => {
    const key = { id: 'kid-a', state: 'active', since: 0, material: { privateKey: 'SECRET' } } as const
    const status = { ...SAMPLE, keys: [key], private: 'SECRET' }
    expect(JSON.stringify(formatRotationStatus('identity', status))).not.toContain('SECRET')
  })

  it('that was spoilt is refused by its field', () => {
    const problem = (path: readonly (string | number)[], value: unknown) =>
      parseRotationStatus('identity', damaged(path, value))
    expect(parseRotationStatus('identity', { identity: 7 })).toEqual({ problem: 'identity: is no text.' })
    expect(parseRotationStatus('identity', { identity: '{' })).toEqual({ problem: 'identity: is no JSON.' })
    expect(parseRotationStatus('identity', { identity: '[]' })).toEqual({ problem: 'identity: is no object.' })
    expect(problem(['at'], 'now')).toEqual({ problem: 'identity.at: is no time such as 2026-01-31T12:00:00Z.' })
    expect(problem(['at'], '2026-13-31T12:00:00Z')).toEqual({
      problem: 'identity.at: is no time such as 2026-01-31T12:00:00Z.',
    })
    expect(problem(['phase'], 'done')).toEqual({
      problem: 'identity.phase: is none of none, idle, prepared, offered, switched, draining.',
    })
    expect(problem(['keys'], undefined)).toEqual({ problem: 'identity.keys: is no list.' })
    expect(problem(['keys'], Array(17).fill({}))).toEqual({ problem: 'identity.keys: has more than 16 items.' })
    expect(problem(['keys', 1, 'state'], 7)).toEqual({
      problem: 'identity.keys[1].state: is none of prepared, active, previous.',
    })
    expect(problem(['keys', 0, 'compromised'], false)).toEqual({
      problem: 'identity.keys[0].compromised: can only be true.',
    })
    expect(problem(['sidecars'], null)).toEqual({ problem: 'identity.sidecars: is no object.' })
    expect(problem(['sidecars', 'expected'], -1)).toEqual({
      problem: 'identity.sidecars.expected: is no whole number from 0 on.',
    })
    expect(problem(['sidecars', 'missing'], ['a\u001b[2J'])).toEqual({
      problem: 'identity.sidecars.missing: has a control character.',
    })
    expect(problem(['waits', 0, 'message'], 'x'.repeat(1_001))).toEqual({
      problem: 'identity.waits[0].message: is longer than 1000 characters.',
    })
    expect(problem(['answered'], 'monday')).toEqual({ problem: 'identity.answered: is no object.' })
    expect(problem(['answered', 'outcome'], 'done')).toEqual({
      problem: 'identity.answered.outcome: is none of taken, refused, unknown.',
    })
    expect(problem(['conditions', 0], [])).toEqual({ problem: 'identity.conditions[0]: is no object.' })
  })

  it('never throws, whatever stands there', () => {
    const values = fc.oneof(fc.jsonValue(), fc.string({ unit: 'binary' }), times)
    const paths = fc.constantFrom<(string | number)[]>(
      ['at'],
      ['keys'],
      ['keys', 0, 'id'],
      ['sidecars'],
      ['sidecars', 'missing'],
      ['waits', 0],
      ['waits', 0, 'names'],
      ['answered'],
      ['answered', 'code'],
      ['conditions'],
      ['scheduledAt'],
    )
    const entries = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.json(),
      fc.tuple(paths, values).map(([path, value]) => damaged(path, value).identity),
    )
    fc.assert(
      fc.property(entries, (identity) => {
        const status = parseRotationStatus('identity', { identity })
        if (status === undefined) throw new Error('an entry is there')
        if ('problem' in status) expect(status.problem).toMatch(/^identity[\w.[\]]*: [^\p{C}]+\.$/u)
        else expect(parseRotationStatus('identity', formatRotationStatus('identity', status))).toBeDefined()
      }),
      { numRuns: 2_000 },
    )
  })
})
