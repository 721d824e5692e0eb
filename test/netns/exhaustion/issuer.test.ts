/**
 * An issuer that answers slowly or wrongly, to sidecars that hold an identity and need the next: they go on with
 * whom they know, say what is the matter, let in nobody by it, and have their next identity once the issuer is well.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { RunningPod } from '../../../lab/pod.ts'
import { allowOnly } from '../connections/rig.ts'
import type { Fault } from './faulty-issuer.ts'
import { createField, type Field, logOf, print, residentMebibytes, until } from './field.ts'

/** Requests in flight, and at most 4 MiB of an answer. */
const MOST_GROWTH_MEBIBYTES = 64

let directory: string
let field: Field
let server: RunningPod
let known: RunningPod
let stranger: RunningPod
let restingMebibytes: number

const setFault = (fault: Fault | '') => writeFileSync(join(directory, 'fault'), fault)

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'synguard-issuer-'))
  setFault('')
  const preload = pathToFileURL(join(import.meta.dirname, 'faulty-issuer.ts'))
  preload.searchParams.set('fault', join(directory, 'fault'))
  field = await createField({ webhookPreload: preload.href })
  allowOnly(field.lab, ['known'])
  server = await field.runPod('guarded', 'server')
  await field.rig.serveLoad(server)
  known = await field.runPod('guarded', 'known')
  stranger = await field.runPod('guarded', 'stranger')
  await field.pace(known, server, 200, 400)
  restingMebibytes = residentMebibytes(server)
}, 90_000)
afterAll(async () => {
  await field?.stop()
  if (directory !== undefined) rmSync(directory, { recursive: true, force: true })
})

const renewals = async (pod: RunningPod) => (await field.metrics(pod)).get('identity_renewals_total{result="ok"}')
const lastRejection = () =>
  logOf(server)
    .split('\n')
    .filter((line) => line.includes('no identity obtained'))
    .at(-1) ?? ''

/** Changes a label of the server, which makes its sidecar ask for another WIT. */
let rounds = 0
const askForAnother = () => field.lab.relabelPod('guarded/server', { app: 'server', round: String(++rounds) })

/** What everybody gets meanwhile. */
async function serves(): Promise<void> {
  const [allowed, denied] = await Promise.all([
    field.pace(known, server, 100, 150),
    field.pace(stranger, server, 20, 30, 5),
  ])
  expect(allowed).toMatchObject({ succeeded: 150, firstError: '' })
  expect(denied.succeeded).toBe(0)
  expect((await field.health(server)).status).toBe(200)
}

describe('an issuer that answers a renewal', () => {
  it.each<[Fault, string]>([
    ['status', 'issuer-refused'],
    ['garbage', 'issuer-answer'],
    ['wrong-key', 'wit-unknown-key'],
    ['wrong-issuer', 'wit-claims'],
    ['other-pod', 'identity-mismatch'],
    ['endless-body', 'issuer-answer'],
  ])(
    'with %s: said as %s, and over by itself',
    async (fault, code) => {
      const [before, toldBefore] = [await renewals(server), lastRejection()]
      setFault(fault)
      try {
        await askForAnother()
        await until('a failure in the log', 20_000, () => lastRejection() !== toldBefore)
        await serves()
        const metrics = await field.metrics(server)
        expect(metrics.get('identity_renewals_total{result="ok"}')).toBe(before)
        expect(metrics.get(`identity_renewals_total{result="${code}"}`)).toBeGreaterThan(0)
      } finally {
        setFault('')
      }
      const told = lastRejection()
      const took = await until('the next identity', 60_000, async () => (await renewals(server)) > before)
      const { error } = JSON.parse(told) as { error: string }
      print(`issuer ${fault}: "${error}"; the next identity ${took.toFixed(0)} ms after it was well again`)
      expect(told).toContain(`"code":"${code}"`)
      expect(residentMebibytes(server)).toBeLessThan(restingMebibytes + MOST_GROWTH_MEBIBYTES)
    },
    90_000,
  )

  it('after 10 s: waits for it', async () => {
    const before = await renewals(server)
    setFault('slow')
    try {
      await askForAnother()
      await serves()
      expect(await renewals(server)).toBe(before)
      const took = await until('the next identity', 60_000, async () => (await renewals(server)) > before)
      print(`issuer slow: the next identity after ${took.toFixed(0)} ms more`)
    } finally {
      setFault('')
    }
    await serves()
  }, 90_000)
})

describe('an issuer that', () => {
  it('sends a line of the stream without an end: no more of it is kept than its bound, and the next stream is taken', async () => {
    const connected = async () => (await field.metrics(server)).get('stream_connected') === 1
    setFault('endless-line')
    try {
      await until('the stream to be given up', 20_000, () => logOf(server).includes('a line is longer than'))
      await serves()
      expect(await connected()).toBe(false)
    } finally {
      setFault('')
    }
    const took = await until('the next stream', 60_000, connected)
    print(`issuer endless-line: the next stream ${took.toFixed(0)} ms after it was well again`)
    expect(residentMebibytes(server)).toBeLessThan(restingMebibytes + MOST_GROWTH_MEBIBYTES)
  }, 90_000)
})
