import { describe, expect, it } from '@jest/globals'
import { EMPTY_KEYRING, PHASES } from '../../../../certs/rotation/keyring.ts'
import { checkSchedule, nextStep, reportKeyring, scheduledAt } from '../../../../certs/rotation/progress.ts'
import { NOW, openFacts, play, RINGS, TIMING } from './fixtures.ts'

const LATER = NOW + 100

describe('the next step', () => {
  it('is the one that is safe, and none where no rotation is under way', () => {
    const steps = PHASES.map((phase) => {
      const next = nextStep(RINGS[phase], openFacts(LATER))
      return 'step' in next ? next.step : next.waits.map(({ refused }) => refused)
    })
    expect(steps).toEqual([[], [], 'confirm', 'activate', 'confirm', ['rotation-waits-time']])
  })

  it('says what it waits for, with names and the earliest time', () => {
    const facts = openFacts(LATER, { expected: ['pod-1', 'pod-2'], acknowledged: new Map([['pod-1', LATER]]) })
    expect(nextStep(RINGS.offered, facts)).toEqual({
      waits: [
        expect.objectContaining({ refused: 'rotation-waits-sidecars', names: ['pod-2'], until: NOW + 2 + 3_960 }),
      ],
    })
  })

  it('of several waits names each: a previous key for sidecars, a prepared one for replicas', () => {
    const ring = play(RINGS.draining, [
      { type: 'compromised', fresh: { id: 'x', material: 'x', lifetimeSeconds: 1 }, request: 'r2' },
      { type: 'confirm' },
      { type: 'activate' },
    ])
    const facts = openFacts(NOW + 10, {
      expected: ['pod-1'],
      replicas: [{ name: 'r', generation: 1, silentSeconds: 1 }],
    })
    expect(nextStep(ring, facts)).toEqual({
      waits: [
        expect.objectContaining({ refused: 'rotation-waits-replicas', names: ['r'] }),
        expect.objectContaining({ refused: 'rotation-waits-sidecars', names: ['pod-1'] }),
      ],
    })
  })
})

describe('the status', () => {
  it('has keys by id, state and time, acknowledgements and waits, and nothing private', () => {
    const facts = openFacts(LATER, { expected: ['pod-1', 'pod-2'], acknowledged: new Map([['pod-1', LATER]]) })
    const status = reportKeyring(RINGS.offered, facts)
    expect(status).toEqual({
      phase: 'offered',
      keys: [
        { id: 'a', state: 'active', since: LATER - 100 },
        { id: 'b', state: 'prepared', since: LATER - 99 },
      ],
      expected: 2,
      missing: ['pod-2'],
      waits: [expect.objectContaining({ names: ['pod-2'] })],
    })
    expect(JSON.stringify(PHASES.map((phase) => reportKeyring(RINGS[phase], facts)))).not.toContain('private')
  })
})

describe('the schedule', () => {
  it('begins the next rotation a time after the last key came into use, and none while one is under way', () => {
    expect(PHASES.map((phase) => scheduledAt(RINGS[phase], 86_400))).toEqual([
      undefined,
      NOW + 86_400,
      ...[undefined, undefined, undefined, undefined],
    ])
    expect(scheduledAt(EMPTY_KEYRING, 86_400)).toBeUndefined()
  })

  it('may not be shorter than a rotation with a silent sidecar', () => {
    const shortest = 2 * (3_600 + 3 * 120)
    expect(checkSchedule(shortest, TIMING)).toBeUndefined()
    expect(checkSchedule(shortest - 1, TIMING)).toMatchObject({ refused: 'rotation-schedule' })
  })
})
