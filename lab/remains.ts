import { readdirSync, rmSync } from 'node:fs'
import { runCommand } from './command.ts'

const NETNS_DIRECTORY = '/run/netns'

/** The network namespaces of one run: `sgl-<run id>-*`. */
export function namespacesOf(runId: string): string[] {
  const prefix = `sgl-${runId}-`
  try {
    return readdirSync(NETNS_DIRECTORY).filter((name) => name.startsWith(prefix))
  } catch {
    return [] // no namespace was ever made on this machine
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // already gone
  }
}

/** Ends every process in a network namespace; returns how many were there. */
export async function killProcessesIn(netns: string): Promise<number> {
  const output = await runCommand('ip', ['netns', 'pids', netns]).catch(() => '')
  const pids = output.split('\n').filter(Boolean).map(Number)
  for (const pid of pids) killProcess(pid)
  return pids.length
}

/** Ends the processes of a namespace, those too that are forked meanwhile, and deletes it. */
export async function removeNamespace(netns: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    if ((await killProcessesIn(netns)) === 0) break
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  await runCommand('ip', ['netns', 'del', netns]).catch(() => undefined)
}

/**
 * Removes what a run left: processes, namespaces (with their interfaces and rules), files.
 * Looks until two looks in a row find nothing, as a command of a killed run may still be making a namespace.
 */
export async function removeRemains(runId: string, directory: string): Promise<void> {
  for (let quiet = 0; quiet < 2; ) {
    const namespaces = namespacesOf(runId)
    if (namespaces.length === 0) {
      quiet++
      if (quiet < 2) await new Promise((resolve) => setTimeout(resolve, 50))
      continue
    }
    quiet = 0
    await Promise.all(namespaces.map(removeNamespace))
  }
  rmSync(directory, { recursive: true, force: true })
}
