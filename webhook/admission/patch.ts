import { isJsonObject } from './shape.ts'

/** One operation of a JSON Patch (RFC 6902). */
export type PatchOperation =
  | { readonly op: 'add' | 'replace'; readonly path: string; readonly value: unknown }
  | { readonly op: 'remove'; readonly path: string }

/** A reference token of a JSON Pointer (RFC 6901 section 3). */
function token(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1')
}

/** The names of a list's elements, where each has one and none has it twice: then elements are matched by name. */
function elementNames(items: readonly unknown[]): string[] | undefined {
  const names = items.map((item) => (isJsonObject(item) && Object.hasOwn(item, 'name') ? item.name : undefined))
  const texts = names.filter((name) => typeof name === 'string')
  return texts.length === items.length && new Set(texts).size === items.length ? texts : undefined
}

function diffNamedLists(
  before: readonly unknown[],
  after: readonly unknown[],
  beforeNames: readonly string[],
  afterNames: readonly string[],
  path: string,
): PatchOperation[] {
  const operations: PatchOperation[] = []
  const current = before.map((item, index) => ({ item, name: beforeNames[index] }))
  const wanted = new Set(afterNames)
  for (let index = current.length - 1; index >= 0; index--) {
    const name = current[index]?.name
    if (name === undefined || wanted.has(name)) continue
    operations.push({ op: 'remove', path: `${path}/${index}` })
    current.splice(index, 1)
  }
  for (const [index, item] of after.entries()) {
    const name = afterNames[index]
    const from = current.findIndex((candidate) => candidate.name === name)
    if (from === index) {
      operations.push(...diffValues(current[index]?.item, item, `${path}/${index}`))
      continue
    }
    if (from !== -1) {
      operations.push({ op: 'remove', path: `${path}/${from}` })
      current.splice(from, 1)
    }
    operations.push({ op: 'add', path: `${path}/${index}`, value: item })
    current.splice(index, 0, { item, name })
  }
  return operations
}

function diffLists(before: readonly unknown[], after: readonly unknown[], path: string): PatchOperation[] {
  const beforeNames = elementNames(before)
  const afterNames = elementNames(after)
  if (beforeNames && afterNames) return diffNamedLists(before, after, beforeNames, afterNames, path)
  const shared = Math.min(before.length, after.length)
  const operations = after
    .slice(0, shared)
    .flatMap((item, index) => diffValues(before[index], item, `${path}/${index}`))
  for (let index = before.length - 1; index >= shared; index--)
    operations.push({ op: 'remove', path: `${path}/${index}` })
  for (const [index, value] of after.slice(shared).entries()) {
    operations.push({ op: 'add', path: `${path}/${shared + index}`, value })
  }
  return operations
}

/** Null is a value here; undefined counts as absent, as JSON has none. */
function hasValue(from: Readonly<Record<string, unknown>>, key: string): boolean {
  return Object.hasOwn(from, key) && from[key] !== undefined
}

function diffValues(before: unknown, after: unknown, path: string): PatchOperation[] {
  if (Object.is(before, after)) return []
  if (Array.isArray(before) && Array.isArray(after)) return diffLists(before, after, path)
  if (!isJsonObject(before) || !isJsonObject(after)) {
    return before === after ? [] : [{ op: 'replace', path, value: after }]
  }
  const operations: PatchOperation[] = []
  for (const key of Object.keys(before)) {
    if (hasValue(before, key) && !hasValue(after, key)) operations.push({ op: 'remove', path: `${path}/${token(key)}` })
  }
  for (const key of Object.keys(after)) {
    if (!hasValue(after, key)) continue
    const at = `${path}/${token(key)}`
    if (hasValue(before, key)) operations.push(...diffValues(before[key], after[key], at))
    else operations.push({ op: 'add', path: at, value: after[key] })
  }
  return operations
}

/**
 * Returns a JSON Patch (RFC 6902) that turns `before` into `after`, both JSON values; empty where they are equal.
 * Lists whose elements all have names are matched by name, so that a container put in front shifts the others
 * instead of rewriting them.
 */
export function createPatch(before: unknown, after: unknown): PatchOperation[] {
  return diffValues(before, after, '')
}
