/** Mutations of JSON values that know which member holds what kind of value. */
import type { Random } from './random.ts'

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }
type JsonObject = { readonly [key: string]: Json }

/** Which values were seen under each key, so that a new member, or another's value, is often plausible. */
export interface Vocabulary {
  readonly keys: readonly string[]
  readonly valuesOf: ReadonlyMap<string, readonly Json[]>
  readonly texts: readonly string[]
  /** The texts that the decoder gives a meaning: taken as often as all others together. */
  readonly words: readonly string[]
}

const SCALARS: readonly Json[] = [
  null,
  true,
  false,
  0,
  -1,
  1,
  1.5,
  80,
  65535,
  65536,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  1e308,
  '',
  [],
  {},
  [null],
  [{}],
]
const TEXTS = [
  '',
  ' ',
  '\0',
  '\n',
  'a',
  'A',
  '-',
  '.',
  '/',
  '~1',
  '%',
  '"',
  '1',
  '0',
  '01',
  'é',
  '\ud800',
  '🦊',
  '__proto__',
]
const MAXIMUM_REPEATS = 50_000

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A text as it is, anything else as JSON: an object of hostile members has no text of its own. */
export function textOf(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** The vocabulary of some values, with `words` as further texts. */
export function learnVocabulary(values: readonly Json[], words: readonly string[] = []): Vocabulary {
  const valuesOf = new Map<string, Json[]>()
  const texts = new Set<string>([...TEXTS, ...words])
  function visit(value: Json): void {
    if (typeof value === 'string' && value.length < 400) texts.add(value)
    if (Array.isArray(value)) for (const item of value as readonly Json[]) visit(item)
    else if (isObject(value)) {
      for (const [key, member] of Object.entries(value)) {
        const known = valuesOf.get(key) ?? []
        if (known.length < 64) known.push(member)
        valuesOf.set(key, known)
        visit(member)
      }
    }
  }
  for (const value of values) visit(value)
  for (const key of ['__proto__', 'constructor', 'toString', 'length']) valuesOf.set(key, [...SCALARS])
  return { keys: [...valuesOf.keys()], valuesOf, texts: [...texts], words: words.length > 0 ? words : [...texts] }
}

function mutateText(text: string, random: Random, vocabulary: Vocabulary): Json {
  const at = random.below(text.length + 1)
  const end = Math.min(text.length, at + 1 + random.below(8))
  switch (random.below(7)) {
    case 0:
      return random.pick(random.oneIn(2) ? vocabulary.words : vocabulary.texts)
    case 1:
      return text.slice(0, at) + random.pick(vocabulary.texts) + text.slice(at)
    case 2:
      return text.slice(0, at) + text.slice(end)
    case 3:
      return text.slice(0, at) + String.fromCharCode(random.below(random.oneIn(8) ? 65_536 : 128)) + text.slice(at + 1)
    case 4:
      return text.slice(0, at) + text.slice(at, end).repeat(2 + random.below(3)) + text.slice(end)
    case 5:
      return text.length < 4_096 && random.oneIn(4) ? { $text: text, times: random.below(20_000) } : text.toUpperCase()
    default:
      return text.slice(0, at)
  }
}

function mutateScalar(value: Json, random: Random, vocabulary: Vocabulary): Json {
  if (typeof value === 'string' && !random.oneIn(4)) return mutateText(value, random, vocabulary)
  if (typeof value === 'number' && !random.oneIn(4)) {
    return random.pick([value + 1, value - 1, -value, value * 2, value / 2, value + 65_536, random.below(70_000)])
  }
  return random.oneIn(2) ? random.pick(SCALARS) : random.pick(vocabulary.texts)
}

function plausible(key: string, random: Random, vocabulary: Vocabulary): Json {
  const known = vocabulary.valuesOf.get(key) ?? SCALARS
  return random.oneIn(6) ? random.pick(SCALARS) : random.pick(known)
}

function mutateMembers(value: JsonObject, random: Random, vocabulary: Vocabulary): Json {
  const keys = Object.keys(value)
  const choice = random.below(keys.length === 0 ? 1 : 5)
  if (choice <= 1) {
    const key = random.oneIn(6) ? random.pick(vocabulary.texts) : random.pick(vocabulary.keys)
    return withMember(value, key, plausible(key, random, vocabulary))
  }
  const key = random.pick(keys)
  if (choice === 2) return Object.fromEntries(Object.entries(value).filter(([other]) => other !== key))
  if (choice === 3) return withMember(value, key, plausible(key, random, vocabulary))
  const renamed = random.oneIn(2) ? random.pick(vocabulary.keys) : random.pick(vocabulary.texts)
  return Object.fromEntries(Object.entries(value).map(([other, member]) => [other === key ? renamed : other, member]))
}

function mutateItems(items: readonly Json[], random: Random): Json {
  const at = random.below(items.length + 1)
  const item = items[random.below(items.length)] ?? random.pick(SCALARS)
  switch (random.below(6)) {
    case 0:
      return items.toSpliced(at, 0, item)
    case 1:
      return items.toSpliced(Math.min(at, items.length - 1), 1)
    case 2:
      return items.toReversed()
    case 3:
      return [...items, random.pick(SCALARS)]
    case 4:
      return random.oneIn(6) ? items.toSpliced(at, 0, { $repeat: random.below(MAXIMUM_REPEATS), of: item }) : [item]
    default:
      return items.toSpliced(at, 0, item, item)
  }
}

/** Not by assignment: `__proto__` is a key like others in JSON. */
function withMember(value: JsonObject, key: string, member: Json): Json {
  return Object.fromEntries([...Object.entries(value).filter(([other]) => other !== key), [key, member]])
}

/** One random change of `value`, at any depth. */
export function mutateValue(value: Json, random: Random, vocabulary: Vocabulary): Json {
  if (Array.isArray(value)) {
    const items = value as readonly Json[]
    if (items.length === 0 || random.oneIn(4)) return mutateItems(items, random)
    const at = random.below(items.length)
    return items.with(at, mutateValue(items[at] ?? null, random, vocabulary))
  }
  if (isObject(value)) {
    const keys = Object.keys(value)
    if (keys.length === 0 || random.oneIn(4)) return mutateMembers(value, random, vocabulary)
    const key = random.pick(keys)
    const changed = mutateValue(value[key] ?? null, random, vocabulary)
    return Object.fromEntries(Object.entries(value).map(([other, member]) => [other, other === key ? changed : member]))
  }
  return mutateScalar(value, random, vocabulary)
}

/** Nodes and characters that one input may unfold to. */
const UNFOLDED_NODES = 110_000
const UNFOLDED_CHARACTERS = 600_000

/**
 * The value that an input stands for: `{$repeat: n, of: item}` in a list is n items, with `$i` in their texts replaced
 * by the number; `{$text, times}` is a text so often. So a small input can be a large value, within bounds.
 */
export function unfold(value: Json, mostNodes = UNFOLDED_NODES): Json {
  let nodes = 0
  let characters = 0
  function text(found: string, index: number): string {
    const full = index < 0 ? found : found.replaceAll('$i', String(index))
    characters += full.length
    return full
  }
  function items(list: readonly Json[], index: number): Json[] {
    const out: Json[] = []
    for (const item of list) {
      if (!isObject(item) || typeof item.$repeat !== 'number') {
        out.push(visit(item, index))
        continue
      }
      for (let i = 0; i < item.$repeat && nodes < mostNodes && characters < UNFOLDED_CHARACTERS; i++) {
        out.push(visit(item.of ?? null, i))
      }
    }
    return out
  }
  function visit(found: Json, index: number): Json {
    nodes++
    if (typeof found === 'string') return text(found, index)
    if (Array.isArray(found)) return items(found as readonly Json[], index)
    if (!isObject(found)) return found
    const { $text, times } = found
    if (typeof $text === 'string' && typeof times === 'number') {
      const most = Math.max(0, Math.floor((UNFOLDED_CHARACTERS - characters) / Math.max($text.length, 1)))
      return text($text.repeat(Math.max(0, Math.min(Math.floor(times), most))), -1)
    }
    return Object.fromEntries(Object.entries(found).map(([key, member]) => [key, visit(member, index)]))
  }
  return visit(value, -1)
}

/** Smaller or plainer variants of `value`, the larger steps first. */
export function* shrinkValue(value: Json): Generator<Json> {
  if (typeof value === 'string') {
    for (let cut = value.length; cut > 0; cut >>= 1) {
      yield value.slice(cut)
      yield value.slice(0, value.length - cut)
    }
  } else if (typeof value === 'number') {
    if (value !== 0) yield 0
    if (Math.abs(value) > 1) yield Math.trunc(value / 2)
    if (Math.abs(value) > 10) yield Math.trunc(value * 0.9)
  } else if (Array.isArray(value)) {
    const items = value as readonly Json[]
    yield []
    for (let at = 0; at < items.length; at++) yield items.toSpliced(at, 1)
    for (const [at, item] of items.entries()) for (const smaller of shrinkValue(item)) yield items.with(at, smaller)
  } else if (isObject(value)) {
    const entries = Object.entries(value)
    for (const [key] of entries) yield Object.fromEntries(entries.filter(([other]) => other !== key))
    for (const [key, member] of entries) {
      for (const smaller of shrinkValue(member)) {
        yield Object.fromEntries(entries.map(([other, kept]) => [other, other === key ? smaller : kept]))
      }
    }
  }
}
