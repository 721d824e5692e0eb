/** What it takes to list policies that are as large as the API server stores them. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { DEFAULT_INJECTION_SETTINGS, NODE_FLAGS } from '../../webhook/admission/settings.ts'
import { createControlGroup } from '../netns/limits/cgroup.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { storeAllUnvalidated } from './outage.ts'
import { pathOfPolicies } from './policies-stage.ts'
import { createNamespace } from './stage.ts'
import { writeKubeconfig } from './users.ts'

const POLICIES = 20
const MANY = 10_000
/** 63 characters, as long as a label's value may be: 1 MB of JSON a policy. */
const VALUES = 15_000
/** The sidecar's own limit (webhook/admission/settings.ts). */
const LIMIT_MIB = Number.parseInt(DEFAULT_INJECTION_SETTINGS.resources.memoryLimit, 10)

let control: ControlPlane
beforeAll(async () => {
  control = await startControlPlane()
  await createNamespace(control.admin, 'large')
  await createNamespace(control.admin, 'usual')
  await createNamespace(control.admin, 'many')
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(() => control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

function specOf(number: number, values: number): object {
  const label = (index: number) => `${number}-${index}`.padEnd(63, 'x')
  const podSelector = {
    matchExpressions: [
      { key: 'app', operator: 'In', values: Array.from({ length: values }, (_, index) => label(index)) },
    ],
  }
  return { podSelector: {}, policyTypes: ['Ingress'], ingress: [{ from: [{ podSelector }] }] }
}

async function put(namespace: string, number: number, values: number): Promise<void> {
  const body = { metadata: { name: `policy-${number}` }, spec: specOf(number, values) }
  await control.admin.send({ method: 'POST', path: pathOfPolicies(namespace), body })
}

async function putAll(namespace: string, count: number, values: number): Promise<void> {
  let next = 0
  const write = async () => {
    while (next < count) await put(namespace, next++, values)
  }
  await Promise.all(Array.from({ length: 4 }, write))
}

interface Listing {
  readonly policies: number
  /** How many each request asked for. */
  readonly limits: readonly string[]
  /** Until all were read, and compiled for one Pod; mebibytes that were resident at most. */
  readonly took: {
    readonly milliseconds: number
    readonly compileMilliseconds: number
    readonly memory: number
    readonly rules: number
  }
}

/**
 * A process of its own, with Node's flags and the memory of a sidecar, lists a namespace's policies by the sidecar's own
 * source. Undefined where the kernel ended it for want of memory.
 */
async function list(namespace: string): Promise<Listing | undefined> {
  const script = join(import.meta.dirname, 'list-policies.ts')
  const kubeconfig = await writeKubeconfig(control, {})
  // It joins the group before its first page is counted.
  const words = ['-c', 'read -r; exec "$@"', 'list', process.execPath, ...NODE_FLAGS, script, kubeconfig, namespace]
  const child = spawn('bash', words, { stdio: ['pipe', 'pipe', 'pipe'] })
  const group = createControlGroup(namespace)
  try {
    group.setMemory(LIMIT_MIB * 1_048_576)
    if (child.pid !== undefined) group.add(child.pid)
    child.stdin.end('\n')
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text
      })
    }
    const code = await new Promise((done) => child.once('close', done))
    if (group.kills() > 0) return undefined
    if (code !== 0) throw new Error(said)
    return JSON.parse(said) as Listing
  } finally {
    child.kill('SIGKILL')
    await group.remove()
  }
}

describe('a list of policies', () => {
  it('takes one request where they are of usual sizes', async () => {
    await putAll('usual', 199, 2)
    expect(await list('usual')).toMatchObject({ policies: 199, limits: ['200'] })
  }, 60_000)

  it(`of ${MANY} fits the memory that a sidecar has, and each of them counts`, async () => {
    const objects = Array.from({ length: MANY }, (_, number) => {
      const name = `policy-${number}`
      const metadata = { name, namespace: 'many', uid: crypto.randomUUID(), creationTimestamp: '2026-01-01T00:00:00Z' }
      const head = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata }
      return { key: `networkpolicies/many/${name}`, object: { ...head, spec: specOf(number, 2) } }
    })
    await storeAllUnvalidated(control, objects)
    const listing = await list('many')
    process.stdout.write(`${MANY} policies: ${JSON.stringify(listing?.took)}\n`)
    expect(listing).toMatchObject({ policies: MANY, took: { rules: MANY } })
  }, 120_000)

  it('of a megabyte each fits the memory that a sidecar has', async () => {
    await putAll('large', POLICIES, VALUES)
    const pages = Array.from({ length: Math.ceil(POLICIES / 3) }, () => '3')
    expect(await list('large')).toMatchObject({ policies: POLICIES, limits: ['200', '50', '12', ...pages] })
  }, 120_000)
})
