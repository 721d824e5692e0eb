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

/**
 * The operations that turn one list into another, elements matched by name. Elements that keep their order stay; the
 * others are taken out, from the end, and put in anew. What goes to the front, as our containers do, is all that moves.
 * Each list is walked once: a Pod may name thousands of containers, and its author is not trusted.
 */
function diffNamedLists(
  before: readonly unknown[],
  after: readonly unknown[],
  beforeNames: readonly string[],
  afterNames: readonly string[],
  path: string,
): PatchOperation[] {
  const placeOf = new Map(beforeNames.map((name, index) => [name, index]))
  const staying = new Set<string>()
  let next = before.length
  for (const name of afterNames.toReversed()) {
    const place = placeOf.get(name)
    if (place === undefined || place >= next) continue
    staying.add(name)
    next = place
  }
  const operations: PatchOperation[] = []
  for (let index = before.length - 1; index >= 0; index--) {
    if (!staying.has(beforeNames[index] ?? '')) operations.push({ op: 'remove', path: `${path}/${index}` })
  }
  for (const [index, item] of after.entries()) {
    const name = afterNames[index] ?? ''
    if (!staying.has(name)) operations.push({ op: 'add', path: `${path}/${index}`, value: item })
    else for (const one of diffValues(before[placeOf.get(name) ?? 0], item, `${path}/${index}`)) operations.push(one)
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
    if (!hasValue(before, key)) operations.push({ op: 'add', path: at, value: after[key] })
    // Not spread into one call: there may be more operations than a call takes arguments.
    else for (const one of diffValues(before[key], after[key], at)) operations.push(one)
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
