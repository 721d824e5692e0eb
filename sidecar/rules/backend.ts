/**
 * The iptables programs, run without a shell (a shell loses file capabilities), and the choice between iptables-nft
 * and iptables-legacy: by doing, since neither `--test` nor a version tells whether this kernel takes the rules.
 */
import { type ExecException, execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { PATH_STATE } from '../../api/names.ts'
import { RulesError } from './errors.ts'
import { encodeRemoval, encodeRestore, parseSaved, type SavedRules } from './restore.ts'
import { CHAIN_PREFIX, type Family, probeRuleset, type RulesetOptions } from './ruleset.ts'

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

/**
 * Whether the backend can install this ruleset: installs it in chains that no packet meets, and removes them.
 * Resolves to the reason why not, or to undefined.
 */
export async function probeBackend(backend: Backend, options: RulesetOptions): Promise<string | undefined> {
  const failed = await restoreRules(backend, options.family, encodeRestore(probeRuleset(options), new Map()))
  try {
    const left = encodeRemoval(await readRules(backend, options.family), `${CHAIN_PREFIX}PROBE-`)
    const stuck = left === undefined ? undefined : await restoreRules(backend, options.family, left)
    return failed ?? stuck
  } catch (error) {
    return failed ?? (error instanceof Error ? error.message : String(error))
  }
}

export interface BackendChoice {
  readonly backend: Backend
  /** The families that it can install; always what was required. */
  readonly families: readonly Family[]
  /** Why others were passed over, one sentence each. */
  readonly passedOver: readonly string[]
}

/**
 * The first backend that can install the rules of every family in `required`; the other family is taken along where
 * it works. Throws RulesError `no-backend` with every backend's reason.
 */
export async function chooseBackend(
  options: Omit<RulesetOptions, 'family'>,
  required: readonly Family[],
  candidates: readonly Backend[] = BACKENDS,
): Promise<BackendChoice> {
  const passedOver: string[] = []
  for (const candidate of candidates) {
    const families: Family[] = []
    const reasons: string[] = []
    for (const family of [4, 6] as const) {
      const reason = await probeBackend(candidate, { ...options, family })
      if (reason === undefined) families.push(family)
      else if (required.includes(family)) reasons.push(`${candidate.name}, IPv${family}: ${reason}`)
    }
    if (reasons.length === 0) return { backend: candidate, families, passedOver }
    passedOver.push(...reasons)
  }
  throw new RulesError('no-backend', passedOver.join(' | '), noBackendFix(passedOver.join('\n')))
}

function noBackendFix(reasons: string): string {
  if (/Permission denied|Operation not permitted|EPERM|must be root/.test(reasons)) {
    return 'Give the init container the capabilities NET_ADMIN and NET_RAW, with an exec-form command and no shell.'
  }
  if (reasons.split('\n').every((reason) => reason.endsWith('is not installed'))) {
    return 'Put iptables into the image, and its folder into PATH.'
  }
  return 'Load nf_conntrack, xt_NFQUEUE, xt_connmark, xt_mark, xt_owner, xt_conntrack and REJECT on the node, for nft (nft_compat) or legacy.'
}
