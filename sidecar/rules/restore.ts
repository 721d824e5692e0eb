/** Text for `iptables-restore --noflush` and the reading of `iptables-save`. Pure. */
import { CHAIN_PREFIX, type TableRules } from './ruleset.ts'

/** What iptables-save printed: table, chain, and the chain's rules without `-A CHAIN`, in order. */
export type SavedRules = ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>

/** iptables versions print the same rule in different ways; this makes them one. */
function normalizeRule(rule: string): string {
  return rule
    .trim()
    .replace(/(^| )-p (icmpv6|58)(?= |$)/, '$1-p ipv6-icmp')
    .replace(/(^| )-p 6(?= |$)/, '$1-p tcp')
    .replace(/(^| )-p 1(?= |$)/, '$1-p icmp')
    .replace(/(-m|--match) tcp /, '')
    .replace(/ {2,}/g, ' ')
}

/** Parses iptables-save's output; comments, counters and policies are left out. */
export function parseSaved(text: string): SavedRules {
  const tables = new Map<string, Map<string, string[]>>()
  let chains = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      // iptables-nft-save after a legacy one may name a table twice.
      chains = tables.get(line.slice(1).trim()) ?? new Map()
      tables.set(line.slice(1).trim(), chains)
      continue
    }
    const declared = /^:(\S+) /.exec(line)?.[1]
    if (declared !== undefined && !chains.has(declared)) chains.set(declared, [])
    const [, chain, rule] = /^(?:\[\d+:\d+\] )?-A (\S+)(.*)$/.exec(line) ?? []
    if (chain === undefined || rule === undefined) continue
    const rules = chains.get(chain) ?? []
    rules.push(normalizeRule(rule))
    chains.set(chain, rules)
  }
  return tables
}

const isJumpTo = (rule: string, chain: string): boolean =>
  new RegExp(`(^| )(-j|-g|--jump|--goto) ${chain}( |$)`).test(rule)

/**
 * Text for `iptables-restore --noflush` that makes `tables` so in one commit a table: own chains filled anew, each
 * jump once and first. `saved` is what the kernel has now; a table that needs no new jump keeps its jumps in place.
 */
export function encodeRestore(tables: readonly TableRules[], saved: SavedRules): string {
  const lines: string[] = []
  for (const { table, chains, jumps } of tables) {
    lines.push(`*${table}`)
    for (const { name } of chains) lines.push(`:${name} - [0:0]`)
    for (const { name, rules } of chains) for (const rule of rules) lines.push(`-A ${name} ${rule}`)
    for (const { from, to } of jumps) {
      const present = saved.get(table)?.get(from) ?? []
      const ours = present.filter((rule) => isJumpTo(rule, to))
      if (ours.length === 1 && present[0] === `-j ${to}`) continue
      for (const rule of ours) lines.push(`-D ${from} ${rule}`)
      lines.push(`-I ${from} 1 -j ${to}`)
    }
    lines.push('COMMIT')
  }
  return `${lines.join('\n')}\n`
}

/**
 * Text for `iptables-restore --noflush` that removes every chain of ours in `saved` whose name begins with `prefix`,
 * and every rule that leads to one; undefined where there is nothing. mangle goes first: after it nothing is queued.
 */
export function encodeRemoval(saved: SavedRules, prefix: string = CHAIN_PREFIX): string | undefined {
  const lines: string[] = []
  const order = [...saved.keys()].sort((a, b) => Number(b === 'mangle') - Number(a === 'mangle'))
  for (const table of order) {
    const chains = saved.get(table) ?? new Map<string, readonly string[]>()
    const own = [...chains.keys()].filter((chain) => chain.startsWith(prefix))
    if (own.length === 0) continue
    lines.push(`*${table}`)
    for (const [chain, rules] of chains) {
      if (own.includes(chain)) continue
      for (const rule of rules) if (own.some((to) => isJumpTo(rule, to))) lines.push(`-D ${chain} ${rule}`)
    }
    for (const chain of own) lines.push(`-F ${chain}`)
    for (const chain of own) lines.push(`-X ${chain}`)
    lines.push('COMMIT')
  }
  return lines.length === 0 ? undefined : `${lines.join('\n')}\n`
}

function chainDifferences(where: string, expected: readonly string[], found: readonly string[]): string[] {
  const differences: string[] = []
  for (const rule of expected) if (!found.includes(rule)) differences.push(`${where}: missing: ${rule}`)
  for (const rule of found) if (!expected.includes(rule)) differences.push(`${where}: unexpected: ${rule}`)
  if (differences.length === 0 && expected.join('\n') !== found.join('\n')) {
    differences.push(`${where}: the rules are in another order or repeated`)
  }
  return differences
}

/**
 * What in `saved` is not as `tables` say, one sentence each; empty where all is in place. Rules of others in built-in
 * chains are no difference as long as our jump is the first; an unknown chain with our prefix is one.
 */
export function compareRules(tables: readonly TableRules[], saved: SavedRules): string[] {
  const differences: string[] = []
  for (const { table, chains, jumps } of tables) {
    const found = saved.get(table) ?? new Map<string, readonly string[]>()
    for (const { name, rules } of chains) {
      const present = found.get(name)
      if (present === undefined) differences.push(`${table} ${name}: the chain is missing`)
      else differences.push(...chainDifferences(`${table} ${name}`, rules.map(normalizeRule), present))
    }
    for (const { from, to } of jumps) {
      const present = found.get(from) ?? []
      const count = present.filter((rule) => isJumpTo(rule, to)).length
      if (count !== 1) differences.push(`${table} ${from}: ${count} jumps to ${to} instead of one`)
      else if (present[0] !== `-j ${to}`) differences.push(`${table} ${from}: the jump to ${to} is not the first rule`)
    }
    for (const name of found.keys()) {
      if (name.startsWith(CHAIN_PREFIX) && !chains.some((chain) => chain.name === name)) {
        differences.push(`${table} ${name}: a chain that we do not know`)
      }
    }
  }
  return differences
}
