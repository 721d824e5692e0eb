/** Installs, compares and removes the rules in this process's network namespace. */
import { BACKENDS, type Backend, readRules, restoreRules } from './backend.ts'
import { RulesError } from './errors.ts'
import { readRequiredFamilies } from './pod-namespace.ts'
import { compareRules, encodeRemoval, encodeRestore } from './restore.ts'
import { CHAIN_PREFIX, type Family, type RulesetOptions, ruleset } from './ruleset.ts'

/** What is installed in one network namespace. */
export interface Installation {
  readonly backend: Backend
  readonly families: readonly Family[]
  readonly options: Omit<RulesetOptions, 'family'>
}

/** Another writer can change a table between our read and our commit; then both are done again. */
const ATTEMPTS = 3

/** An installation, and why other backends were passed over, one sentence each. */
export interface Installed extends Installation {
  readonly passedOver: readonly string[]
}

const FAMILIES: readonly Family[] = [4, 6]

/**
 * Installs the rules by the first backend that can, in every family in `required`; the other family is taken along
 * where it works. Which backend can is found by doing, since neither `--test` nor a version tells whether this kernel
 * takes the rules; what one that cannot has left is removed. Nobody else's rules are touched, and it is the same
 * however often it runs. Throws RulesError `no-backend` with every backend's reason, `remove-failed`.
 */
export async function installRules(
  options: Installation['options'],
  required: readonly Family[],
  candidates: readonly Backend[] = BACKENDS,
): Promise<Installed> {
  const passedOver: string[] = []
  for (const backend of candidates) {
    const results = await inEachFamily(async (family) => ({ family, failed: await apply(backend, family, options) }))
    const families = results.filter(({ failed }) => failed === undefined).map(({ family }) => family)
    if (required.every((family) => families.includes(family))) {
      if (families.length < FAMILIES.length) await removeRules([backend], without(families))
      return { backend, families, options, passedOver }
    }
    await removeRules([backend])
    const reasons = results.filter(({ family, failed }) => failed !== undefined && required.includes(family))
    passedOver.push(...reasons.map(({ family, failed }) => `${backend.name}, IPv${family}: ${failed}`))
  }
  throw new RulesError('no-backend', passedOver.join(' | '), noBackendFix(passedOver.join('\n')))
}

const without = (families: readonly Family[]) => FAMILIES.filter((family) => !families.includes(family))

/** Both at once: each is mostly the start of programs, and they write different tables. */
const inEachFamily = async <T>(act: (family: Family) => Promise<T>, families = FAMILIES): Promise<readonly T[]> =>
  await Promise.all(families.map(act))

/** One commit a table. Resolves to the reason of a failure, if any. */
async function apply(backend: Backend, family: Family, options: Installation['options']): Promise<string | undefined> {
  const tables = ruleset({ ...options, family })
  let failed: string | undefined
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    try {
      const saved = await readRules(backend, family)
      failed = await restoreRules(backend, family, encodeRestore(tables, saved))
    } catch (error) {
      if (!(error instanceof RulesError)) throw error
      failed = error.message
    }
    if (failed === undefined) return undefined
  }
  return failed
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

/** What in the kernel is not as installed, one sentence each; empty where all is in place. Throws `read-failed`. */
export async function rulesDiffer({ backend, families, options }: Installation): Promise<readonly string[]> {
  const differences = await inEachFamily(async (family) => {
    const found = compareRules(ruleset({ ...options, family }), await readRules(backend, family))
    return found.map((difference) => `IPv${family} ${difference}`)
  }, families)
  return differences.flat()
}

/** Throws RulesError `rules-differ` with every difference, or `read-failed`. */
export async function verifyRules(installation: Installation): Promise<void> {
  const differences = await rulesDiffer(installation)
  if (differences.length > 0) {
    throw new RulesError('rules-differ', differences.join('; '), 'Run the init step again; find out who writes rules.')
  }
}

/**
 * Removes every chain of ours and every jump to one, from these backends; others' rules stay. Resolves to the
 * backends and families that had some (`nft IPv4`). Throws RulesError `remove-failed`.
 */
export async function removeRules(
  backends: readonly Backend[] = BACKENDS,
  families: readonly Family[] = FAMILIES,
): Promise<readonly string[]> {
  const removed: string[] = []
  for (const backend of backends) {
    const had = await inEachFamily((family) => removeFrom(backend, family), families)
    removed.push(...families.filter((_, index) => had[index]).map((family) => `${backend.name} IPv${family}`))
  }
  return removed
}

/** Whether there was something to remove. */
async function removeFrom(backend: Backend, family: Family): Promise<boolean> {
  const saved = await readRules(backend, family).catch(() => undefined)
  const text = saved === undefined ? undefined : encodeRemoval(saved)
  if (text === undefined) return false
  const failed = await restoreRules(backend, family, text)
  if (failed === undefined) return true
  throw new RulesError('remove-failed', failed, `Remove what refers to chains that begin with ${CHAIN_PREFIX}.`)
}

/**
 * What belongs here: the backend that holds our chains, with every family that it holds or that can carry traffic; a
 * family whose chains are gone is so missed. Undefined where no chain of ours is here.
 */
export async function findExpected(): Promise<Pick<Installation, 'backend' | 'families'> | undefined> {
  const found = await findInstalled()
  if (found === undefined) return undefined
  const missing = readRequiredFamilies().filter((family) => !found.families.includes(family))
  return { backend: found.backend, families: [...found.families, ...missing] }
}

/**
 * The backend that holds our chains here, and the families in which it does; undefined where none does. A backend
 * whose programs cannot be run holds nothing.
 */
export async function findInstalled(
  backends: readonly Backend[] = BACKENDS,
): Promise<Pick<Installation, 'backend' | 'families'> | undefined> {
  for (const backend of backends) {
    const holds = await inEachFamily(async (family) => {
      const saved = await readRules(backend, family).catch(() => undefined)
      const chains = [...(saved?.values() ?? [])].flatMap((table) => [...table.keys()])
      return chains.some((chain) => chain.startsWith(CHAIN_PREFIX))
    })
    const families = FAMILIES.filter((_, index) => holds[index])
    if (families.length > 0) return { backend, families }
  }
  return undefined
}
