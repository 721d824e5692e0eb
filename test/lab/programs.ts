/** Programs run in Pods' networks: compiled once, and ended with the lab. */
import { basename, join } from 'node:path'
import { runCommand } from '../../lab/command.ts'
import type { RunningPod } from '../../lab/pod.ts'

/** Compiles a C file into a folder; returns the program's path. */
export async function compile(source: string, folder: string): Promise<string> {
  const program = join(folder, basename(source, '.c'))
  await runCommand('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source])
  return program
}

/** The arguments of `ip` that run a command in a Pod's network namespace. */
export const inside = (pod: RunningPod, ...command: readonly string[]): string[] => [
  ...['netns', 'exec', pod.network.netns],
  ...command,
]
