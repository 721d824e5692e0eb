/** Gives the kernel back what it can read again from the program's own file. */
import { readFile } from 'node:fs/promises'
import * as libc from './libc.ts'

/** A part of the address space, as a paragraph of /proc/PID/smaps tells it. */
export interface Mapping {
  readonly start: number
  readonly bytes: number
  /** As in /proc/PID/maps: `r-xp`. */
  readonly permissions: string
  /** Of the mapped file; empty or in brackets where it is none. */
  readonly path: string
  /** KiB by their names in smaps: Rss, Private_Dirty, Anonymous, Swap. */
  readonly kibibytes: Readonly<Record<string, number>>
}

/** The mappings in the text of /proc/PID/smaps (proc(5)). */
export function parseSmaps(text: string): Mapping[] {
  const mappings: Mapping[] = []
  let kibibytes: Record<string, number> = {}
  for (const line of text.split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)$/.exec(line)
    if (head) {
      const [, from = '', to = '', permissions = '', path = ''] = head
      const start = Number.parseInt(from, 16)
      kibibytes = {}
      mappings.push({ start, bytes: Number.parseInt(to, 16) - start, permissions, path, kibibytes })
      continue
    }
    const field = /^(\w+):\s+(\d+) kB$/.exec(line)
    if (field?.[1] !== undefined) kibibytes[field[1]] = Number(field[2])
  }
  return mappings
}

/**
 * Those of the mappings that nothing but a file's bytes can be in and that stay where they are: parts of the program
 * itself, private, not writable, and no page of them ever written. What was written (relocations) would be lost with its
 * page, and the process with it. Further copies of a part, which V8 maps for its isolates, come and go: they lie behind
 * the heap, the program before it (brk(2)).
 */
export function cleanPartsOf(program: string, mappings: readonly Mapping[]): Mapping[] {
  const heap = mappings.find(({ path }) => path === '[heap]')
  return mappings.filter(({ start, path, permissions, kibibytes }) => {
    const { Rss, Private_Dirty, Shared_Dirty, Anonymous, Swap } = kibibytes
    return (
      path === program &&
      heap !== undefined &&
      start < heap.start &&
      (permissions === 'r-xp' || permissions === 'r--p') &&
      Rss !== undefined &&
      [Private_Dirty, Shared_Dirty, Anonymous, Swap].every((written) => written === 0)
    )
  })
}

/**
 * Drops the pages of the program's own file, code and constants, from this process, and returns how many bytes it had
 * of them. They stay in the kernel's page cache: what is used again comes back by minor faults, 64 KiB at a time. Half of
 * what Node reads of its binary it reads to start and to compile.
 *
 * What this saves: resident set size, page tables, and that the kernel sees what nobody uses. What it does not save:
 * these pages were never this process's alone. All sidecars of a node have the same ones, and the cgroup that read a page
 * first is charged for it, now as before, until the kernel wants it back.
 *
 * Where the kernel does not say what was written, nothing is dropped. Takes some 10 ms, of which this thread sees one.
 */
export async function dropCleanPages(): Promise<number> {
  const smaps = await readFile('/proc/self/smaps', 'latin1').catch(() => '')
  let dropped = 0
  for (const { start, bytes, kibibytes } of cleanPartsOf(process.execPath, parseSmaps(smaps))) {
    if (libc.adviseUnneeded(start, bytes) === 0) dropped += (kibibytes.Rss ?? 0) * 1024
  }
  return dropped
}
