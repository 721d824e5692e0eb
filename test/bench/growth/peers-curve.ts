/** What the peers that a server's sidecar knows cost: set-up time and memory. */
import { residentMegabytes } from '../process-cost.ts'
import type { Spread } from '../statistics.ts'
import { createCrowd } from './crowd.ts'
import { type Field, pause, readMetrics, sidecarPid } from './field.ts'
import { CALLERS, PLAIN, SERVERS } from './namespaces.ts'
import { putCallersPolicy } from './policies.ts'
import { measureSetUp, measureTurns, type Pair } from './set-up.ts'

export interface PeersPoint {
  /** That the server's sidecar knows, the measuring clients among them. */
  readonly peers: number
  readonly plainMicroseconds: number
  readonly guardedMicroseconds: number
  readonly ratio: Spread
  /** Two clients in turn: each connection comes from another peer than the one before. */
  readonly turnsPlainMicroseconds: number
  readonly turnsMicroseconds: number
  readonly turnsRatio: Spread
  readonly rssMegabytes: number
}

const ROUNDS = { rounds: 7, connections: 1_500 }
/** Counters are told once a second. */
const SETTLE_MILLISECONDS = 1_500

type Pairs = readonly [Pair, Pair]

async function makePairs(field: Field, servers: string, callers: string): Promise<Pairs> {
  const server = await field.run(servers, 'server', 'server')
  await field.serve(server)
  const client = (name: string) => field.run(callers, name, 'client')
  return [
    { server, client: await client('client-1') },
    { server, client: await client('client-2') },
  ]
}

async function measurePoint(field: Field, plain: Pairs, guarded: Pairs): Promise<PeersPoint> {
  const setUp = await measureSetUp(field, plain[0], guarded[0], ROUNDS)
  const turns = await measureTurns(field, plain, guarded, ROUNDS)
  await pause(SETTLE_MILLISECONDS)
  const peers = (await readMetrics(guarded[0].server)).get('synguard_known_peers') ?? 0
  return {
    peers,
    ...setUp,
    turnsPlainMicroseconds: turns.plainMicroseconds,
    turnsMicroseconds: turns.guardedMicroseconds,
    turnsRatio: turns.ratio,
    rssMegabytes: residentMegabytes(sidecarPid(guarded[0].server)),
  }
}

export async function measurePeers(
  field: Field,
  sizes: readonly number[],
  onPoint: (point: PeersPoint) => void,
): Promise<void> {
  putCallersPolicy(field.lab, 7200)
  const [plain, guarded] = [await makePairs(field, PLAIN, PLAIN), await makePairs(field, SERVERS, CALLERS)]
  const crowd = await createCrowd(field, guarded[0].server)
  try {
    let known = 2
    for (const size of sizes) {
      if (size > known) {
        await crowd.introduce(size - known)
        known = size
      }
      onPoint(await measurePoint(field, plain, guarded))
    }
  } finally {
    crowd.stop()
  }
}
