import { describe, expect, it } from '@jest/globals'
import { accountFor, type Denial, type Incident, isDeniedThroughout, type Kill } from './account.ts'
import { brokenRules, compareThirds, type Observed } from './rules.ts'
import type { Sample } from './samples.ts'

const incident = (more: Partial<Incident> = {}): Incident => ({
  event: 'failure',
  client: 'client',
  path: 'server IPv4',
  servers: ['server'],
  parallel: 1,
  begunAtMs: 100_000,
  microseconds: 2_000,
  localPort: 40_000,
  error: 'Connection refused',
  ...more,
})

const kill = (pod: string, more: Partial<Kill> = {}): Kill => ({ pod, atMs: 99_000, readyAtMs: 101_000, ...more })

const denial = (more: Partial<Denial> = {}): Denial => ({
  client: 'client',
  how: 'ingress',
  atMs: 99_000,
  settledAtMs: 99_500,
  liftedAtMs: 101_000,
  endedAtMs: 101_500,
  ...more,
})

const causes = (one: Incident, kills: readonly Kill[], denials: readonly Denial[]) => {
  const { failures, stalls } = accountFor([one], kills, denials)
  return [failures, stalls].flatMap((by) =>
    (['kill', 'denial', 'none'] as const).filter((cause) => by[cause].length > 0),
  )
}

describe('what explains a failure', () => {
  it.each<[string, Incident, Kill[], Denial[], string]>([
    ['the kill of its own sidecar', incident(), [kill('client')], [], 'kill'],
    ['the kill of the sidecar of one that may have answered', incident(), [kill('server')], [], 'kill'],
    ['not the kill of another', incident(), [kill('other')], [], 'none'],
    ['not a kill long ago', incident(), [kill('client', { atMs: 90_000, readyAtMs: 92_000 })], [], 'none'],
    ['not a kill to come', incident(), [kill('client', { atMs: 105_000, readyAtMs: 106_000 })], [], 'none'],
    [
      'a kill that came before it ended',
      incident({ microseconds: 9e6 }),
      [kill('client', { atMs: 105_000 })],
      [],
      'kill',
    ],
    ['a denial of its client', incident(), [], [denial()], 'denial'],
    ['not the denial of another client', incident(), [], [denial({ client: 'other' })], 'none'],
    ['not a denial that is over', incident({ begunAtMs: 103_000 }), [], [denial()], 'none'],
    [
      'not a denial, where nobody was told',
      incident({ event: 'unfinished', microseconds: 6e7 }),
      [],
      [denial()],
      'none',
    ],
  ])('%s', (_what, one, kills, denials, expected) => {
    expect(causes(one, kills, denials)).toEqual([expected])
  })
})

it('a batch counts as denied from when every server refuses until the client is about to be allowed', () => {
  const batch = { begunAtMs: 99_600, endedAtMs: 100_900 }
  expect(isDeniedThroughout('client', batch, [denial()])).toBe(true)
  expect(isDeniedThroughout('client', { ...batch, begunAtMs: 99_400 }, [denial()])).toBe(false)
  expect(isDeniedThroughout('client', { ...batch, endedAtMs: 101_100 }, [denial()])).toBe(false)
  expect(isDeniedThroughout('other', batch, [denial()])).toBe(false)
})

const sample = (part: number, more: Partial<Sample> = {}): Sample => ({
  pod: 'server',
  part,
  connections: part * 100_000,
  restarts: 0,
  rssMegabytes: 100,
  descriptors: 38,
  identityRows: 6,
  knownPeers: 50,
  stateBytes: 10_000,
  conntrackEntries: 5_000,
  ...more,
})

const samples = (more: (part: number) => Partial<Sample> = () => ({})): Sample[] =>
  Array.from({ length: 10 }, (_, index) => sample(index + 1, more(index + 1)))

const good: Observed = {
  connections: 1_000_000,
  guarded: accountFor([], [], []),
  plain: accountFor([], [], []),
  transfers: { whole: 24, broken: 0, sentBytes: 1_000, echoedBytes: 1_000, wrongBytes: 0 },
  transfersStarted: 24,
  samples: samples(),
  counters: new Map([['worker_restarts_total', 0]]),
  renewals: 200,
  bounds: { identityRows: 30, knownPeers: 130, renewals: 180 },
  problems: [],
}

describe('the rules of the soak', () => {
  it('hold where nothing is wrong, nor where failures are a kill or a denial', () => {
    const explained = accountFor(
      [incident(), incident({ client: 'denied' })],
      [kill('client')],
      [denial({ client: 'denied' })],
    )
    expect(brokenRules({ ...good, guarded: explained })).toEqual([])
  })

  it('let memory grow while it warms up, and swing afterwards', () => {
    const swinging = samples((part) => ({ rssMegabytes: part === 1 ? 70 : 100 + (part % 2) * 12 }))
    expect(brokenRules({ ...good, samples: swinging })).toEqual([])
  })

  it.each<[string, Partial<Observed>, RegExp]>([
    ['a failure', { guarded: accountFor([incident()], [], []) }, /^1 connections failed and nothing explains it/],
    [
      'a connection that never ends',
      { guarded: accountFor([incident({ event: 'unfinished' })], [], []) },
      /^1 connections failed/,
    ],
    [
      'many stalls',
      {
        guarded: accountFor(
          Array.from({ length: 4_000 }, () => incident({ event: 'stall' })),
          [],
          [],
        ),
      },
      /^4000 connections took over a second.*; 0 of plain/,
    ],
    [
      'a lost byte',
      { transfers: { ...good.transfers, echoedBytes: 999 } },
      /^1 bytes of long-lived transfers were lost/,
    ],
    ['an altered byte', { transfers: { ...good.transfers, wrongBytes: 1 } }, /^1 bytes .* altered/],
    ['a broken transfer', { transfers: { ...good.transfers, whole: 23, broken: 1 } }, /^1 of 24 long-lived transfers/],
    [
      'memory that grows',
      { samples: samples((part) => ({ rssMegabytes: 100 + 4 * part })) },
      /grew from 112\.0 to 136\.0 MB/,
    ],
    ['open files that grow', { samples: samples((part) => ({ descriptors: 38 + 2 * part })) }, /open files grew/],
    [
      'rows that nobody needs',
      { samples: samples((part) => ({ identityRows: 6 * part })) },
      /^server: 60 rows .* at most 30/,
    ],
    ['peers that are gone', { samples: samples((part) => ({ knownPeers: 20 * part })) }, /^server: 200 known peers/],
    ['a file that grows', { samples: samples((part) => ({ stateBytes: 20_000 * part })) }, /^server: 200000 bytes/],
    ['a worker that died', { counters: new Map([['worker_restarts_total', 1]]) }, /^worker_restarts_total is 1/],
    ['identities that are not renewed', { renewals: 3 }, /^3 renewals of identities, not the 180 due/],
    ['a denied client that gets through', { problems: ['turned: 1 connections while it was denied'] }, /^turned: 1/],
  ])('are broken by %s', (_what, more, reason) => {
    expect(brokenRules({ ...good, ...more })[0]).toMatch(reason)
  })

  it('say nothing of the memory of a sidecar that was killed, or of a run too short to warm up', () => {
    const growing = samples((part) => ({ rssMegabytes: 100 + 20 * part }))
    expect(
      compareThirds(
        growing.map((one) => ({ ...one, restarts: 1 })),
        'rssMegabytes',
      ),
    ).toBeUndefined()
    expect(
      compareThirds(
        growing.map((one) => ({ ...one, connections: one.part * 1_000 })),
        'rssMegabytes',
      ),
    ).toBeUndefined()
  })
})
