/** The iptables programs of each backend, run without a shell (a shell loses file capabilities). */
import { type ExecException, execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { PATH_STATE } from '../../api/names.ts'
import { RulesError } from './errors.ts'
import { parseSaved, type SavedRules } from './restore.ts'
import type { Family } from './ruleset.ts'

export type BackendName = 'nft' | 'legacy' | 'plain'

/** The programs of one backend, per address family. */
export interface Backend {
  readonly name: BackendName
  readonly restore: Readonly<Record<Family, string>>
  readonly save: Readonly<Record<Family, string>>
}

const backend = (name: BackendName, infix: string): Backend => ({
  name,
  restore: { 4: `iptables${infix}-restore`, 6: `ip6tables${infix}-restore` },
  save: { 4: `iptables${infix}-save`, 6: `ip6tables${infix}-save` },
})

/** In the order of preference: nft needs no lock file and no NET_RAW. */
export const BACKENDS: readonly Backend[] = [backend('nft', '-nft'), backend('legacy', '-legacy'), backend('plain', '')]

/** One run of an iptables program may take so long; it waits up to LOCK_SECONDS of it for the xtables lock. */
const RUN_MILLISECONDS = 15_000
const LOCK_SECONDS = 5
const SAVE_BYTES = 64 * 1024 * 1024

/** What a run gave. `error`: undefined where the program ended with 0, else the reason in one line. */
interface RunResult {
  readonly stdout: string
  readonly error: string | undefined
}

/** iptables-legacy insists on its lock file, which a read-only root file system does not have. */
function lockFile(): Record<string, string> {
  if (process.env.XTABLES_LOCKFILE !== undefined) return { XTABLES_LOCKFILE: process.env.XTABLES_LOCKFILE }
  try {
    accessSync('/run', constants.W_OK)
    return {}
  } catch {
    return { XTABLES_LOCKFILE: `${PATH_STATE}/xtables.lock` }
  }
}

function run(program: string, parameters: readonly string[], input: string): Promise<RunResult> {
  return new Promise((resolve) => {
    const env = {
      PATH: process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C',
      ...lockFile(),
    }
    const options = { env, timeout: RUN_MILLISECONDS, killSignal: 'SIGKILL', maxBuffer: SAVE_BYTES } as const
    const child = execFile(program, parameters, options, (failure, stdout, stderr) => {
      if (failure === null) resolve({ stdout, error: undefined })
      else resolve({ stdout, error: describeFailure(program, failure, stderr) })
    })
    // A program that is missing or ends early closes its stdin; the callback above has the reason.
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

function describeFailure(program: string, failure: ExecException, stderr: string): string {
  if (failure.code === 'ENOENT') return `${program} is not installed`
  if (failure.code === 'EPERM' || failure.code === 'EACCES') {
    return `${program} may not be executed (${failure.code}): its file capabilities must be a subset of the container's`
  }
  if (failure.killed === true) return `${program} did not end within ${RUN_MILLISECONDS} ms`
  const said = stderr
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('Try `') && !/^Error occurred at line/.test(line))
  return `${program}: ${said.join('; ') || failure.message}`
}

/** Gives `text` to iptables-restore without flushing others' chains. Resolves to the reason of a failure, if any. */
export async function restoreRules(backend: Backend, family: Family, text: string): Promise<string | undefined> {
  const parameters = ['--noflush', '--wait', String(LOCK_SECONDS)]
  return (await run(backend.restore[family], parameters, text)).error
}

/** All rules that this backend has for the family. Throws RulesError `read-failed`. */
export async function readRules(backend: Backend, family: Family): Promise<SavedRules> {
  const { stdout, error } = await run(backend.save[family], [], '')
  if (error !== undefined) {
    throw new RulesError('read-failed', error, 'Give the container the capability NET_ADMIN (and NET_RAW for legacy).')
  }
  return parseSaved(stdout)
}
