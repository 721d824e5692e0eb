import {
  ROTATION_KEY_STATES,
  ROTATION_NAMES_MAX,
  ROTATION_OUTCOMES,
  ROTATION_PHASES,
  ROTATION_TEXT_CHARACTERS,
  type RotationAnswer,
  type RotationKind,
  type RotationStatus,
} from './rotation.ts'

/** The status of one kind, undefined where there is none yet, or a sentence that names the field which is wrong. */
export function parseRotationStatus(
  kind: RotationKind,
  data: Readonly<Record<string, unknown>> | undefined,
): RotationStatus | { readonly problem: string } | undefined {
  const text = Object.hasOwn(data ?? {}, kind) ? data?.[kind] : undefined
  if (text === undefined) return undefined
  if (typeof text !== 'string') return { problem: `${kind}: is no text.` }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { problem: `${kind}: is no JSON.` }
  }
  try {
    return readStatus(fieldsOf(value, kind))
  } catch (error) {
    if (error instanceof SyntaxError) return { problem: `${error.message}.` }
    throw error
  }
}

/** A JSON object, and where it stands. */
interface Fields {
  readonly at: string
  readonly values: Readonly<Record<string, unknown>>
}

function readStatus(fields: Fields): RotationStatus {
  const sidecars = fieldsOf(fields.values.sidecars, `${fields.at}.sidecars`)
  const { answered } = fields.values
  return {
    at: readTime(fields, 'at'),
    phase: readWord(fields, 'phase', ROTATION_PHASES),
    keys: readList(fields, 'keys').map((key) => ({
      id: readText(key, 'id'),
      state: readWord(key, 'state', ROTATION_KEY_STATES),
      since: readTime(key, 'since'),
      ...readFlag(key, 'compromised'),
      ...readFlag(key, 'forced'),
      ...readFlag(key, 'aborted'),
    })),
    sidecars: {
      expected: readCount(sidecars, 'expected'),
      acknowledged: readCount(sidecars, 'acknowledged'),
      missing: readNames(sidecars, 'missing'),
    },
    waits: readList(fields, 'waits').map((wait) => ({
      code: readText(wait, 'code'),
      message: readText(wait, 'message'),
      ...optional(wait, 'names', readNames),
      ...optional(wait, 'count', readCount),
      ...optional(wait, 'until', readTime),
    })),
    ...(answered !== undefined && { answered: readAnswer(fieldsOf(answered, `${fields.at}.answered`)) }),
    conditions: readList(fields, 'conditions').map((condition) => ({
      code: readText(condition, 'code'),
      message: readText(condition, 'message'),
      ...optional(condition, 'since', readTime),
    })),
    ...optional(fields, 'scheduledAt', readTime),
  }
}

function readAnswer(fields: Fields): RotationAnswer {
  return {
    request: readText(fields, 'request'),
    outcome: readWord(fields, 'outcome', ROTATION_OUTCOMES),
    ...optional(fields, 'code', readText),
    ...optional(fields, 'message', readText),
  }
}

function fieldsOf(value: unknown, at: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new SyntaxError(`${at}: is no object`)
  return { at, values: value as Fields['values'] }
}

function optional<Name extends string, Value>(
  fields: Fields,
  name: Name,
  read: (fields: Fields, name: Name) => Value,
): { readonly [key in Name]?: Value } {
  if (fields.values[name] === undefined) return {}
  return { [name]: read(fields, name) } as { readonly [key in Name]: Value }
}

function wrong({ at }: Fields, name: string, what: string): SyntaxError {
  return new SyntaxError(`${at}.${name}: ${what}`)
}

/** Text for a terminal: no control characters, which could write anything there. */
function readText(fields: Fields, name: string): string {
  const value = fields.values[name]
  if (typeof value !== 'string' || value === '') throw wrong(fields, name, 'is no text')
  if (value.length > ROTATION_TEXT_CHARACTERS)
    throw wrong(fields, name, `is longer than ${ROTATION_TEXT_CHARACTERS} characters`)
  if (/\p{C}/u.test(value)) throw wrong(fields, name, 'has a control character')
  return value
}

function readWord<Word extends string>(fields: Fields, name: string, words: readonly Word[]): Word {
  const word = words.find((known) => known === fields.values[name])
  if (word === undefined) throw wrong(fields, name, `is none of ${words.join(', ')}`)
  return word
}

function readCount(fields: Fields, name: string): number {
  const value = fields.values[name]
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw wrong(fields, name, 'is no whole number from 0 on')
  }
  return value
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/

function readTime(fields: Fields, name: string): number {
  const value = fields.values[name]
  const seconds = typeof value === 'string' && TIME.test(value) ? Date.parse(value) / 1_000 : Number.NaN
  if (Number.isNaN(seconds)) throw wrong(fields, name, 'is no time such as 2026-01-31T12:00:00Z')
  return seconds
}

function readFlag<Name extends string>(fields: Fields, name: Name): { readonly [key in Name]?: true } {
  const value = fields.values[name]
  if (value === undefined) return {}
  if (value !== true) throw wrong(fields, name, 'can only be true')
  return { [name]: true } as { readonly [key in Name]: true }
}

function readItems(fields: Fields, name: string, most: number): readonly unknown[] {
  const value = fields.values[name]
  if (!Array.isArray(value)) throw wrong(fields, name, 'is no list')
  if (value.length > most) throw wrong(fields, name, `has more than ${most} items`)
  return value
}

function readList(fields: Fields, name: string): readonly Fields[] {
  return readItems(fields, name, LIST_MAX).map((item, index) => fieldsOf(item, `${fields.at}.${name}[${index}]`))
}

/** More than there are keys, steps or conditions. */
const LIST_MAX = 16

function readNames(fields: Fields, name: string): readonly string[] {
  return readItems(fields, name, ROTATION_NAMES_MAX).map((item) =>
    readText({ ...fields, values: { [name]: item } }, name),
  )
}
