import { describe, expect, it } from '@jest/globals'
import { AUTHORITY_ERRORS, PROOF_ERRORS, WIT_ERRORS } from '../../../certs/errors.ts'
import { ROTATION_ERRORS } from '../../../certs/rotation/errors.ts'
import { CLI_ERRORS } from '../../../cli/errors.ts'
import { API_ERRORS } from '../../../kubernetes/errors.ts'
import { LAB_ERRORS } from '../../../lab/errors.ts'
import { POLICY_ERRORS } from '../../../policy/errors.ts'
import { CONTROL_ERRORS } from '../../../sidecar/control/errors.ts'
import { REFUSALS } from '../../../sidecar/handshake/reasons.ts'
import { NETLINK_ERRORS } from '../../../sidecar/netlink/errors.ts'
import { RULES_ERRORS } from '../../../sidecar/rules/errors.ts'
import { ADMISSION_ERRORS, SKIP_REASONS } from '../../../webhook/admission/errors.ts'
import { WEBHOOK_ERRORS } from '../../../webhook/errors.ts'
import { listSources, PRODUCT, readTables, readText } from './checkout.ts'

/** Each table of codes by the heading that docs/errors.md has it under, in the document's order. */
const TABLES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'Refused connections': REFUSALS,
  'Refused Pods and bad admission requests': ADMISSION_ERRORS,
  'Pods without a sidecar': SKIP_REASONS,
  'The HTTP interface of the webhook': WEBHOOK_ERRORS,
  'Requests to the API server': API_ERRORS,
  'Identity tokens': WIT_ERRORS,
  'Proofs of possession': PROOF_ERRORS,
  'Keys and certificates': AUTHORITY_ERRORS,
  'Rotation of keys': ROTATION_ERRORS,
  NetworkPolicies: POLICY_ERRORS,
  'The control plane of the sidecar': CONTROL_ERRORS,
  'Rules and the init step': RULES_ERRORS,
  'Netlink and raw sockets': NETLINK_ERRORS,
  'The lab': LAB_ERRORS,
  'The command line': CLI_ERRORS,
}

const document = readText('docs/errors.md')
const sections = document
  .split(/^## /m)
  .slice(1)
  .map((section) => {
    const [heading = ''] = section.split('\n', 1)
    const rows = readTables(section).flat()
    return [heading, Object.fromEntries(rows.map(([code = '', sentence]) => [code.replaceAll('`', ''), sentence]))]
  })

describe('docs/errors.md', () => {
  it('has every code with its sentence, and no other', () => {
    expect(Object.fromEntries(sections)).toEqual(TABLES)
  })

  it('knows every table of codes in the code', () => {
    const declared = listSources(PRODUCT).flatMap((path) =>
      [...readText(path).matchAll(/^export const ([A-Z]+_ERRORS|REFUSALS|SKIP_REASONS) = \{$/gm)].map(
        ([, name]) => name,
      ),
    )
    expect(declared).toHaveLength(Object.keys(TABLES).length)
  })

  it('has codes in kebab case and sentences that end', () => {
    const odd = Object.values(TABLES)
      .flatMap((table) => Object.entries(table))
      .filter(([code, sentence]) => !/^[a-z]+(-[a-z]+)*$/.test(code) || !sentence.endsWith('.'))
    expect(odd).toEqual([])
  })
})
