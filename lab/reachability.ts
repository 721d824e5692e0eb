import type { NetworkPolicy } from '../policy/types.ts'
import type { Agent } from './agent-client.ts'
import { isReached, type Reached } from './agent-protocol.ts'
import { addressPair, type Connection, EXTERNAL, judgeConnection, NODE, type Place } from './judge.ts'
import type { Lab } from './lab.ts'

export interface Result extends Connection {
  readonly reachable: boolean
  /** `ingress namespace/policy`, `egress namespace/policy` or `none`. */
  readonly decidedBy: string
  readonly reason: string
}

/** Attempts under way at once from one place: more only makes them slower. */
const PARALLEL = 8
const TCP_TIMEOUT_MS = 6_000
const UDP_TIMEOUT_MS = 6_000

/** What the engine alone says of each connection. */
export function explainConnections(
  connections: readonly Connection[],
  places: readonly Place[],
  policies: readonly NetworkPolicy[],
): Result[] {
  const byName = new Map(places.map((place) => [place.name, place]))
  return connections.flatMap((connection) => {
    const [from, to] = [byName.get(connection.from), byName.get(connection.to)]
    if (from === undefined || to === undefined) return []
    return [{ ...connection, ...judgeConnection(from, to, connection, policies) }]
  })
}

function agentOf(lab: Lab, place: string): Agent {
  if (place === NODE) return lab.node
  if (place === EXTERNAL) return lab.external
  const pod = lab.pods.get(place)
  if (pod === undefined) throw new Error(`${place} does not run`)
  return pod.agent
}

async function attempt(lab: Lab, connection: Connection, from: Place, to: Place): Promise<Reached> {
  const address = addressPair(from, to)?.destination
  if (address === undefined) return { outcome: 'unreachable', microseconds: 0 }
  const protocol = connection.protocol === 'UDP' ? 'UDP' : 'TCP'
  const timeoutMs = protocol === 'UDP' ? UDP_TIMEOUT_MS : TCP_TIMEOUT_MS
  const target = { protocol, address, port: connection.port } as const
  return await agentOf(lab, connection.from).ask({ do: 'reach', target, timeoutMs })
}

/** The network's word, explained by the engine's; where they differ the reason begins by saying so. */
function combine(expected: Result, reached: Reached): Result {
  const reachable = isReached(reached)
  if (reachable === expected.reachable) return expected
  const network = reachable ? 'the network let it through' : `the network did not (${reached.error ?? reached.outcome})`
  const engine = expected.reachable ? 'allows it' : 'denies it'
  return { ...expected, reachable, reason: `${DISAGREEMENT}: ${network}, the engine ${engine}: ${expected.reason}` }
}

const DISAGREEMENT = 'network and engine disagree'

export function isDisagreement({ reason }: Result): boolean {
  return reason.startsWith(DISAGREEMENT)
}

/** Tries every connection (TCP and UDP) in the lab; results stand in the order of the connections. */
export async function tryConnections(
  lab: Lab,
  connections: readonly Connection[],
  places: readonly Place[],
  policies: readonly NetworkPolicy[],
): Promise<Result[]> {
  const byName = new Map(places.map((place) => [place.name, place]))
  const expected = explainConnections(connections, places, policies)
  const results: Result[] = new Array(expected.length)
  const queues = new Map<string, number[]>()
  for (const [index, { from }] of expected.entries()) queues.set(from, [...(queues.get(from) ?? []), index])
  const work = async (queue: number[]) => {
    for (let index = queue.shift(); index !== undefined; index = queue.shift()) {
      const judged = expected[index]
      const [from, to] = [byName.get(judged?.from ?? ''), byName.get(judged?.to ?? '')]
      if (judged === undefined || from === undefined || to === undefined) continue
      results[index] = combine(judged, await attempt(lab, judged, from, to))
    }
  }
  await Promise.all([...queues.values()].flatMap((queue) => Array.from({ length: PARALLEL }, () => work(queue))))
  return results
}
