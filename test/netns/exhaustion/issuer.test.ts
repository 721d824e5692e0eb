/**
 * An issuer that answers slowly, wrongly or never, to sidecars that hold an identity and need the next: they go on with
 * whom they know, say what is the matter, let in nobody by it, and have their next identity once the issuer is well.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { runCommand } from '../../../lab/command.ts'
import { LAB_ISSUER } from '../../../lab/injection.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { createRun, type Run } from '../../../lab/run.ts'
import { idlePod, putPolicy } from '../../lab/objects.ts'
import type { Fault } from './faulty-issuer.ts'
import { createField, type Field, logOf, pause, print, residentMebibytes, until } from './field.ts'

/** A new sidecar asks at once, and again after half a second and more. */
const FIRST_REQUEST_MILLISECONDS = 2_000
/** Requests in flight, and at most 4 MiB of an answer. */
const MOST_GROWTH_MEBIBYTES = 64

/** Keeps the fault's name where the webhook reads it. */
let files: Run
let field: Field
let server: RunningPod
let known: RunningPod
let stranger: RunningPod
let restingMebibytes: number

const setFault = (fault: Fault | '') => writeFileSync(join(files.directory, 'fault'), fault)

beforeAll(async () => {
  files = createRun()
  setFault('')
  const preload = pathToFileURL(join(import.meta.dirname, 'faulty-issuer.ts'))
  preload.searchParams.set('fault', join(files.directory, 'fault'))
  field = await createField({ webhookPreload: preload.href })
  // Of any namespace: the Pods without a sidecar have one of their own.
  const from = [{ namespaceSelector: {}, podSelector: { matchLabels: { app: 'known' } } }]
  putPolicy(field.lab, 'server', {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from }],
  })
  server = await field.runPod('guarded', 'server')
  await field.rig.serveLoad(server)
  known = await field.runPod('guarded', 'known')
  stranger = await field.runPod('guarded', 'stranger')
  await field.pace(known, server, 200, 400)
  restingMebibytes = residentMebibytes(server)
}, 90_000)
afterAll(async () => {
  await field?.stop()
  await files?.stop()
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

  /** Three connections of a Pod without a sidecar, whom the policy allows by its labels: how many succeeded. */
  const letIn = async (pod: RunningPod) => (await field.pace(pod, server, 5, 3, 9)).succeeded

  async function isBack(pod: RunningPod, what: string): Promise<void> {
    const took = await until('the plain Pod to be let in', 60_000, async () => (await letIn(pod)) === 3)
    print(`issuer ${what}: a Pod without a sidecar was let in ${took.toFixed(0)} ms after it was back`)
    await until('the stream', 60_000, async () => (await field.metrics(server)).get('stream_connected') === 1)
  }

  it('accepts and never answers: a Pod whose address nobody can tell is denied, those known are served', async () => {
    const plain = await field.runPod('plain', 'met-the-silent', 'known')
    setFault('silent')
    try {
      const [allowed] = await Promise.all([letIn(plain), serves()])
      expect(allowed).toBe(0)
    } finally {
      setFault('')
    }
    await isBack(plain, 'silent')
  }, 150_000)

  it('refuses connections: a Pod whose address nobody can tell is denied, those known are served, and it is said', async () => {
    const plain = await field.runPod('plain', 'met-the-refusing', 'known')
    const refuse = [
      'INPUT',
      '-p',
      'tcp',
      '--dport',
      String(LAB_ISSUER.port),
      '-j',
      'REJECT',
      '--reject-with',
      'tcp-reset',
    ]
    const iptables = (action: '-I' | '-D') =>
      runCommand('ip', ['netns', 'exec', field.lab.network.node, 'iptables', '-w', action, ...refuse])
    await iptables('-I')
    try {
      const [allowed] = await Promise.all([letIn(plain), serves()])
      expect(allowed).toBe(0)
      await until('the failure in the log', 30_000, () => logOf(server).includes('"code":"issuer-unreachable"'))
      expect(logOf(server)).toMatch(/ECONNREFUSED/)
    } finally {
      await iptables('-D')
    }
    await isBack(plain, 'refusing')
  }, 150_000)

  it('refuses a new Pod: it is not ready and says why, and is once the issuer answers', async () => {
    const address = '10.244.200.200'
    const admitted = await field.lab.admitPod({
      ...idlePod('guarded', 'late', { app: 'late' }),
      status: { podIPs: [{ ip: address }] },
    })
    setFault('status')
    const starting = field.lab.runPod(admitted)
    starting.catch(() => undefined)
    let readiness = { status: 0, body: '' }
    try {
      await until('a readiness', 15_000, async () => {
        const question = { do: 'httpGet', address, port: 15_900, path: '/readyz', timeoutMs: 1_000 } as const
        readiness = await field.lab.node.ask(question).catch(() => readiness)
        return readiness.status !== 0
      })
      await pause(FIRST_REQUEST_MILLISECONDS)
    } finally {
      setFault('')
    }
    print(`issuer refuses a new Pod: ${readiness.status} ${readiness.body.trim()}`)
    expect(readiness.status).toBe(503)
    expect(readiness.body).toContain('{"name":"identity","ok":false,"reason":"none obtained yet"}')
    expect(logOf(await starting)).toContain('"code":"issuer-refused"')
  }, 90_000)
})
