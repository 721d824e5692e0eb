/** NetworkPolicies from objects (of the API server) and from YAML text (of a directory source, of people). */

import { type Document, isScalar, parseAllDocuments, visit } from 'yaml'
import { PolicyError } from './errors.ts'
import { type Field, fieldError, member, readList, readObject } from './field.ts'
import { type ParseOptions, POLICY_API_VERSION, readPolicy } from './read.ts'
import { type NetworkPolicy, policyName } from './types.ts'

export type { ParseOptions } from './read.ts'

export interface ParseFileOptions extends ParseOptions {
  /** What to do with documents of other kinds, as in a file with Deployments; default `refuse`. */
  readonly otherKinds?: 'refuse' | 'ignore'
}

/**
 * The policy in an object as YAML or JSON has it. `where` (file and document) begins every message.
 * Throws PolicyError with the path of the first field that is wrong.
 */
export function parseNetworkPolicy(object: unknown, where: string, options: ParseOptions = {}): NetworkPolicy {
  return readPolicy({ value: object, path: '', where }, options)
}

/**
 * The policies of a file with one or more YAML documents, in their order; a List or NetworkPolicyList counts as its
 * items, empty documents as nothing. Throws PolicyError, which names the document (from 1) and the field.
 */
export function parseNetworkPolicies(text: string, fileName: string, options: ParseFileOptions = {}): NetworkPolicy[] {
  const documents = parseAllDocuments(text, {
    // As kubectl reads it: `yes` is a boolean there, so a label value `yes` must be refused here too.
    version: '1.1',
    // Its own check compares each key of a map with all before it: minutes for a file of a few megabytes.
    uniqueKeys: false,
    // Each error would quote its line, and one line may be the whole file with an error at each of its items.
    prettyErrors: false,
    // kubectl's reader has neither sexagesimal numbers (`1:30`) nor timestamps.
    customTags: (tags) =>
      tags.filter((tag) => typeof tag === 'string' || (tag.format !== 'TIME' && !tag.tag.endsWith(':timestamp'))),
  })
  const policies = new Map<string, NetworkPolicy>()
  for (const [index, document] of documents.entries()) {
    const where = documents.length > 1 ? `${fileName} document ${index + 1}` : fileName
    const value = readDocument(document, where, text)
    if (value === null || value === undefined) continue
    for (const [field, policy] of readRoot({ value, path: '', where }, options)) {
      const name = policyName(policy)
      if (policies.has(name)) {
        throw fieldError(member(field, 'metadata.name'), `${name} is there twice; rename one`, 'policy-duplicate')
      }
      policies.set(name, policy)
    }
  }
  return [...policies.values()]
}

function readDocument(document: Document.Parsed, where: string, text: string): unknown {
  const [error] = document.errors
  if (error !== undefined) {
    throw new PolicyError('policy-not-yaml', where, '', `is not YAML: ${error.message}${placeIn(text, error.pos[0])}`)
  }
  try {
    const repeated = findRepeatedKey(document)
    if (repeated !== undefined) throw new SyntaxError(`Map keys must be unique${placeIn(text, repeated)}`)
    return document.toJS({ maxAliasCount: 100 })
  } catch (cause) {
    const reason = cause instanceof Error ? firstLine(cause.message) : 'unreadable'
    throw new PolicyError('policy-not-yaml', where, '', `is not YAML: ${reason}`, { cause })
  }
}

function placeIn(text: string, offset: number): string {
  const lines = text.slice(0, offset).split('\n')
  return ` at line ${lines.length}, column ${(lines.at(-1) ?? '').length + 1}`
}

/** Where in the text a key stands that its map has already; undefined where there is none. Merge keys may come again. */
function findRepeatedKey(document: Document.Parsed): number | undefined {
  let found: number | undefined
  visit(document, {
    Map(_, { items }) {
      const keys = new Set<unknown>()
      for (const { key } of items) {
        if (!isScalar(key) || key.value === '<<') continue
        if (keys.has(key.value)) {
          found = key.range?.[0] ?? 0
          return visit.BREAK
        }
        keys.add(key.value)
      }
      return undefined
    },
  })
  return found
}

function firstLine(message: string): string {
  return (message.split('\n')[0] ?? '').replace(/:$/, '')
}

function readRoot(root: Field, options: ParseFileOptions): [Field, NetworkPolicy][] {
  const { apiVersion, kind } = readObject(root)
  if ((kind === 'List' && apiVersion === 'v1') || (kind === 'NetworkPolicyList' && apiVersion === POLICY_API_VERSION)) {
    return readList(member(root, 'items')).flatMap((item) => readRoot(item, options))
  }
  if (options.otherKinds === 'ignore' && isOtherKind(apiVersion, kind)) return []
  return [[root, readPolicy(root, options)]]
}

/** An object of another kind. A NetworkPolicy of another apiVersion is not one: to ignore it would hide a mistake. */
function isOtherKind(apiVersion: unknown, kind: unknown): boolean {
  return typeof apiVersion === 'string' && typeof kind === 'string' && kind !== 'NetworkPolicy'
}
