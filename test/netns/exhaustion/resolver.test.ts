/**
 * SYNs from addresses that nobody knows make a sidecar ask the issuer who has them. Honest peers go on meanwhile: those that
 * show a WIT, and those without one that the sidecar had met.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { RunningPod } from '../../../lab/pod.ts'
import { putPolicy } from '../../lab/objects.ts'
import { createField, type Field, pause, print, residentMebibytes, SPOOFED, SPOOFED_COUNT } from './field.ts'

const PACKETS_PER_SECOND = 2_500
const SECONDS = 7
const PER_SECOND = 50
const HONEST_SECONDS = 5
/** Two repetitions of a SYN, and time for a busy machine. */
const PATIENCE_SECONDS = 5
/** What directory entries and questions under way take is bounded; the engine collects late. */
const MOST_GROWTH_MEBIBYTES = 256

let field: Field
let server: RunningPod
let guarded: RunningPod
let plain: RunningPod
let stranger: RunningPod
let attacker: RunningPod

beforeAll(async () => {
  field = await createField()
  const from = [{ namespaceSelector: {}, podSelector: { matchLabels: { app: 'honest' } } }]
  putPolicy(field.lab, 'server', {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from }],
  })
  ;[server, guarded, plain, stranger, attacker] = await Promise.all([
    field.runPod('guarded', 'server'),
    field.runPod('guarded', 'guarded', 'honest'),
    field.runPod('plain', 'plain', 'honest'),
    field.runPod('plain', 'stranger'),
    field.runPod('plain', 'attacker'),
  ])
  await field.rig.serveLoad(server)
  for (const pod of [guarded, plain]) await field.pace(pod, server, 50, 50)
}, 60_000)
afterAll(async () => await field?.stop())

describe(`${PACKETS_PER_SECOND} SYNs a second from ${SPOOFED_COUNT} addresses of nobody`, () => {
  it('keep away no peer that is known, with a WIT or without; let in nobody denied; and cost a bounded memory', async () => {
    const resting = residentMebibytes(server)
    const before = await field.metrics(server)
    const packetsPerSecond = PACKETS_PER_SECOND
    const flood = { kind: 'plain', source: SPOOFED, count: SPOOFED_COUNT, packetsPerSecond, seconds: SECONDS } as const
    const flooding = field.flood(attacker, server, flood)
    await pause(500)
    const count = PER_SECOND * HONEST_SECONDS
    const [identified, attested, denied] = await Promise.all([
      field.pace(guarded, server, PER_SECOND, count, PATIENCE_SECONDS),
      field.pace(plain, server, PER_SECOND, count, PATIENCE_SECONDS),
      field.pace(stranger, server, 10, 40, 5),
    ])
    const sent = await flooding
    const after = await field.metrics(server)
    const asked =
      after.sum('issuer_requests_total', 'endpoint="/v1/peers"') -
      before.sum('issuer_requests_total', 'endpoint="/v1/peers"')
    print(
      `resolver flood: ${sent} SYNs, ${asked} questions; with a WIT ${JSON.stringify(identified)}, without ${JSON.stringify(attested)},`,
      `memory ${resting.toFixed(0)} to ${residentMebibytes(server).toFixed(0)} MiB`,
    )
    expect(asked).toBeGreaterThan(100)
    expect(identified).toMatchObject({ succeeded: count, firstError: '' })
    expect(attested).toMatchObject({ succeeded: count, firstError: '' })
    expect(denied.succeeded).toBe(0)
    expect(after.get('held_packets')).toBeLessThanOrEqual(256)
    expect(residentMebibytes(server)).toBeLessThan(resting + MOST_GROWTH_MEBIBYTES)
    expect(await field.pace(plain, server, 50, 50)).toMatchObject({ succeeded: 50 })
  }, 60_000)
})
