/** Values of an untrusted object with the path that led to them, so that every error can say where it is. */

import { PolicyError, type PolicyErrorCode } from './errors.ts'

export interface Field {
  readonly value: unknown
  /** `spec.ingress[0].from[1]`; '' for the whole object. */
  readonly path: string
  /** File and document. */
  readonly where: string
}

/** The error for a field; `problem` is what is wrong and how to mend it. */
export function fieldError(field: Field, problem: string, code: PolicyErrorCode = 'policy-invalid-field'): PolicyError {
  return new PolicyError(code, field.where, field.path, problem)
}

/** null and no value at all are the same to the API server. */
export function isAbsent(field: Field): boolean {
  return field.value === undefined || field.value === null
}

/** The fields of an object. With `known`, any other field is an error. */
export function readObject(field: Field, known?: readonly string[]): Record<string, unknown> {
  if (!isObject(field.value)) throw fieldError(field, `must be an object, not ${describe(field.value)}`)
  for (const key of known === undefined ? [] : Object.keys(field.value)) {
    if (known?.includes(key)) continue
    throw fieldError(
      member(field, key),
      `is not a field of networking.k8s.io/v1; use one of ${known?.join(', ')}`,
      'policy-unknown-field',
    )
  }
  return field.value
}

/** The member of an object; absent where the object is absent. */
export function member(field: Field, key: string): Field {
  const value = isObject(field.value) && Object.hasOwn(field.value, key) ? field.value[key] : undefined
  return { value, path: field.path === '' ? key : `${field.path}.${key}`, where: field.where }
}

/** The items of a list, none where it is absent. An item that is null is an error: it would read as `{}`. */
export function readList(field: Field): Field[] {
  if (isAbsent(field)) return []
  if (!Array.isArray(field.value)) throw fieldError(field, `must be a list, not ${describe(field.value)}`)
  return field.value.map((value: unknown, index) => {
    const item = { value, path: `${field.path}[${index}]`, where: field.where }
    if (isAbsent(item)) throw fieldError(item, 'is empty; write {} if everything is meant, or remove the line')
    return item
  })
}

export function readString(field: Field): string {
  if (isAbsent(field)) throw fieldError(field, 'is missing; add it', 'policy-missing-field')
  if (typeof field.value === 'string') return field.value
  const fix = typeof field.value === 'object' ? '' : '; write it in quotes'
  throw fieldError(field, `must be a string, not ${describe(field.value)}${fix}`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function describe(value: unknown): string {
  if (value === undefined || value === null) return 'empty'
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'object' ? 'an object' : `the ${typeof value} ${JSON.stringify(value)}`
}
