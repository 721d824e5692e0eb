import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import type { V1ConfigMap } from '@kubernetes/client-node'
import {
  CONFIGMAP_ROTATION,
  CONFIGMAP_ROTATION_STATUS,
  formatRotationStatus,
  parseRotationRequest,
  type RotationAnswer,
  type RotationKind,
  type RotationStatus,
} from '../../api/rotation.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { makeOperator, makeStranger, runCerts, runKubectl, startCerts } from './operators.ts'
import { SYSTEM } from './permissions.ts'
import { createNamespace, unless } from './stage.ts'

const MERGE = 'application/merge-patch+json'
const CONFIGMAPS = `/api/v1/namespaces/${SYSTEM}/configmaps`
const PRIVATE = 'private-key-of-the-authority'

let control: ControlPlane
/** Kubeconfigs of somebody with the operators' role and of somebody without. */
let operator: string
let stranger: string
beforeAll(async () => {
  control = await startControlPlane()
  await createNamespace(control.admin, SYSTEM)
  const post = (path: string, body: unknown) => control.admin.send({ method: 'POST', path, body })
  await post(`/api/v1/namespaces/${SYSTEM}/secrets`, {
    metadata: { name: 'synguard-authority' },
    stringData: { 'identity.json': PRIVATE },
  })
  await post(CONFIGMAPS, { metadata: { name: 'synguard-voids' } })
  operator = await makeOperator(control)
  stranger = await makeStranger(control, 'stranger')
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

const certs = (args: readonly string[], kubeconfig = operator) => runCerts(args, kubeconfig)
const kubectl = (args: readonly string[]) => runKubectl(control, args, operator)

const now = () => Math.floor(Date.now() / 1_000)
const statusNow = (given: Partial<RotationStatus> = {}): RotationStatus => ({
  at: now(),
  phase: 'idle',
  keys: [{ id: 'kid-a', state: 'active', since: now() - 7_200 }],
  sidecars: { expected: 2, acknowledged: 2, missing: [] },
  waits: [],
  conditions: [],
  ...given,
})
const readRequests = async () =>
  (await unless(404, control.admin.send<V1ConfigMap>({ method: 'GET', path: `${CONFIGMAPS}/${CONFIGMAP_ROTATION}` })))
    ?.data
const merge = (name: string, body: unknown) =>
  control.admin.send({ method: 'PATCH', path: `${CONFIGMAPS}/${name}`, contentType: MERGE, body })
const request = (data: Record<string, string | null>) => merge(CONFIGMAP_ROTATION, { data })
const writeStatus = (kind: RotationKind, status: RotationStatus) =>
  merge(CONFIGMAP_ROTATION_STATUS, { data: formatRotationStatus(kind, status) })

/** Answers the next request for that kind, as the webhook would. */
async function answerNext(
  kind: RotationKind,
  answer: Omit<RotationAnswer, 'request'>,
  given: Partial<RotationStatus> = {},
) {
  let id = ''
  await until('a request', async () => {
    id = parseRotationRequest(kind, await readRequests()).request?.id ?? ''
    return id !== ''
  })
  await writeStatus(kind, statusNow({ ...given, answered: { request: id, ...answer } }))
  return id
}

describe('before the webhook wrote anything', () => {
  it('the status says so, with status 1', async () => {
    const { status, stdout, stderr } = await certs(['status'])
    expect([status, stderr]).toEqual([1, ''])
    const missing = (kind: string) =>
      `${kind}  not known\n  wrong     ${SYSTEM}/synguard-rotation-status, ${kind}: is missing: no replica of the webhook has written it.`
    expect(stdout).toBe(`${missing('identity')}\n\n${missing('serving')}\n`)
  }, 60_000)
})

describe('an operator', () => {
  beforeEach(async () => {
    const path = `${CONFIGMAPS}/${CONFIGMAP_ROTATION_STATUS}`
    await unless(404, control.admin.send({ method: 'DELETE', path }))
    const data = { ...formatRotationStatus('identity', statusNow()), ...formatRotationStatus('serving', statusNow()) }
    await control.admin.send({
      method: 'POST',
      path: CONFIGMAPS,
      body: { metadata: { name: CONFIGMAP_ROTATION_STATUS }, data },
    })
  })
  afterEach(async () => {
    if ((await readRequests()) !== undefined) await request({ identity: null, serving: null, identty: null })
  })

  it('rotates, and hears that it was taken', async () => {
    const [ran, id] = await Promise.all([
      certs(['rotate', 'identity']),
      answerNext('identity', { outcome: 'taken' }, { phase: 'prepared' }),
    ])
    expect(ran).toEqual({
      status: 0,
      stdout: `${id}: taken; identity is now prepared: synguard certs status --watch\n`,
      stderr: `asked as ${id}\n`,
    })
    expect(await readRequests()).toEqual({ identity: `rotate ${id}` })
    expect(id).toMatch(/^rotate-\d{8}T\d{6}Z-[0-9a-f]{6}$/)
  }, 60_000)

  it.each([
    [['rotate', 'serving', '--force'], 'serving', /^rotate \S+ force$/],
    [['rotate', 'identity', '--compromised'], 'identity', /^compromised \S+$/],
    [['force', 'identity'], 'identity', /^force \S+$/],
    [['abort', 'serving'], 'serving', /^abort \S+$/],
  ] as const)(
    '%j is a request of its own',
    async (args, kind, written) => {
      const [ran] = await Promise.all([certs(args), answerNext(kind, { outcome: 'taken' })])
      expect(ran.status).toBe(0)
      expect((await readRequests())?.[kind]).toMatch(written)
    },
    60_000,
  )

  it('hears why a request was refused and what to do, with status 1', async () => {
    const refused = { outcome: 'refused', code: 'rotation-not-running', message: 'No rotation is under way.' } as const
    const [ran, id] = await Promise.all([certs(['abort', 'identity']), answerNext('identity', refused)])
    expect(ran).toEqual({
      status: 1,
      stdout: `${id}: refused: No rotation is under way. [rotation-not-running]\nbegin one: synguard certs rotate identity\n`,
      stderr: `asked as ${id}\n`,
    })
    const [json, other] = await Promise.all([
      certs(['abort', 'identity', '--json']),
      (async () => {
        await until('another', async () => (await readRequests())?.identity !== `abort ${id}`)
        return answerNext('identity', refused)
      })(),
    ])
    expect([json.status, JSON.parse(json.stdout)]).toEqual([
      1,
      { request: other, ...refused, fix: 'begin one: synguard certs rotate identity' },
    ])
  }, 60_000)

  it('waits for an answer as long as it says, and the request stands', async () => {
    const { status, stdout, stderr } = await certs(['rotate', 'identity', '--timeout', '1'])
    const written = (await readRequests())?.identity ?? ''
    const id = written.replace('rotate ', '')
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toBe(
      `asked as ${id}\nsynguard: no replica of the webhook answered ${id} within 1 s; it stands, and is taken when one ` +
        `does; to withdraw it: kubectl -n ${SYSTEM} patch configmap synguard-rotation --type merge ` +
        `-p '{"data":{"identity":""}}' [certs-unanswered]\n`,
    )
    expect((await certs(['status'])).stdout).toContain(`\n  request   ${id}: rotate, not answered yet\n`)

    const [next, later] = await Promise.all([
      certs(['rotate', 'identity', '--compromised']),
      (async () => {
        await until('another', async () => (await readRequests())?.identity !== written)
        return answerNext('identity', { outcome: 'taken' })
      })(),
    ])
    expect(next.stderr).toBe(`takes the place of the request ${id}, which was not answered yet\nasked as ${later}\n`)
  }, 60_000)

  it('hears when somebody else writes a request before theirs was answered', async () => {
    const [ran] = await Promise.all([
      certs(['rotate', 'identity']),
      (async () => {
        await until('a request', async () => (await readRequests())?.identity !== undefined)
        await request({ identity: 'abort by-hand' })
      })(),
    ])
    expect([ran.status, ran.stdout]).toEqual([1, ''])
    expect(ran.stderr).toMatch(
      /\nsynguard: rotate-\S+ was not answered: the request by-hand stands in its place \[certs-replaced\]\n$/,
    )
  }, 60_000)

  it('sees keys, sidecars, waits, requests and conditions', async () => {
    const until = now() + 3_660
    await writeStatus(
      'identity',
      statusNow({
        phase: 'offered',
        keys: [
          { id: 'kid-a', state: 'active', since: now() - 7_200 },
          { id: 'kid-bc', state: 'prepared', since: now() - 90, forced: true },
        ],
        sidecars: { expected: 40, acknowledged: 15, missing: Array(25).fill('shop/web-1') },
        waits: [
          { code: 'rotation-waits-sidecars', message: 'They are named.', names: ['shop/web-1'], count: 25, until },
        ],
        answered: { request: 'monday', outcome: 'taken' },
        conditions: [{ code: 'rotation-request', message: 'identity: is no text.' }],
        scheduledAt: 1_900_000_000,
      }),
    )
    await request({ identity: 'abort tuesday', identty: 'rotate x' })
    const { status, stdout } = await certs(['status'])
    expect(status).toBe(1)
    const time = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ'
    const expected = [
      'identity  offered: all replicas give the new key out; sidecars take it up',
      `  key       kid-a   active    since ${time} \\(2 h\\)`,
      `  key       kid-bc  prepared  since ${time} \\(\\d+ s\\), forced`,
      `  sidecars  15 of 40 hold the latest keys; without them: ${Array(20).fill('shop/web-1').join(', ')} and 5 more`,
      `  waits     They are named. shop/web-1 and 24 more; goes on by itself at ${time} \\(in 61 min\\) \\[rotation-waits-sidecars\\]`,
      '  fix       look at the Pods named, or go on without them: synguard certs force identity',
      '  request   monday: taken',
      '  schedule  the next one begins at 2030-03-17T17:46:40Z',
      '  request   tuesday: abort, not answered yet',
      `  wrong     ${SYSTEM}/synguard-rotation, "identty": is neither identity nor serving.`,
      '  wrong     identity: is no text. \\[rotation-request\\]',
      '  fix       write it anew: synguard certs rotate identity',
      '',
      'serving  idle: one key, and no rotation under way',
    ]
    const lines = stdout.split('\n')
    expect(lines.slice(0, expected.length)).toEqual(
      expected.map((line) => expect.stringMatching(new RegExp(`^${line}$`))),
    )
  }, 60_000)

  it('sees the same as JSON, and that nothing is wrong by status 0', async () => {
    const { status, stdout } = await certs(['status', '--json'])
    const { data } = await control.admin.send<V1ConfigMap>({
      method: 'GET',
      path: `${CONFIGMAPS}/${CONFIGMAP_ROTATION_STATUS}`,
    })
    const entry = (kind: RotationKind) => ({ status: JSON.parse(data?.[kind] ?? ''), faults: [] })
    expect([status, JSON.parse(stdout)]).toEqual([0, { identity: entry('identity'), serving: entry('serving') }])
  }, 60_000)

  it("sees that a status is nobody's any more, or was spoilt", async () => {
    await writeStatus('identity', statusNow({ at: 1_800_000_000 - 86_400 * 365 }))
    await merge(CONFIGMAP_ROTATION_STATUS, { data: { serving: '{"sidecars": 7}' } })
    const { status, stdout } = await certs(['status'])
    expect(status).toBe(1)
    expect(stdout).toContain(
      '  wrong     no replica of the webhook has written this status since 2026-01-15T08:00:00Z\n',
    )
    expect(stdout).toContain(
      `serving  not known\n  wrong     ${SYSTEM}/synguard-rotation-status, serving.sidecars: is no object.\n`,
    )
  }, 60_000)

  it('sees each change while they watch', async () => {
    const child = startCerts(['status', '--watch', '--json'], operator)
    try {
      const phases: string[] = []
      let rest = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        const lines = (rest + text).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines)
          phases.push((JSON.parse(line) as { identity: { status: RotationStatus } }).identity.status.phase)
      })
      await until('the first', () => phases.length === 1)
      await writeStatus('identity', statusNow({ at: now() + 1 }))
      await writeStatus('identity', statusNow({ phase: 'prepared' }))
      await until('the second', () => phases.length === 2)
      await writeStatus('identity', statusNow({ phase: 'offered' }))
      await until('the third', () => phases.length === 3)
      expect(phases).toEqual(['idle', 'prepared', 'offered'])
    } finally {
      child.kill()
    }
  }, 60_000)

  it('makes the ConfigMap of requests again where it was deleted', async () => {
    await control.admin.send({ method: 'DELETE', path: `${CONFIGMAPS}/${CONFIGMAP_ROTATION}` })
    const [ran, id] = await Promise.all([certs(['rotate', 'serving']), answerNext('serving', { outcome: 'taken' })])
    expect([ran.status, await readRequests()]).toEqual([0, { serving: `rotate ${id}` }])
  }, 60_000)

  it('needs kubectl alone', async () => {
    const written = await kubectl([
      'patch',
      'configmap',
      'synguard-rotation',
      '--type',
      'merge',
      '-p',
      '{"data":{"identity":"rotate monday"}}',
    ])
    expect([written.status, written.stderr]).toEqual([0, ''])
    expect(await answerNext('identity', { outcome: 'taken' }, { phase: 'prepared' })).toBe('monday')
    const waits = ['jsonpath={.data.identity-answered}=monday', 'jsonpath={.data.identity-phase}=prepared'].map(
      (condition) => kubectl(['wait', 'configmap/synguard-rotation-status', '--for', condition, '--timeout', '10s']),
    )
    expect((await Promise.all(waits)).map(({ status, stderr }) => [status, stderr])).toEqual([
      [0, ''],
      [0, ''],
    ])
    const shown = await kubectl(['get', 'configmap', 'synguard-rotation-status', '-o', 'jsonpath={.data.identity}'])
    expect(JSON.parse(shown.stdout)).toMatchObject({ phase: 'prepared', answered: { request: 'monday' } })
  }, 60_000)

  it.each([
    [['get', 'secret', 'synguard-authority']],
    [['get', 'secrets']],
    [['patch', 'configmap', 'synguard-rotation-status', '--type', 'merge', '-p', '{"data":{"identity":""}}']],
    [['patch', 'configmap', 'synguard-voids', '--type', 'merge', '-p', '{"data":{"shop.web-1":"revoke"}}']],
    [['get', 'configmaps']],
    [['create', 'configmap', 'other']],
    [['delete', 'configmap', 'synguard-rotation']],
    [['create', 'token', 'web']],
    [['get', 'configmap', 'synguard-rotation', '-n', 'default']],
    [['get', 'pods']],
  ])(
    'may not: kubectl %j',
    async (args) => {
      const { status, stdout, stderr } = await kubectl(args)
      expect([status, stdout]).toEqual([1, ''])
      expect(stderr).toMatch(/Forbidden|forbidden/)
      expect(stderr).not.toContain(PRIVATE)
    },
    60_000,
  )

  it('needs the role, which is named to whoever lacks it', async () => {
    for (const args of [['status'], ['rotate', 'identity']]) {
      const { status, stdout, stderr } = await certs(args, stranger)
      expect([status, stdout]).toEqual([2, ''])
      expect(stderr).toMatch(
        new RegExp(
          `^synguard: you may not get configmaps in the namespace ${SYSTEM}; the ClusterRole synguard-operator, bound in namespace ${SYSTEM}, gives the right \\[api-refused\\]\\n$`,
        ),
      )
    }
    expect((await readRequests())?.identity).toBeUndefined()
  }, 60_000)
})
