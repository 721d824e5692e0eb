/** How long a change of policies takes to end running connections, and to find that it ends none. */
import type { RunningPod } from '../../../lab/pod.ts'
import { residentMegabytes } from '../process-cost.ts'
import { addressOf, type Field, pause, sidecarPid } from './field.ts'
import { type End, endOf } from './flow-ends.ts'
import { CALLERS, SERVERS } from './namespaces.ts'
import { awaitReview, stateOfReviews } from './reviews.ts'

export interface RevocationPoint {
  /** Connections to one Pod that its kernel passes without asking. */
  readonly flows: number
  readonly deniedFlows: number
  /** From the change of a policy until the last denied connection had ended there. */
  readonly endedAtServerMilliseconds: number
  readonly endedAtClientsMilliseconds: number
  /** From a change that denies nothing to the end of its review. */
  readonly changeMilliseconds: number
  /** Of these, the review alone: both its passes. */
  readonly reviewMilliseconds: number
  readonly rssMegabytes: number
}

/** Client Pods; one of them is denied, and each has a tenth of the connections. */
const CLIENTS = 10
const FIRST_PORT = 7100
const DENIED_CLIENT = 0
const DEADLINE_MILLISECONDS = 90_000

interface Crowd {
  readonly server: RunningPod
  readonly clients: readonly End[]
  readonly servers: readonly End[]
}

/** A process for each client at the server too: no process may have more than some 10,000 descriptors everywhere. */
async function createCrowd(field: Field): Promise<Crowd> {
  const server = await field.run(SERVERS, 'server', 'server')
  const clients: End[] = []
  const servers: End[] = []
  for (let index = 0; index < CLIENTS; index++) {
    const port = FIRST_PORT + index
    const serving = endOf(field.start(server, field.flows, 'serve', String(port)))
    await serving.next()
    const client = await field.run(CALLERS, `client-${index}`, `client-${index}`)
    servers.push(serving)
    clients.push(endOf(field.start(client, field.flows, 'hold', addressOf(server), String(port))))
  }
  return { server, clients, servers }
}

/** Lets all callers in but those with a label; `unused` makes it another policy that allows the same. */
function putPolicy(field: Field, denied: string, unused: number): void {
  const from = [
    {
      namespaceSelector: { matchLabels: { team: CALLERS } },
      podSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: [denied, `unused-${unused}`] }] },
    },
  ]
  field.lab.putPolicy(SERVERS, 'server', {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'server', namespace: SERVERS },
    spec: { podSelector: { matchLabels: { app: 'server' } }, policyTypes: ['Ingress'], ingress: [{ from }] },
  })
}

async function openAll({ clients, servers }: Crowd, each: number): Promise<void> {
  const states = await Promise.all(clients.map((client) => client.ask(`open ${each}`)))
  for (const { open, failed, firstError } of states) {
    if (open !== each) throw new Error(`${open} of ${each} connections are open; ${failed} failed: ${firstError}`)
  }
  for (const server of servers) await server.ask('open 0')
}

async function awaitEnded(end: End, count: number): Promise<number> {
  for (const begun = Date.now(); Date.now() - begun < DEADLINE_MILLISECONDS; await pause(20)) {
    const { ended, lastEnded } = await end.ask('state')
    if (ended >= count) return lastEnded
  }
  const { ended } = await end.ask('state')
  throw new Error(`${ended} of ${count} denied connections have ended`)
}

/** Denies one client and waits until both ends of all its connections have ended; nobody else's may. */
async function measureDenial(field: Field, crowd: Crowd, each: number, round: number) {
  const [client, serving] = [crowd.clients[DENIED_CLIENT], crowd.servers[DENIED_CLIENT]]
  if (client === undefined || serving === undefined) throw new Error('nobody is denied')
  const before = await stateOfReviews(crowd.server)
  const begun = Number(process.hrtime.bigint() / 1_000n)
  await awaitReview(crowd.server, before, () => putPolicy(field, `client-${DENIED_CLIENT}`, round))
  const [atServer, atClients] = [await awaitEnded(serving, each), await awaitEnded(client, each)]
  for (const [index, other] of crowd.clients.entries()) {
    const { ended } = await other.ask('state')
    if (index !== DENIED_CLIENT && ended > 0) throw new Error(`${ended} connections ended that are allowed`)
  }
  return {
    endedAtServerMilliseconds: (atServer - begun) / 1_000,
    endedAtClientsMilliseconds: (atClients - begun) / 1_000,
  }
}

async function measurePoint(field: Field, crowd: Crowd, flows: number, round: number): Promise<RevocationPoint> {
  const each = Math.round(flows / CLIENTS)
  await openAll(crowd, each)
  await pause(1_000)
  const before = await stateOfReviews(crowd.server)
  const unchanged = await awaitReview(crowd.server, before, () => putPolicy(field, 'nobody', 2 * round + 1))
  const rssMegabytes = residentMegabytes(sidecarPid(crowd.server))
  const denial = await measureDenial(field, crowd, each, 2 * round + 2)
  const denied = await stateOfReviews(crowd.server)
  await awaitReview(crowd.server, denied, () => putPolicy(field, 'nobody', 2 * round + 2))
  return {
    flows,
    deniedFlows: each,
    ...denial,
    changeMilliseconds: unchanged.milliseconds,
    reviewMilliseconds: unchanged.reviewMilliseconds,
    rssMegabytes,
  }
}

export async function measureRevocation(
  field: Field,
  sizes: readonly number[],
  onPoint: (point: RevocationPoint) => void,
): Promise<void> {
  putPolicy(field, 'nobody', 0)
  const crowd = await createCrowd(field)
  for (const [round, size] of sizes.entries()) {
    onPoint(await measurePoint(field, crowd, size, round))
  }
}
