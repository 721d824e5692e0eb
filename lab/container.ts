import { type ChildProcess, spawn } from 'node:child_process'
import { type SandboxOptions, sandboxCommand } from './sandbox.ts'

/** So much of a container's log is kept, from its end. */
const LOG_CHARACTERS = 64 * 1024

export interface ContainerExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** One run of a container. */
export interface Container {
  readonly pid: number
  readonly exited: Promise<ContainerExit>
  kill(signal: NodeJS.Signals): void
}

/** The end of what a container wrote, over all its runs. */
export interface ContainerLog {
  append(text: string): void
  text(): string
  /** The last lines, for an error message. */
  tail(lines: number): string
}

export function createContainerLog(): ContainerLog {
  let kept = ''
  return {
    append(text) {
      kept = (kept + text).slice(-LOG_CHARACTERS)
    },
    text: () => kept,
    tail: (lines) => kept.trimEnd().split('\n').slice(-lines).join('\n'),
  }
}

export interface ContainerOptions extends SandboxOptions {
  readonly environment: Readonly<Record<string, string>>
  readonly log: ContainerLog
}

/** A function that starts the container's process in its sandbox; the options are checked here, once. */
export function prepareContainer({ environment, log, ...sandbox }: ContainerOptions): () => Container {
  const [file = '', ...args] = sandboxCommand(sandbox)
  return () => startProcess(file, args, environment, log)
}

function startProcess(
  file: string,
  args: readonly string[],
  environment: ContainerOptions['environment'],
  log: ContainerLog,
): Container {
  const child: ChildProcess = spawn(file, [...args], { env: environment, stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' })
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8')
    stream?.on('data', (text: string) => log.append(text))
  }
  return {
    pid: child.pid ?? 0,
    exited: new Promise((resolve) => {
      child.once('error', (error) => {
        log.append(`${error.message}\n`)
        resolve({ code: 127, signal: null })
      })
      // `close` and not `exit`: only then is the log complete.
      child.once('close', (code, signal) => resolve({ code, signal }))
    }),
    kill(signal) {
      child.kill(signal)
    },
  }
}

export interface Supervised {
  /** The run of the moment. */
  current(): Container
  restarts(): number
  /** Resolves when the container ended and will not be started again. */
  readonly ended: Promise<ContainerExit>
  /** Ends it: SIGTERM, after `graceMs` SIGKILL, no restart. */
  stop(graceMs: number): Promise<void>
}

/** The kubelet waits 10 s and more; the lab's users wait less. */
const FIRST_BACKOFF_MS = 100
const LAST_BACKOFF_MS = 3_000

export type RestartPolicy = 'Always' | 'OnFailure' | 'Never'

/** Runs a container and starts it again as its restart policy says, with a growing pause, until `signal` aborts. */
export function superviseContainer(start: () => Container, restart: RestartPolicy, signal: AbortSignal): Supervised {
  let container = start()
  let restarts = 0
  let isStopping = false
  const ended = (async () => {
    for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(backoffMs * 2, LAST_BACKOFF_MS)) {
      const exit = await container.exited
      const isFailure = exit.code !== 0
      if (isStopping || signal.aborted || restart === 'Never' || (restart === 'OnFailure' && !isFailure)) return exit
      await new Promise((resolve) => setTimeout(resolve, backoffMs))
      if (isStopping || signal.aborted) return exit
      restarts++
      container = start()
    }
  })()
  return {
    current: () => container,
    restarts: () => restarts,
    ended,
    async stop(graceMs) {
      isStopping = true
      container.kill('SIGTERM')
      const timer = setTimeout(() => container.kill('SIGKILL'), graceMs)
      await ended
      clearTimeout(timer)
    },
  }
}
