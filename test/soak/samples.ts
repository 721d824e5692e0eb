/** What each sidecar holds and has counted, read from outside of it. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CONTAINER_SIDECAR, SIDECAR_HEALTH_PORT, VOLUME_STATE } from '../../api/names.ts'
import { runCommand } from '../../lab/command.ts'
import type { Supervised } from '../../lab/container.ts'
import type { RunningPod } from '../../lab/pod.ts'
import { residentMegabytes } from '../bench/process-cost.ts'
import { inside } from '../lab/programs.ts'

/** One sidecar after one part of the load. */
export interface Sample {
  readonly pod: string
  readonly part: number
  /** Of all Pods together, up to now. */
  readonly connections: number
  /** How often it was started again: figures of two processes are not compared. */
  readonly restarts: number
  readonly rssMegabytes: number
  readonly descriptors: number
  readonly identityRows: number
  readonly knownPeers: number
  /** Size of the identity table's file. */
  readonly stateBytes: number
  /** Entries in the Pod's network namespace. */
  readonly conntrackEntries: number
}

/** Metrics by name and labels as they are printed, without the common prefix. */
export type Metrics = ReadonlyMap<string, number>

const PREFIX = 'synguard_'

export function sidecarOf(pod: RunningPod): Supervised {
  const sidecar = pod.containers.get(CONTAINER_SIDECAR)
  if (sidecar === undefined) throw new Error(`${pod.pod.metadata?.name} has no sidecar`)
  return sidecar
}

/** Asks the sidecar's health server, from inside of its Pod. */
export async function askSidecar(pod: RunningPod, path: string): Promise<{ status: number; body: string }> {
  const address = '127.0.0.1'
  return await pod.agent.ask({ do: 'httpGet', address, port: SIDECAR_HEALTH_PORT, path, timeoutMs: 10_000 })
}

export async function readMetrics(pod: RunningPod): Promise<Metrics> {
  const { body } = await askSidecar(pod, '/metrics')
  const lines = body.split('\n').filter((line) => line.startsWith(PREFIX))
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(' ')
      return [line.slice(PREFIX.length, space), Number(line.slice(space + 1))]
    }),
  )
}

/** The sum over all labels of one metric that match. */
export function sumOf(metrics: Metrics, name: string, label = ''): number {
  let sum = 0
  for (const [key, value] of metrics) {
    if ((key === name || key.startsWith(`${name}{`)) && key.includes(label)) sum += value
  }
  return sum
}

export async function takeSample(
  pod: RunningPod,
  part: number,
  connections: number,
  metrics: Metrics,
): Promise<Sample> {
  const sidecar = sidecarOf(pod)
  const { pid } = sidecar.current()
  const count = await runCommand('ip', inside(pod, 'cat', '/proc/sys/net/netfilter/nf_conntrack_count'))
  return {
    pod: pod.pod.metadata?.name ?? '',
    part,
    connections,
    restarts: sidecar.restarts(),
    rssMegabytes: residentMegabytes(pid),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    identityRows: sumOf(metrics, 'identity_table_rows'),
    knownPeers: sumOf(metrics, 'known_peers'),
    stateBytes: statSync(join(pod.volumes.get(VOLUME_STATE) ?? '', 'identities.jsonl')).size,
    conntrackEntries: Number(count),
  }
}

/** Counters over all runs of all sidecars: what a killed one had counted is added before it is killed. */
export interface Totals {
  /** Reads a Pod's counters before its sidecar is killed. */
  keep(pod: RunningPod): Promise<void>
  /** Reads those of the present run; adds nothing. */
  read(pod: RunningPod): Promise<Metrics>
  /** Sums of all that was kept and last read. */
  sums(): ReadonlyMap<string, number>
}

/** Counters, and the parts of a histogram from which a mean follows. */
const isCounter = (name: string): boolean => /_total(\{|$)|_seconds_(sum|count)$/.test(name)

export function createTotals(): Totals {
  const kept: Metrics[] = []
  const last = new Map<RunningPod, Metrics>()
  const read = async (pod: RunningPod): Promise<Metrics> => {
    const metrics = await readMetrics(pod)
    last.set(pod, metrics)
    return metrics
  }
  return {
    read,
    async keep(pod) {
      kept.push(await read(pod))
      last.delete(pod)
    },
    sums() {
      const sums = new Map<string, number>()
      for (const metrics of [...kept, ...last.values()]) {
        for (const [name, value] of metrics) if (isCounter(name)) sums.set(name, (sums.get(name) ?? 0) + value)
      }
      return sums
    },
  }
}
