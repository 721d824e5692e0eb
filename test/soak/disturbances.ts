/** What is done to the Pods while they are under load, one thing after the other. */
import type { Random } from '../fuzz/random.ts'
import type { Denial, Kill } from './account.ts'
import { type ClientName, type Field, LABELS, VICTIMS } from './field.ts'
import { type BatchResult, runBatch } from './load.ts'
import { askSidecar, sidecarOf, type Totals } from './samples.ts'

export const DISTURBANCES = ['kill', 'policy', 'relabel', 'kill', 'policy', 'note'] as const
export type Disturbance = (typeof DISTURBANCES)[number]

export interface Disturbances {
  readonly kills: readonly Kill[]
  readonly denials: readonly Denial[]
  /** Changes of labels that no policy asks for. */
  readonly notes: number
  /** What did not come about in its time, or a denied client that got through. */
  readonly problems: readonly string[]
  /** Does the next one; resolves once it is over. */
  next(): Promise<void>
  isDenied(client: string): boolean
}

/** Ten times what a change may take to be in force; a safety deadline, not a measurement. */
const SETTLE_MILLISECONDS = 10_000
const READY_MILLISECONDS = 30_000
const POLL_MILLISECONDS = 50
/** Connections of a denied client, each of which must be refused. */
const DENIED_CONNECTIONS = 200

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

/** Waits until the condition holds; false where it does not within the time. */
async function within(milliseconds: number, holds: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + milliseconds; Date.now() < deadline; await pause(POLL_MILLISECONDS)) {
    if (await holds()) return true
  }
  return false
}

export function createDisturbances(field: Field, totals: Totals, random: Random): Disturbances {
  const kills: Kill[] = []
  const denials: Denial[] = []
  const problems: string[] = []
  let notes = 0
  let done = 0

  const podOf = (name: string) => {
    const pod = field.guarded.get(name)
    if (pod === undefined) throw new Error(`no Pod ${name}`)
    return pod
  }

  async function kill(): Promise<void> {
    const name = VICTIMS[kills.length % VICTIMS.length] ?? ''
    const pod = podOf(name)
    const sidecar = sidecarOf(pod)
    const before = sidecar.restarts()
    await totals.keep(pod)
    const record: Kill = { pod: name, atMs: Date.now(), readyAtMs: Number.POSITIVE_INFINITY }
    kills.push(record)
    sidecar.current().kill('SIGKILL')
    const isReady = async () => {
      if (sidecar.restarts() === before) return false
      return await askSidecar(pod, '/readyz').then(
        ({ status }) => status === 200,
        () => false,
      )
    }
    if (await within(READY_MILLISECONDS, isReady)) record.readyAtMs = Date.now()
    else problems.push(`${name}: its sidecar was not ready within ${READY_MILLISECONDS} ms of a kill`)
  }

  /** Whether all servers answer the client, or all refuse it. */
  async function seesEveryServer(client: ClientName, answering: boolean): Promise<boolean> {
    const direct = field.paths.filter(({ servers }) => servers.length === 1)
    const probes = direct.map((path) => runBatch(field.load, podOf(client), path, 1, 1))
    return (await Promise.all(probes)).every(({ succeeded }) => succeeded === (answering ? 1 : 0))
  }

  /** Denies a client, sees that each of its connections is refused, and allows it again. */
  async function deny(client: ClientName, how: Denial['how'], set: (allowed: boolean) => Promise<void>): Promise<void> {
    const never = Number.POSITIVE_INFINITY
    const denial: Denial = { client, how, atMs: Date.now(), settledAtMs: never, liftedAtMs: never, endedAtMs: never }
    denials.push(denial)
    await set(false)
    if (await within(SETTLE_MILLISECONDS, () => seesEveryServer(client, false))) {
      denial.settledAtMs = Date.now()
      const path = random.pick(field.paths)
      checkDenied(await runBatch(field.load, podOf(client), path, DENIED_CONNECTIONS, 8), client, path.name)
    } else {
      problems.push(`${client}: not denied (${how}) within ${SETTLE_MILLISECONDS} ms`)
    }
    denial.liftedAtMs = Date.now()
    await set(true)
    if (!(await within(SETTLE_MILLISECONDS, () => seesEveryServer(client, true)))) {
      problems.push(`${client}: not allowed again (${how}) within ${SETTLE_MILLISECONDS} ms`)
    }
    denial.endedAtMs = Date.now()
  }

  function checkDenied({ succeeded }: BatchResult, client: string, path: string): void {
    if (succeeded > 0) problems.push(`${client}: ${succeeded} connections over ${path} while it was denied`)
  }

  async function change(): Promise<void> {
    const isIngress = denials.filter(({ client }) => client === 'turned').length % 2 === 0
    await deny('turned', isIngress ? 'ingress' : 'egress', async (allowed) =>
      field.putPolicies({ ingress: allowed || !isIngress, egress: allowed || isIngress }),
    )
  }

  const actions: Readonly<Record<Disturbance, () => Promise<void>>> = {
    kill,
    policy: change,
    relabel: () =>
      deny('labelled', 'labels', (allowed) =>
        field.lab.relabelPod('guarded/labelled', allowed ? LABELS.allowed : LABELS.denied),
      ),
    async note() {
      notes++
      await field.lab.relabelPod('guarded/steady', { app: 'steady', role: 'client', note: String(notes % 3) })
    },
  }

  return {
    kills,
    denials,
    problems,
    get notes() {
      return notes
    },
    async next() {
      await actions[DISTURBANCES[done++ % DISTURBANCES.length] ?? 'note']()
    },
    isDenied: (client) => denials.some((denial) => denial.client === client && denial.endedAtMs > Date.now()),
  }
}
