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

/**
 * Makes the rules so: one commit per table and family, nobody else's rules touched, the same however often it runs.
 * Throws RulesError `apply-failed` (a family may then be done and the next not: run again), `read-failed`.
 */
export async function applyRules({ backend, families, options }: Installation): Promise<void> {
  for (const family of families) {
    const tables = ruleset({ ...options, family })
    let failed: string | undefined
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const saved = await readRules(backend, family)
      failed = await restoreRules(backend, family, encodeRestore(tables, saved))
      if (failed === undefined) break
    }
    if (failed !== undefined) {
      throw new RulesError(
        'apply-failed',
        failed,
        'See the message; no other program may write these tables meanwhile.',
      )
    }
  }
}

/** What in the kernel is not as installed, one sentence each; empty where all is in place. Throws `read-failed`. */
export async function rulesDiffer({ backend, families, options }: Installation): Promise<readonly string[]> {
  const differences: string[] = []
  for (const family of families) {
    const found = compareRules(ruleset({ ...options, family }), await readRules(backend, family))
    differences.push(...found.map((difference) => `IPv${family} ${difference}`))
  }
  return differences
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
export async function removeRules(backends: readonly Backend[] = BACKENDS): Promise<readonly string[]> {
  const removed: string[] = []
  for (const backend of backends) {
    for (const family of [4, 6] as const) {
      const saved = await readRules(backend, family).catch(() => undefined)
      const text = saved === undefined ? undefined : encodeRemoval(saved)
      if (text === undefined) continue
      const failed = await restoreRules(backend, family, text)
      if (failed !== undefined) {
        throw new RulesError('remove-failed', failed, `Remove what refers to chains that begin with ${CHAIN_PREFIX}.`)
      }
      removed.push(`${backend.name} IPv${family}`)
    }
  }
  return removed
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
    const families: Family[] = []
    for (const family of [4, 6] as const) {
      const saved = await readRules(backend, family).catch(() => undefined)
      const chains = [...(saved?.values() ?? [])].flatMap((table) => [...table.keys()])
      if (chains.some((chain) => chain.startsWith(CHAIN_PREFIX))) families.push(family)
    }
    if (families.length > 0) return { backend, families }
  }
  return undefined
}
