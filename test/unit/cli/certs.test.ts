import { describe, expect, it } from '@jest/globals'
import type { RotationStatus } from '../../../api/rotation.ts'
import { requestId } from '../../../cli/certs/ask.ts'
import { fixOf } from '../../../cli/certs/fixes.ts'
import { faultsOf } from '../../../cli/certs/format.ts'
import { patiently, pendingRequest } from '../../../cli/certs/rotation.ts'
import { ApiError } from '../../../kubernetes/errors.ts'

const NOW = 1_800_000_000
const status = (change: Partial<RotationStatus> = {}): RotationStatus => ({
  at: NOW,
  phase: 'idle',
  keys: [],
  sidecars: { expected: 0, acknowledged: 0, missing: [] },
  waits: [],
  conditions: [],
  ...change,
})

describe('synguard certs', () => {
  it('gives each request a name of its own, that says when it was made', () => {
    const at = new Date('2026-01-31T12:00:00.789Z')
    const ids = Array.from({ length: 50 }, () => requestId('rotate', at))
    expect(new Set(ids).size).toBe(50)
    expect(ids[0]).toMatch(/^rotate-20260131T120000Z-[0-9a-f]{6}$/)
  })

  it('goes on asking while the API server is away, and says so once', async () => {
    const notes: string[] = []
    const away = new ApiError('api-unreachable', 'It is away.')
    const answers = [away, away, 'there']
    const read = async () => {
      const answer = answers.shift()
      if (answer instanceof Error) throw answer
      return answer
    }
    expect(await patiently(read, (line) => notes.push(line))).toBe('there')
    expect(notes).toEqual(['It is away. Trying again.'])
  })

  it('goes on asking for nothing else, nor for longer than it should', async () => {
    const fail = (error: Error, signal?: AbortSignal) =>
      patiently(
        async () => {
          throw error
        },
        () => {},
        signal,
      )
    const refused = new ApiError('api-refused', 'no', { status: 403 })
    await expect(fail(refused)).rejects.toBe(refused)
    const away = new ApiError('api-unreachable', 'It is away.')
    await expect(fail(away, AbortSignal.abort())).rejects.toBe(away)
  })

  it('takes a request for unanswered until the answer has its name', () => {
    const request = { id: 'tuesday', type: 'abort' } as const
    const answered = (id: string) => status({ answered: { request: id, outcome: 'taken' } })
    expect(pendingRequest({ request, problems: [], status: answered('monday') })).toBe(request)
    expect(pendingRequest({ request, problems: [] })).toBe(request)
    expect(pendingRequest({ request, problems: [], status: answered('tuesday') })).toBeUndefined()
    expect(pendingRequest({ problems: [], status: answered('monday') })).toBeUndefined()
  })

  it('says once what both it and the webhook find wrong, and that nobody writes the status any more', () => {
    const conditions = [{ code: 'rotation-request', message: 'identity: is no text.' }]
    const problems = ['synguard/synguard-rotation, identity: is no text.', 'synguard/synguard-rotation, "x": is odd.']
    const said = ['synguard/synguard-rotation, "x": is odd.', 'identity: is no text. [rotation-request]']
    expect(faultsOf({ status: status({ conditions }), problems }, NOW + 300)).toEqual(said)
    expect(faultsOf({ status: status({ conditions }), problems }, NOW + 301)).toEqual([
      'no replica of the webhook has written this status since 2027-01-15T08:00:00Z',
      ...said,
    ])
    expect(faultsOf({ problems }, NOW)).toEqual(problems)
  })

  it('has fixes for the kind that it is about', () => {
    expect(fixOf('rotation-not-running', 'serving')).toBe('begin one: synguard certs rotate serving')
    expect([fixOf('rotation-waits-time', 'identity'), fixOf('constructor', 'identity')]).toEqual([undefined, undefined])
  })
})
