/** Values of a manifest with the path that led to them, so that an error says where it is and how to mend it. */
import { LabError } from './errors.ts'

export interface Field {
  readonly value: unknown
  readonly path: string
  /** File and document. */
  readonly where: string
}

export function fieldError(field: Field, problem: string): LabError {
  return new LabError('lab-manifest', `${field.where}: ${field.path === '' ? 'the document' : field.path} ${problem}`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function isAbsent(field: Field): boolean {
  return field.value === undefined || field.value === null
}

export function member(field: Field, key: string): Field {
  const value = isObject(field.value) && Object.hasOwn(field.value, key) ? field.value[key] : undefined
  return { value, path: field.path === '' ? key : `${field.path}.${key}`, where: field.where }
}

/** The field itself once it is an object, or absent and `optional`. */
export function requireObject(field: Field, optional = false): Field {
  if (isObject(field.value) || (optional && isAbsent(field))) return field
  throw fieldError(field, isAbsent(field) ? 'is missing; add it' : 'must be an object')
}

export function readItems(field: Field): Field[] {
  if (isAbsent(field)) return []
  if (!Array.isArray(field.value)) throw fieldError(field, 'must be a list')
  return field.value.map((value: unknown, index) => ({ value, path: `${field.path}[${index}]`, where: field.where }))
}

export function readText(field: Field): string {
  if (typeof field.value === 'string' && field.value !== '') return field.value
  throw fieldError(field, isAbsent(field) ? 'is missing; add it' : 'must be text; write it in quotes')
}

export function readOptionalText(field: Field): string | undefined {
  return isAbsent(field) ? undefined : readText(field)
}

export function readInteger(field: Field, least: number, most: number): number {
  const { value } = field
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value
  throw fieldError(field, isAbsent(field) ? 'is missing; add it' : `must be a whole number from ${least} to ${most}`)
}

export function readOneOf<T extends string>(field: Field, allowed: readonly T[], fallback: T): T {
  const chosen = isAbsent(field) ? fallback : field.value
  const found = allowed.find((candidate) => candidate === chosen)
  if (found === undefined) throw fieldError(field, `must be one of ${allowed.join(', ')}`)
  return found
}

/** RFC 1123: a label, or with dots a subdomain. */
export function readName(field: Field, form: 'label' | 'subdomain' = 'subdomain'): string {
  const name = readText(field)
  const label = '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?'
  const pattern = form === 'label' ? `^${label}$` : `^${label}(\\.${label})*$`
  if (name.length > 253 || !new RegExp(pattern).test(name)) {
    throw fieldError(
      field,
      `"${name}" must be lower case letters, digits and "-" (RFC 1123), not beginning or ending with "-"`,
    )
  }
  return name
}

/** A map of text to text, as labels, annotations and selectors are; values must be text already. */
export function readTextMap(field: Field): Record<string, string> {
  requireObject(field, true)
  const entries = Object.entries(field.value ?? {})
  for (const [key, value] of entries) {
    if (typeof value !== 'string') throw fieldError(member(field, key), 'must be text; write it in quotes')
  }
  return Object.fromEntries(entries)
}

const LABEL_NAME = /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const LABEL_VALUE = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/

/** Labels or a Service's selector, in Kubernetes' syntax. */
export function readLabels(field: Field): Record<string, string> {
  const labels = readTextMap(field)
  for (const [key, value] of Object.entries(labels)) {
    if (!LABEL_NAME.test(key)) throw fieldError(member(field, key), 'is no valid label name')
    if (!LABEL_VALUE.test(value)) throw fieldError(member(field, key), `"${value}" is no valid label value`)
  }
  return labels
}
