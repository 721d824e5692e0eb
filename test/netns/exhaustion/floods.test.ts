/**
 * SYN floods against a guarded server, while honest clients that its policy allows connect: one that it knows a hundred
 * times a second, some that show a WIT it has not seen from an address that it knows, and some that it never met.
 * Somebody denied stays denied.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { RunningPod } from '../../../lab/pod.ts'
import { addressOf, allowOnly } from '../../lab/objects.ts'
import {
  createField,
  type Field,
  type Flood,
  type Paced,
  pause,
  print,
  residentMebibytes,
  SPOOFED,
  SPOOFED_COUNT,
} from './field.ts'

/** A machine of two cores that tests other things besides still judges that many. */
const PACKETS_PER_SECOND = 2_500
const SECONDS = 9
const PER_SECOND = 100
/** Honest connections begin after the flood and end before it. */
const HONEST_SECONDS = 7
/** The engine collects late what a flood leaves; what is kept, 16,384 half-open connections and the like, is 20 MiB. */
const MOST_GROWTH_MEBIBYTES = 256

const FLOODS = [
  ['without a frame, from one address', { kind: 'plain', source: '10.245.7.7', count: 1 }],
  ['without a frame, from 65,536 cluster addresses', { kind: 'plain', source: SPOOFED, count: SPOOFED_COUNT }],
  ['with garbage, from 65,536 cluster addresses', { kind: 'garbage', source: SPOOFED, count: SPOOFED_COUNT }],
  [
    'with WITs of unknown keys, from 65,536 cluster addresses',
    { kind: 'unknown', source: SPOOFED, count: SPOOFED_COUNT },
  ],
  ['with forged WITs, from 65,536 cluster addresses', { kind: 'forged', source: SPOOFED, count: SPOOFED_COUNT }],
  ['with a good WIT and nonces of its own, from many ports', { kind: 'own', source: 'donor', count: 1 }],
] as const

let field: Field
let server: RunningPod
let known: RunningPod
/** Whose WIT the attacker saw. */
let donor: RunningPod
let stranger: RunningPod
let attacker: RunningPod
let renewing: RunningPod[]
/** Two for each flood. */
let unmet: RunningPod[]
let frame: string
let restingMebibytes: number

beforeAll(async () => {
  field = await createField()
  allowOnly(field.lab, ['known', 'donor', 'renewing', 'unmet'])
  const two = (app: string, from = 0) =>
    Promise.all([0, 1].map((i) => field.runPod('guarded', `${app}-${from + i}`, app)))
  const guarded = (name: string) => field.runPod('guarded', name)
  ;[server, known] = await Promise.all([guarded('server'), guarded('known')])
  await field.rig.serveLoad(server)
  ;[donor, stranger] = await Promise.all([guarded('donor'), guarded('stranger')])
  attacker = await field.runPod('plain', 'attacker')
  renewing = await two('renewing')
  unmet = []
  while (unmet.length < 2 * FLOODS.length) unmet.push(...(await two('unmet', unmet.length)))
  for (const pod of [donor, ...renewing]) await field.pace(pod, server, 10, 1)
  frame = await field.captureFrame(donor, attacker)
  // Twice, so that what the engine keeps for good is there before memory is compared.
  for (let i = 0; i < 2; i++) await field.pace(known, server, 200, 400)
  restingMebibytes = residentMebibytes(server)
}, 180_000)
afterAll(async () => await field?.stop())

/** Gives them other labels, and with them WITs that the server has not seen. */
let rounds = 0
async function renew(): Promise<void> {
  rounds++
  const renewals = async () => {
    const all = await Promise.all(renewing.map((pod) => field.metrics(pod)))
    return all.map((metrics) => metrics.get('identity_renewals_total{result="ok"}'))
  }
  const before = await renewals()
  for (const { pod } of renewing) {
    await field.lab.relabelPod(`guarded/${pod.metadata?.name}`, { app: 'renewing', round: String(rounds) })
  }
  for (let tries = 0; tries < 10; tries++) {
    if ((await renewals()).every((count, i) => count > (before[i] ?? 0))) return
  }
  throw new Error('no other WIT was issued')
}

type Source = Pick<Flood, 'kind' | 'source' | 'count'>

/** Runs a flood and everybody else meanwhile. */
async function underFlood(source: Source, newcomers: readonly RunningPod[]) {
  const [before] = await Promise.all([field.metrics(server), renew()])
  let over = false
  const flood = { ...source, packetsPerSecond: PACKETS_PER_SECOND, seconds: SECONDS, frame }
  const flooding = field.flood(attacker, server, flood).finally(() => {
    over = true
  })
  await pause(500)
  /** One connection of each; how many had their echo while the flood went on. */
  const firstOf = async (pods: readonly RunningPod[]) => {
    const first = await Promise.all(
      pods.map(async (pod): Promise<Paced & { readonly amid: boolean }> => {
        const outcome = await field.pace(pod, server, 1, 1)
        return { ...outcome, amid: !over }
      }),
    )
    return {
      succeeded: first.filter(({ succeeded }) => succeeded === 1).length,
      amid: first.filter(({ succeeded, amid }) => succeeded === 1 && amid).length,
      milliseconds: first.map(({ slowest }) => Math.round(slowest)),
    }
  }
  const knownOnes = field.pace(known, server, PER_SECOND, PER_SECOND * HONEST_SECONDS)
  const renewedOnes = firstOf(renewing)
  const unmetOnes = firstOf(newcomers)
  const denied = field.pace(stranger, server, 20, 100, 5)
  await pause(4_000)
  const amid = await field.metrics(server)
  const sent = await flooding
  const figures = { sent, known: await knownOnes, renewed: await renewedOnes, unmet: await unmetOnes }
  const refused = await denied
  const unmetAfter = await firstOf(newcomers)
  const after = await field.metrics(server)
  const delta = (metric: string, containing?: string) => after.sum(metric, containing) - before.sum(metric, containing)
  return {
    ...figures,
    unmetAfter,
    deniedThatSucceeded: refused.succeeded,
    synsJudged: delta('packets_queued_total', 'packet="syn-in"'),
    overflow: delta('queue_overflow_total'),
    busy: delta('packets_dropped_total', 'reason="busy"'),
    verifications: delta('wit_verifications_total'),
    heldPackets: amid.get('held_packets'),
    halfOpen: after.get('half_open_connections'),
    residentMebibytes: Math.round(residentMebibytes(server)),
  }
}

describe.each(FLOODS)(`a flood of ${PACKETS_PER_SECOND} SYNs a second %s`, (name, source) => {
  it('keeps no peer away, lets in nobody denied, and costs a bounded memory', async () => {
    const from = source.source === 'donor' ? addressOf(donor) : source.source
    const at = 2 * FLOODS.findIndex(([one]) => one === name)
    const figures = await underFlood({ ...source, source: from }, unmet.slice(at, at + 2))
    print(`flood ${name}:`, JSON.stringify(figures), `resting ${restingMebibytes.toFixed(0)} MiB`)
    expect(figures.sent).toBeGreaterThan((SECONDS * PACKETS_PER_SECOND) / 2)
    expect(figures.synsJudged + figures.overflow).toBeGreaterThan(figures.sent / 2)
    expect(figures.known).toMatchObject({ succeeded: PER_SECOND * HONEST_SECONDS, firstError: '' })
    expect(figures.renewed).toMatchObject({ succeeded: 2, amid: 2 })
    // Forged WITs of a key that counts use up the verifications: who was never met waits until they end.
    if (source.kind !== 'forged') expect(figures.unmet).toMatchObject({ succeeded: 2, amid: 2 })
    expect(figures.unmetAfter).toMatchObject({ succeeded: 2 })
    expect(figures.deniedThatSucceeded).toBe(0)
    expect(figures.heldPackets).toBeLessThanOrEqual(256)
    expect(figures.halfOpen).toBeLessThanOrEqual(16_384)
    if (source.kind === 'own') expect(figures.halfOpen).toBe(16_384)
    expect(figures.residentMebibytes).toBeLessThan(restingMebibytes + MOST_GROWTH_MEBIBYTES)
  }, 90_000)
})
