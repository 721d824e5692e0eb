import type { PatchOperation } from '../../../webhook/admission/patch.ts'

type Parent = unknown[] | { [key: string]: unknown }

function parseToken(token: string): string {
  return token.replaceAll('~1', '/').replaceAll('~0', '~')
}

function child(parent: unknown, key: string): unknown {
  if (Array.isArray(parent) && /^(0|[1-9]\d*)$/.test(key) && Number(key) < parent.length) return parent[Number(key)]
  if (!Array.isArray(parent) && typeof parent === 'object' && parent !== null && Object.hasOwn(parent, key)) {
    return Object.getOwnPropertyDescriptor(parent, key)?.value
  }
  throw new Error(`nothing at ${key}`)
}

function set(parent: { [key: string]: unknown }, key: string, value: unknown): void {
  // Not by assignment: a key named __proto__ is a key like others in JSON.
  Object.defineProperty(parent, key, { value, configurable: true, enumerable: true, writable: true })
}

function applyToList(parent: unknown[], key: string, operation: PatchOperation): void {
  const index = Number(key)
  const most = operation.op === 'add' ? parent.length : parent.length - 1
  if (!/^(0|[1-9]\d*)$/.test(key) || index > most) throw new Error(`${operation.op} beyond the list: ${operation.path}`)
  if (operation.op === 'add') parent.splice(index, 0, operation.value)
  else if (operation.op === 'remove') parent.splice(index, 1)
  else parent[index] = operation.value
}

/** Applies a JSON Patch as RFC 6902 section 4 says (add, remove, replace), on a copy; throws where a target is missing. */
export function applyPatch(document: unknown, patch: readonly PatchOperation[]): unknown {
  const root = { document: structuredClone(document) }
  for (const operation of structuredClone(patch)) {
    const [, ...tokens] = `/document${operation.path}`.split('/').map(parseToken)
    const last = tokens.pop() ?? ''
    const parent = tokens.reduce<unknown>(child, root) as Parent
    if (Array.isArray(parent)) {
      applyToList(parent, last, operation)
      continue
    }
    if (operation.op !== 'add') child(parent, last)
    if (operation.op === 'remove') delete parent[last]
    else set(parent, last, operation.value)
  }
  return root.document
}
