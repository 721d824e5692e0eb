/** What a namespace's policies cost: set-up, a change, the start of a Pod, memory. */
import { performance } from 'node:perf_hooks'
import { compile } from '../../../policy/compile.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { createGatePolicy } from '../../../sidecar/datapath/gate.ts'
import { connect, ECHO_PORT } from '../load.ts'
import { residentMegabytes } from '../process-cost.ts'
import { median, type Spread } from '../statistics.ts'
import { addressOf, type Field, pause, sidecarPid } from './field.ts'
import { CALLERS, PLAIN, SERVERS } from './namespaces.ts'
import { makePolicies, putCallersPolicy, putPolicies } from './policies.ts'
import { awaitReview, stateOfReviews } from './reviews.ts'
import { measureSetUp, type Pair } from './set-up.ts'

export interface PoliciesPoint {
  readonly policies: number
  readonly plainMicroseconds: number
  readonly guardedMicroseconds: number
  readonly ratio: Spread
  /** From the change of a file to the end of the review behind it. */
  readonly changeMilliseconds: number
  /** The slowest set-up of a connection while that change came. */
  readonly slowestMicroseconds: number
  /** Compiling the policies for the server's Pod, alone. */
  readonly compileMilliseconds: number
  /** From the start of a Pod with these policies to ready. */
  readonly readyMilliseconds: number
  readonly rssMegabytes: number
}

const ROUNDS = { rounds: 7, connections: 1_500 }
const CHANGES = 3
/** Connections that certainly outlast a change: it takes longer where there are more policies. */
const connectionsDuring = (policies: number): number => 2_000 + policies * 3

function compileMilliseconds(count: number): number {
  const list = { apiVersion: 'v1', kind: 'List', items: makePolicies(count) }
  const policies = parseNetworkPolicies(JSON.stringify(list), 'list.json')
  const times = Array.from({ length: 5 }, () => {
    const begun = performance.now()
    createGatePolicy(compile(policies, { namespace: SERVERS, labels: { app: 'server' }, ports: [] }))
    return performance.now() - begun
  })
  return median(times)
}

async function measureChange(field: Field, guarded: Pair, count: number, port: number) {
  const target = { client: guarded.client, address: addressOf(guarded.server), port: ECHO_PORT }
  const before = await stateOfReviews(guarded.server)
  const load = connect(field.load, target, connectionsDuring(count), 1)
  await pause(100)
  const { milliseconds } = await awaitReview(guarded.server, before, () => putCallersPolicy(field.lab, port))
  const { succeeded, connections, firstError, ...figures } = await load
  if (succeeded !== connections) throw new Error(`a connection failed: ${firstError}`)
  return { milliseconds, slowest: 'echoMaximum' in figures ? Number(figures.echoMaximum) : Number.NaN }
}

async function measureReady(field: Field, count: number): Promise<number> {
  const name = `fresh-${count}`
  const admitted = await field.admit(SERVERS, name, 'server')
  const begun = performance.now()
  await field.lab.runPod(admitted)
  const milliseconds = performance.now() - begun
  await field.lab.stopPod(`${SERVERS}/${name}`)
  return milliseconds
}

async function measurePoint(field: Field, plain: Pair, guarded: Pair, policies: number): Promise<PoliciesPoint> {
  const before = await stateOfReviews(guarded.server)
  // The port makes it a change where the policies are those of the point before.
  await awaitReview(guarded.server, before, () => putPolicies(field.lab, policies))
  await settleReviews(guarded)
  const setUp = await measureSetUp(field, plain, guarded, ROUNDS)
  const rssMegabytes = residentMegabytes(sidecarPid(guarded.server))
  const changes = []
  for (let i = 0; i < CHANGES; i++) changes.push(await measureChange(field, guarded, policies, 7100 + i))
  return {
    policies,
    ...setUp,
    changeMilliseconds: median(changes.map(({ milliseconds }) => milliseconds)),
    slowestMicroseconds: median(changes.map(({ slowest }) => slowest)),
    compileMilliseconds: compileMilliseconds(policies),
    readyMilliseconds: await measureReady(field, policies),
    rssMegabytes,
  }
}

/** Files are written one after the other, and a reading may take the first of them alone. */
async function settleReviews({ server }: Pair): Promise<void> {
  for (let last = -1, count = 0; count !== last; ) {
    last = count
    await pause(1_000)
    count = (await stateOfReviews(server)).count
  }
}

export async function measurePolicies(
  field: Field,
  sizes: readonly number[],
  onPoint: (point: PoliciesPoint) => void,
): Promise<void> {
  putCallersPolicy(field.lab, 7200)
  const pair = async (namespace: string, callers: string): Promise<Pair> => ({
    client: await field.run(callers, 'client', 'client'),
    server: await field.run(namespace, 'server', 'server'),
  })
  const [plain, guarded] = [await pair(PLAIN, PLAIN), await pair(SERVERS, CALLERS)]
  for (const { server } of [plain, guarded]) await field.serve(server)
  for (const size of sizes) {
    onPoint(await measurePoint(field, plain, guarded, size))
  }
}
