import { isDeepStrictEqual } from 'node:util'
import { stringify } from 'yaml'
import { PolicyError } from '../../../policy/errors.ts'
import { parseNetworkPolicies, parseNetworkPolicy } from '../../../policy/parse.ts'
import type { NetworkPolicy } from '../../../policy/types.ts'
import { applyEdits, NO_EDIT } from '../edits.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, textOf, unfold } from '../values.ts'
import { POLICY_SEEDS } from './policy.ts'

const ALIASES = `a: &a [x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n`
const MERGE = 'apiVersion: v1\nkind: List\nitems:\n- &p {kind: NetworkPolicy}\n- <<: *p\n  metadata: {}\n'
const TAGS = '!!binary aGk=\n---\n!!set {a, b}\n---\n!!omap [a: 1]\n---\n!!timestamp 2001-12-14\n---\n? [a]\n: 1\n'

function parse(text: string): readonly NetworkPolicy[] | PolicyError {
  try {
    return parseNetworkPolicies(text, 'fuzz', { otherKinds: 'ignore', defaultNamespace: 'default' })
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    hold(error.message.length <= 4_096 + 4 * text.length, 'an error message is bounded by what came')
    return error
  }
}

/** A document's own policies, without YAML between; undefined where one is no policy by itself. */
function parseObjects(objects: readonly Json[]): readonly NetworkPolicy[] | undefined {
  try {
    return objects.map((object) => parseNetworkPolicy(object, 'fuzz', { defaultNamespace: 'default' }))
  } catch {
    return undefined
  }
}

export const policyTextTarget = valueTarget({
  name: 'policy-text',
  about: 'files of NetworkPolicies: PolicyError or policies, the same as YAML, as JSON and as objects; aliases bounded',
  sources: ['policy/parse.ts', 'policy/read.ts', 'policy/field.ts'],
  batch: 16,
  seeds: [
    { objects: POLICY_SEEDS, edits: [] },
    { objects: [{ apiVersion: 'v1', kind: 'List', items: POLICY_SEEDS }], edits: [NO_EDIT] },
    ...[ALIASES, MERGE, TAGS].map((text) => ({ text, edits: [NO_EDIT] })),
  ],
  words: [
    '---\n',
    '...\n',
    '- ',
    ': ',
    '&a ',
    '*a',
    '<<: *a',
    '!!str ',
    '|\n',
    '>\n',
    '{',
    '[',
    '\t',
    '# ',
    '? ',
    '%YAML 1.2\n',
    'yes',
    '1:30',
    '0o7',
    '.inf',
    '~',
    '"',
  ],
  check(input) {
    const { objects, text, edits } = isObject(input) ? input : {}
    const list = unfold(objects ?? [], 2_000)
    const all = Array.isArray(list) ? (list as readonly Json[]) : []
    const given =
      text === undefined
        ? undefined
        : [unfold(text)]
            .flat()
            .map((part) => textOf(part as Json))
            .join('')
    const written = given ?? all.map((object) => stringify(object, { version: '1.1' })).join('---\n')
    const edited = applyEdits(written, edits)
    const parsed = parse(edited)
    if (given === undefined && edited === written) {
      const expected = parseObjects(all)
      const asJson = parse(all.map((object) => JSON.stringify(object)).join('\n---\n'))
      if (expected !== undefined && !(parsed instanceof PolicyError)) {
        hold(isDeepStrictEqual(parsed, expected), 'policies in YAML are the policies of the objects')
        hold(isDeepStrictEqual(asJson, parsed), 'policies in JSON are those in YAML')
      }
    }
    return parsed instanceof PolicyError ? parsed.code : `policies-${Math.min(parsed.length, 4)}`
  },
})
