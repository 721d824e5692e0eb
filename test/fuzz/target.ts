/** What a decoder's fuzzing consists of, and the two kinds of input. */
import { mutateBytes, shrinkBytes } from './bytes.ts'
import type { Random } from './random.ts'
import { type Json, learnVocabulary, mutateValue, shrinkValue } from './values.ts'

export interface Target<Input> {
  readonly name: string
  /** What is decoded and which laws are held, for `--help`. */
  readonly about: string
  /** The product's files whose coverage guides, as parts of their paths. */
  readonly sources: readonly string[]
  /** Inputs between two looks at the coverage: fewer where one takes long. */
  readonly batch: number
  readonly seeds: readonly Input[]
  /** `other` is another input of the corpus. */
  mutate(input: Input, random: Random, other: Input): Input
  /** Smaller variants, for a finding. */
  shrink(input: Input): Iterable<Input>
  /** Decodes the input and holds the laws: a short word for what came out, or an exception where a law is broken. */
  check(input: Input): string | Promise<string>
  /** As JSON, and back. */
  toJson(input: Input): Json
  fromJson(value: Json): Input
}

type Laws<Input> = Pick<Target<Input>, 'name' | 'about' | 'sources' | 'seeds' | 'check'> & { readonly batch?: number }

/** A target of bytes. `repair` mends lengths and checksums of a changed input, so that it gets past the first look. */
export function bytesTarget(
  laws: Laws<Uint8Array> & { readonly repair?: (bytes: Uint8Array, random: Random) => Uint8Array },
): Target<Uint8Array> {
  const { repair, ...rest } = laws
  return {
    batch: 64,
    ...rest,
    mutate(input, random, other) {
      const mutated = mutateBytes(input, random, other)
      return repair === undefined || random.oneIn(4) ? mutated : repair(mutated, random)
    },
    shrink: shrinkBytes,
    toJson: (input) => Buffer.from(input).toString('hex'),
    fromJson: (value) => Uint8Array.from(Buffer.from(String(value), 'hex')),
  }
}

/** A target of JSON values. `words` are texts that some seed does not hold but the decoder knows. */
export function valueTarget(laws: Laws<Json> & { readonly words?: readonly string[] }): Target<Json> {
  const { words, ...rest } = laws
  const vocabulary = learnVocabulary(laws.seeds, words)
  return {
    batch: 32,
    ...rest,
    mutate: (input, random, other) =>
      random.oneIn(50) ? mutateValue(other, random, vocabulary) : mutateValue(input, random, vocabulary),
    shrink: shrinkValue,
    toJson: (input) => input,
    fromJson: (value) => value,
  }
}

/** Throws where a law does not hold; `law` says which. */
export function hold(condition: boolean, law: string): asserts condition {
  if (!condition) throw new Error(law)
}
