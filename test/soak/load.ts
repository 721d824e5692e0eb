/** Batches of connections: load.c of the bench, with a line for each connection that went wrong. */
import { runCommand } from '../../lab/command.ts'
import type { RunningPod } from '../../lab/pod.ts'
import { inside } from '../lab/programs.ts'
import type { Incident } from './account.ts'

/** Where connections go: an address of one server, or of the Service in front of several. */
export interface Path {
  readonly name: string
  readonly address: string
  readonly port: number
  /** Names of the Pods that may answer. */
  readonly servers: readonly string[]
}

export interface BatchResult {
  readonly attempted: number
  readonly succeeded: number
  readonly incidents: readonly Incident[]
  /** Milliseconds since 1970. */
  readonly begunAtMs: number
  readonly endedAtMs: number
}

/** load.c gives up after 60 s by itself. */
const TIMEOUT_MILLISECONDS = 90_000

/** One run of `load connect`. */
export async function runBatch(
  load: string,
  client: RunningPod,
  path: Path,
  count: number,
  parallel: number,
): Promise<BatchResult> {
  const begunAtMs = Date.now()
  const command = [load, 'connect', path.address, String(path.port), String(count), String(parallel), 'each']
  const output = await runCommand('ip', inside(client, ...command), { timeoutMs: TIMEOUT_MILLISECONDS })
  const lines = output.trim().split('\n')
  const figures = JSON.parse(lines.pop() ?? '') as { succeeded: number; unfinished: number }
  const about = { client: client.pod.metadata?.name ?? '', path: path.name, servers: path.servers, parallel }
  const incidents = lines.map((line): Incident => ({ ...about, ...JSON.parse(line) }))
  // Those that were to begin after load.c's deadline were never attempted.
  const unfinished = incidents.filter(({ event }) => event === 'unfinished').length
  return {
    attempted: count - figures.unfinished + unfinished,
    succeeded: figures.succeeded,
    incidents,
    begunAtMs,
    endedAtMs: Date.now(),
  }
}
