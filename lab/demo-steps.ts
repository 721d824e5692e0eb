/** What the demo measures in a running lab. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SIDECAR_HEALTH_PORT, VOLUME_STATE } from '../api/names.ts'
import type { Target } from './agent-protocol.ts'
import type { RunningPod } from './pod.ts'

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

export function targetOf(pod: RunningPod, port: number): Target {
  return { protocol: 'TCP', address: pod.network.addresses[0] ?? '', port }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? 0
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2
}

/** The peers whose identity the Pod's sidecar verified, as `namespace/name`, from its identity table. */
export function readSeenIdentities(pod: RunningPod): string[] {
  const path = join(pod.volumes.get(VOLUME_STATE) ?? '', 'identities.jsonl')
  if (!existsSync(path)) return []
  const rows = readFileSync(path, 'utf8').split('\n').filter(Boolean)
  const names = rows.map((row) => {
    const { identity } = JSON.parse(row) as { identity: { namespace: string; name: string } }
    return `${identity.namespace}/${identity.name}`
  })
  return [...new Set(names)].sort()
}

export interface HandshakeTimes {
  readonly plainMicroseconds: number
  readonly guardedMicroseconds: number
  readonly ratio: number
  readonly connections: number
}

interface Pair {
  readonly client: RunningPod
  readonly server: RunningPod
  readonly port: number
}

const WARM_UP_ROUNDS = 10

/** Medians of the time to the server's first byte, plain and guarded in turn, so that both have the same neighbours. */
export async function measureHandshakes(
  plain: Pair,
  guarded: Pair,
  rounds = 10,
  perRound = 40,
): Promise<HandshakeTimes> {
  const measure = async ({ client, server, port }: Pair) =>
    median(await client.agent.ask({ do: 'measure', target: targetOf(server, port), count: perRound }))
  // First contact and cold code are not what is compared.
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    await measure(plain)
    await measure(guarded)
  }
  const plainMedians: number[] = []
  const guardedMedians: number[] = []
  for (let round = 0; round < rounds; round++) {
    plainMedians.push(await measure(plain))
    guardedMedians.push(await measure(guarded))
  }
  const [plainMicroseconds, guardedMicroseconds] = [median(plainMedians), median(guardedMedians)]
  const ratio = Math.round((guardedMicroseconds / plainMicroseconds) * 100) / 100
  return { plainMicroseconds, guardedMicroseconds, ratio, connections: 2 * rounds * perRound }
}

export interface Revocation {
  /** How each end learnt of it: an errno name, or `closed`. */
  readonly client: string
  readonly server: string
  readonly clientMilliseconds: number
  readonly bothEnded: boolean
}

/** Opens a connection, changes the policies by `deny`, and waits for it to end at both ends. */
export async function revokeOpenConnection({ client, server, port }: Pair, deny: () => void): Promise<Revocation> {
  const connection = `revoked-${Date.now()}`
  const opened = await client.agent.ask({ do: 'open', target: targetOf(server, port), connection })
  if (opened.outcome !== 'answered') throw new Error(`the connection to revoke did not open: ${opened.error}`)
  const before = await server.agent.ask({ do: 'served' })
  const start = Date.now()
  deny()
  const ended = await client.agent.ask({ do: 'ended', connection, timeoutMs: 10_000 })
  const clientMilliseconds = Date.now() - start
  let served = await server.agent.ask({ do: 'served' })
  while (served.open >= before.open && Date.now() < start + 10_000) {
    await pause(20)
    served = await server.agent.ask({ do: 'served' })
  }
  const bothEnded = served.open < before.open
  return {
    client: ended.how,
    server: bothEnded ? (served.endings.at(-1) ?? '') : 'stands',
    clientMilliseconds,
    bothEnded,
  }
}

/** The sum over a sidecar's counter of queued packets, asked over the Pod's loopback, which is never queued. */
export async function readQueuedPackets(pod: RunningPod): Promise<number> {
  await pause(METRICS_DELAY_MS)
  const request = {
    do: 'httpGet',
    address: '127.0.0.1',
    port: SIDECAR_HEALTH_PORT,
    path: '/metrics',
    timeoutMs: 5000,
  } as const
  const { body } = await pod.agent.ask(request)
  const lines = body.split('\n').filter((line) => line.startsWith('synguard_packets_queued_total{'))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

/** The data path hands its counters over once a second. */
const METRICS_DELAY_MS = 1_500

export interface Transfer {
  readonly bytes: number
  readonly milliseconds: number
  readonly megabytesPerSecond: number
  /** Packets that went through either sidecar's queue meanwhile. */
  readonly queuedPackets: number
}

export async function transferBulk({ client, server, port }: Pair, bytes: number): Promise<Transfer> {
  const queued = async () => (await Promise.all([client, server].map(readQueuedPackets))).reduce((sum, n) => sum + n, 0)
  const before = await queued()
  const { milliseconds } = await client.agent.ask({ do: 'transfer', target: targetOf(server, port), bytes })
  const queuedPackets = (await queued()) - before
  return { bytes, milliseconds, megabytesPerSecond: Math.round(bytes / 1000 / milliseconds), queuedPackets }
}
