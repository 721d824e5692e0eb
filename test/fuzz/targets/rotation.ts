import { isDeepStrictEqual } from 'node:util'
import {
  formatRotationRequest,
  formatRotationStatus,
  parseRotationRequest,
  ROTATION_REQUESTS,
  type RotationStatus,
} from '../../../api/rotation.ts'
import { parseRotationStatus } from '../../../api/rotation-status.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, unfold } from '../values.ts'

const STATUS: RotationStatus = {
  at: 1_790_000_000,
  phase: 'offered',
  keys: [
    { id: 'kid-a', state: 'active', since: 1_789_000_000, compromised: true },
    { id: 'kid-b', state: 'prepared', since: 1_790_000_000, forced: true },
  ],
  sidecars: { expected: 2, acknowledged: 1, missing: ['shop/web-1'] },
  waits: [
    { code: 'rotation-waits-sidecars', message: 'Waits.', names: ['shop/web-1'], count: 1, until: 1_790_003_960 },
  ],
  answered: { request: 'monday', outcome: 'refused', code: 'rotation-running', message: 'Refused.' },
  conditions: [{ code: 'rotation-request', message: 'identity: is no text.', since: 1_790_000_000 }],
  scheduledAt: 1_792_592_000,
}

const SENTENCE = /^[^\p{C}]+: [^\p{C}]+\.$/u

function checkRequest(data: Readonly<Record<string, Json>>): string {
  const { request, problems } = parseRotationRequest('identity', data)
  hold(problems.length <= 5, 'what is wrong is told in bounds')
  hold(
    problems.every((problem) => SENTENCE.test(problem) && problem.length < 260),
    'a problem names the entry, and quotes a line at most that no terminal acts upon',
  )
  if (request === undefined) return problems.length === 0 ? 'no-request' : 'request-refused'
  const again = parseRotationRequest('identity', { identity: formatRotationRequest(request) })
  hold(isDeepStrictEqual(again, { request, problems: [] }), 'a request in canonical form is the same request')
  return request.type
}

function checkStatus(value: Json): string {
  const status = parseRotationStatus('identity', {
    identity: typeof value === 'string' ? value : JSON.stringify(value),
  })
  if (status === undefined) throw new Error('an entry is there')
  if ('problem' in status) {
    hold(/^identity[\w.[\]]*: [^\p{C}]+\.$/u.test(status.problem), 'a problem names its field and quotes nothing')
    return 'status-refused'
  }
  const written = formatRotationStatus('identity', status)
  const again = parseRotationStatus('identity', written)
  hold(again !== undefined && !('problem' in again), 'what is written can be read')
  hold(isDeepStrictEqual(formatRotationStatus('identity', again), written), 'what was read is written as it was')
  return `status-${status.phase}`
}

export const rotationTarget = valueTarget({
  name: 'rotation',
  about:
    'what operators ask of a rotation and what the webhook answers, edited by hand: the same again, or its field named',
  sources: ['api/rotation.ts', 'api/rotation-status.ts'],
  seeds: [
    ...ROTATION_REQUESTS.map(
      (type): Json => ({ data: { identity: `${type} monday`, serving: 'abort 2026-01-31T12:00:00Z' } }),
    ),
    { data: { identity: 'rotate monday force' } },
    { status: JSON.parse(formatRotationStatus('identity', STATUS).identity ?? '') as Json },
  ],
  words: [
    ' ',
    '\u001b',
    'force',
    'rotate force',
    '\ud800',
    '9999-12-31T23:59:59Z',
    '2026-02-30T00:00:00Z',
    '__proto__',
  ],
  check(input) {
    const value = unfold(input)
    const { data, status } = isObject(value) ? value : {}
    if (status !== undefined) return checkStatus(status)
    return checkRequest(isObject(data) ? data : {})
  },
})
