/** What the container may use of CPU and memory, by its control group (Linux: admin-guide/cgroup-v1 and cgroup-v2). */
import { readFileSync } from 'node:fs'
import type { Logger } from 'pino'

/** It starts in 40 MiB and takes about 4 KiB for each of at most 10,000 peers (datapath/bounds.ts). */
export const NEEDED_MEMORY_BYTES = 96 << 20
/** Below this handshakes wait for the next period of the quota: 100 ms where nobody chose another. */
export const NEEDED_CPU_CORES = 0.25

export interface ResourceLimits {
  /** Undefined where there is no limit, or none that could be read. */
  readonly memoryBytes: number | undefined
  readonly cpuCores: number | undefined
}

type ReadFile = (path: string) => string | undefined

const ROOT = '/sys/fs/cgroup'
/** Version 1 says "no limit" by a number above any machine's memory. */
const MOST_MEMORY_BYTES = 2 ** 60

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}

/**
 * The limits of this process's control group, version 2 or 1. Those of groups above it, which a container does not see,
 * are left out. Never throws.
 */
export function readLimits(read: ReadFile = readText): ResourceLimits {
  const paths = controlGroups(read('/proc/self/cgroup') ?? '')
  const ofGroup = (controller: string, file: string): string | undefined => {
    const folder = controller === '' ? ROOT : `${ROOT}/${controller}`
    // Where the container has a cgroup namespace, or sees its own group alone, the root of the mount is its group.
    return read(`${folder}${paths.get(controller) ?? ''}/${file}`) ?? read(`${folder}/${file}`)
  }
  const memory = ofGroup('', 'memory.max') ?? ofGroup('memory', 'memory.limit_in_bytes')
  const [quota, period] = (
    ofGroup('', 'cpu.max') ?? `${ofGroup('cpu', 'cpu.cfs_quota_us')} ${ofGroup('cpu', 'cpu.cfs_period_us')}`
  ).split(' ')
  const cpuCores = Number(quota) / Number(period)
  const memoryBytes = Number(memory)
  return {
    memoryBytes: memoryBytes > 0 && memoryBytes < MOST_MEMORY_BYTES ? memoryBytes : undefined,
    cpuCores: cpuCores > 0 && Number.isFinite(cpuCores) ? cpuCores : undefined,
  }
}

/** Paths by controller from /proc/self/cgroup, `ID:CONTROLLERS:PATH` a line; version 2 has no controllers there. */
function controlGroups(text: string): Map<string, string> {
  const paths = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (controllers === undefined || path === undefined) continue
    for (const controller of controllers.split(',')) paths.set(controller, path === '/' ? '' : path)
  }
  return paths
}

/** Says what the sidecar will lack, a line for each of memory and CPU; nothing where both suffice. */
export function warnOfLimits({ memoryBytes, cpuCores }: ResourceLimits, log: Pick<Logger, 'warn'>): void {
  const mebibytes = (bytes: number): number => Math.round(bytes / (1 << 20))
  if (memoryBytes !== undefined && memoryBytes < NEEDED_MEMORY_BYTES) {
    log.warn(
      { memoryLimitMebibytes: mebibytes(memoryBytes), neededMebibytes: mebibytes(NEEDED_MEMORY_BYTES) },
      'the memory limit is low: with many peers the kernel kills the sidecar, and nothing new is opened until it is back',
    )
  }
  if (cpuCores !== undefined && cpuCores < NEEDED_CPU_CORES) {
    log.warn(
      { cpuLimitCores: cpuCores, neededCores: NEEDED_CPU_CORES },
      'the CPU limit is low: connections are set up slowly, or fail',
    )
  }
}
