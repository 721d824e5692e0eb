/** A control group with a CPU quota and a memory limit, on machines with cgroup version 2 or 1; needs root. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

export interface ControlGroup {
  /** Copies the files that say its limits to a folder, laid out as a container sees them below /sys/fs/cgroup. */
  copyLimits(folder: string): void
  /** Moves a process, with all its threads, into the group. Memory that it has already stays where it was counted. */
  add(pid: number): void
  setCpu(cores: number | undefined): void
  setMemory(bytes: number | undefined): void
  /** What the group used at most, in bytes. */
  memoryPeak(): number
  /** How often the kernel killed a process of the group for want of memory. */
  kills(): number
  /** Periods in which the group had used up its quota. */
  throttledPeriods(): number
  /** Waits until its processes are gone, at most five seconds, and removes it. */
  remove(): Promise<void>
}

const ROOT = '/sys/fs/cgroup'
const PERIOD_MICROSECONDS = 100_000

/** Whose name begins with what the end of its process does not take away: `synguard-PID-`. */
const nameOf = (own: string): string => `synguard-${process.pid}-${own}`

/** The control groups of tests that were killed: their processes are gone, their folders are not. */
export function deadGroups(): string[] {
  const roots = [ROOT, join(ROOT, 'cpu'), join(ROOT, 'memory')].filter((root) => existsSync(root))
  const isDead = (name: string): boolean => {
    const pid = /^synguard-(\d+)-/.exec(name)?.[1]
    return pid !== undefined && !existsSync(`/proc/${pid}`)
  }
  return roots.flatMap((root) =>
    readdirSync(root)
      .filter(isDead)
      .map((name) => join(root, name)),
  )
}

/** Removes them. */
export async function removeDeadGroups(): Promise<void> {
  await removeFolders(deadGroups())
}

/** Makes a group whose name tells it apart from those of this process. Throws where the machine has neither version's CPU and memory controllers for us. */
export function createControlGroup(own: string): ControlGroup {
  const name = nameOf(own)
  const version2 = existsSync(join(ROOT, 'cgroup.controllers'))
  try {
    return version2 ? createVersion2(name) : createVersion1(name)
  } catch (cause) {
    const what = version2
      ? `version 2 at ${ROOT}, with cpu and memory for child groups`
      : `version 1 at ${ROOT}/{cpu,memory}`
    throw new Error(`this test needs writable control groups, ${what}: ${(cause as Error).message}`, { cause })
  }
}

const numberIn = (path: string, field?: string): number => {
  const text = readFileSync(path, 'utf8')
  return Number(field === undefined ? text : new RegExp(`^${field} (\\d+)$`, 'm').exec(text)?.[1])
}

function copyFiles(controller: string, group: string, files: readonly string[], to: string): void {
  mkdirSync(join(to, controller), { recursive: true })
  for (const file of files) {
    writeFileSync(join(to, controller, file), readFileSync(join(ROOT, controller, group, file)))
  }
}

async function removeFolders(folders: readonly string[]): Promise<void> {
  for (const folder of folders) {
    for (let tries = 0; existsSync(folder); tries++) {
      try {
        rmdirSync(folder)
      } catch (error) {
        if (tries >= 100) throw error
        await pause(50)
      }
    }
  }
}

function createVersion2(name: string): ControlGroup {
  const folder = join(ROOT, name)
  writeFileSync(join(ROOT, 'cgroup.subtree_control'), '+cpu +memory')
  mkdirSync(folder)
  const file = (leaf: string): string => join(folder, leaf)
  if (existsSync(file('memory.swap.max'))) writeFileSync(file('memory.swap.max'), '0')
  return {
    copyLimits: (to) => copyFiles('', name, ['cpu.max', 'memory.max'], to),
    add: (pid) => writeFileSync(file('cgroup.procs'), String(pid)),
    setCpu(cores) {
      const quota = cores === undefined ? 'max' : cores * PERIOD_MICROSECONDS
      writeFileSync(file('cpu.max'), `${quota} ${PERIOD_MICROSECONDS}`)
    },
    setMemory: (bytes) => writeFileSync(file('memory.max'), String(bytes ?? 'max')),
    memoryPeak: () =>
      existsSync(file('memory.peak')) ? numberIn(file('memory.peak')) : numberIn(file('memory.current')),
    kills: () => numberIn(file('memory.events'), 'oom_kill'),
    throttledPeriods: () => numberIn(file('cpu.stat'), 'nr_throttled'),
    remove: async () => await removeFolders([folder]),
  }
}

function createVersion1(name: string): ControlGroup {
  const cpu = join(ROOT, 'cpu', name)
  const memory = join(ROOT, 'memory', name)
  for (const folder of [cpu, memory]) mkdirSync(folder)
  return {
    copyLimits(to) {
      copyFiles('cpu', name, ['cpu.cfs_quota_us', 'cpu.cfs_period_us'], to)
      copyFiles('memory', name, ['memory.limit_in_bytes'], to)
    },
    add(pid) {
      for (const folder of [cpu, memory]) writeFileSync(join(folder, 'cgroup.procs'), String(pid))
    },
    setCpu(cores) {
      writeFileSync(join(cpu, 'cpu.cfs_period_us'), String(PERIOD_MICROSECONDS))
      writeFileSync(join(cpu, 'cpu.cfs_quota_us'), String(cores === undefined ? -1 : cores * PERIOD_MICROSECONDS))
    },
    setMemory: (bytes) => writeFileSync(join(memory, 'memory.limit_in_bytes'), String(bytes ?? -1)),
    memoryPeak: () => numberIn(join(memory, 'memory.max_usage_in_bytes')),
    kills: () => numberIn(join(memory, 'memory.oom_control'), 'oom_kill'),
    throttledPeriods: () => numberIn(join(cpu, 'cpu.stat'), 'nr_throttled'),
    remove: async () => await removeFolders([cpu, memory]),
  }
}
