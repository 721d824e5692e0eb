/** What a process has cost so far, from proc(5). */
import { readFileSync } from 'node:fs'

/** USER_HZ: /proc counts processor time in hundredths of a second on every Linux architecture but Alpha. */
const TICK_MICROSECONDS = 10_000

/** Processor time in user and kernel of all threads, in microseconds; steps of 10,000. */
export function processorMicroseconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  // The command's name in brackets may hold anything, so fields count from its end: utime and stime are 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MICROSECONDS
}

/** Resident memory, in units of 1,000,000 bytes. */
export function residentMegabytes(pid: number): number {
  const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
  if (kibibytes === undefined) throw new Error(`process ${pid} has no memory`)
  return (Number(kibibytes) * 1024) / 1e6
}
