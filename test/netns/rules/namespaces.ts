/** Two network namespaces on one link, and programs inside them. Needs root. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createRun } from '../../../lab/run.ts'

export interface Pair {
  /** Has 10.78.0.1 and fd78::1 on e0. */
  readonly left: string
  /** Has 10.78.0.2 and fd78::2 on e0. */
  readonly right: string
  /** Removes both, and all that is in them, as the end of this process does. */
  readonly remove: () => Promise<void>
}

export const ADDRESS = { left: '10.78.0.1', right: '10.78.0.2', left6: 'fd78::1', right6: 'fd78::2' } as const

const here = import.meta.dirname
/** By namespace, a lock file of our own: the machine's xtables lock is not ours to hold, or to leave behind. */
const lockFiles = new Map<string, string>()
const environmentIn = (namespace: string) => ({ ...process.env, XTABLES_LOCKFILE: lockFiles.get(namespace) })

function ip(...parameters: string[]): void {
  execFileSync('ip', parameters)
}

export async function createPair(): Promise<Pair> {
  const run = createRun()
  const [left, right] = [`sgl-${run.id}-left`, `sgl-${run.id}-right`]
  try {
    for (const name of [left, right]) {
      ip('netns', 'add', name)
      lockFiles.set(name, join(run.directory, 'xtables.lock'))
    }
    ip('-n', left, 'link', 'add', 'e0', 'type', 'veth', 'peer', 'name', 'e0', 'netns', right)
    for (const [name, number] of [
      [left, 1],
      [right, 2],
    ] as const) {
      ip('-n', name, 'link', 'set', 'lo', 'up')
      ip('-n', name, 'link', 'set', 'e0', 'up')
      ip('-n', name, 'addr', 'add', `10.78.0.${number}/24`, 'dev', 'e0')
      ip('-n', name, 'addr', 'add', `fd78::${number}/64`, 'dev', 'e0', 'nodad')
    }
  } catch (error) {
    await run.stop()
    throw error
  }
  return { left, right, remove: run.stop }
}

export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program in the namespace to its end. */
export function inside(
  namespace: string,
  command: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>> } = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(
      'ip',
      ['netns', 'exec', namespace, ...command],
      { env: { ...environmentIn(namespace), ...options.env } },
      (error, stdout, stderr) => resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
    // A program may end before it closes its stdin.
    child.stdin?.on('error', () => {}).end()
  })
}

const script = (name: string, parameters: readonly unknown[]): string[] => [
  process.execPath,
  '--no-warnings',
  join(here, name),
  ...parameters.map((parameter) => JSON.stringify(parameter)),
]

/** Runs one of this folder's scripts in the namespace; gives the JSON that it printed. */
export async function runScript(namespace: string, name: string, ...parameters: unknown[]): Promise<unknown> {
  const { code, stdout, stderr } = await inside(namespace, script(name, parameters))
  if (code !== 0) throw new Error(`${name} ended with ${code}: ${stderr}`)
  return JSON.parse(stdout)
}

export interface Running {
  /** The JSON lines printed after the first, which says that the script is ready. */
  readonly lines: unknown[]
  readonly stop: () => Promise<void>
}

/** Starts one of this folder's scripts in the namespace and waits for its first line. */
export function startScript(namespace: string, name: string, ...parameters: unknown[]): Promise<Running> {
  const child: ChildProcess = spawn('ip', ['netns', 'exec', namespace, ...script(name, parameters)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: environmentIn(namespace),
  })
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()))
  const stop = (): Promise<void> => {
    child.kill('SIGKILL')
    return ended
  }
  return new Promise((resolve, reject) => {
    const lines: unknown[] = []
    let ready = false
    if (child.stdout === null) throw new Error('no stdout')
    createInterface(child.stdout).on('line', (line) => {
      if (ready) lines.push(JSON.parse(line))
      else resolve({ lines, stop })
      ready = true
    })
    child.on('exit', (code) => reject(new Error(`${name} ended with ${code} before it was ready`)))
  })
}
