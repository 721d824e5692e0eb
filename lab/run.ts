import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LabError } from './errors.ts'

/** One use of the lab: its id is part of every name that it gives to things outside its own process. */
export interface Run {
  readonly id: string
  /** Absolute path of a directory that is removed with the run. */
  readonly directory: string
  /** Removes everything; resolves when nothing is left. May be called again. */
  stop(): Promise<void>
}

const ID_LETTERS = 'abcdefghijkmnpqrstuvwxyz23456789'

function createId(): string {
  return Array.from({ length: 6 }, () => ID_LETTERS[randomInt(ID_LETTERS.length)]).join('')
}

/** Starts a run and the janitor that cleans up after it, whichever way this process ends. */
export function createRun(): Run {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    throw new LabError(
      'lab-needs-root',
      'the lab needs root on Linux: it makes network namespaces; run it again with sudo',
    )
  }
  const id = createId()
  const directory = mkdtempSync(join(tmpdir(), `synguard-lab-${id}-`))
  const janitor = spawn(process.execPath, ['--no-warnings', join(import.meta.dirname, 'janitor.ts'), id, directory], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
  })
  const ended = new Promise<void>((resolve) => janitor.once('exit', () => resolve()))
  janitor.stdin?.on('error', () => undefined)
  janitor.unref()
  return {
    id,
    directory,
    async stop() {
      janitor.ref()
      janitor.stdin?.end()
      await ended
    },
  }
}

/** Calls `stop` at the first SIGINT, SIGTERM or SIGHUP, then ends with the shell's status for that signal. */
export function stopOnSignals(stop: () => Promise<void>): void {
  const statuses = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const
  for (const [signal, status] of Object.entries(statuses)) {
    process.once(signal, () => {
      stop().finally(() => process.exit(status))
    })
  }
}
