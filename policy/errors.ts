import { SynguardError } from '../api/errors.ts'

export const POLICY_ERRORS = {
  'policy-not-yaml': 'A file of NetworkPolicies is not readable as YAML; the message names the line.',
  'policy-wrong-kind': 'A document is not a networking.k8s.io/v1 NetworkPolicy, or a list of them.',
  'policy-unknown-field': 'A NetworkPolicy has a field that networking.k8s.io/v1 does not know; usually a misspelling.',
  'policy-missing-field': 'A NetworkPolicy lacks a field that it must have.',
  'policy-invalid-field': 'A field of a NetworkPolicy has a value that the API server would refuse.',
  'policy-duplicate': 'Two NetworkPolicies of one file have the same namespace and name.',
} as const

export type PolicyErrorCode = keyof typeof POLICY_ERRORS

/** A NetworkPolicy that cannot stand; `where` names file and document, `field` the path in the object ('' for all of it). */
export class PolicyError extends SynguardError {
  readonly where: string
  readonly field: string

  constructor(code: PolicyErrorCode, where: string, field: string, problem: string, options?: ErrorOptions) {
    super(code, [where, field, problem].filter((part) => part !== '').join(': '), options)
    this.where = where
    this.field = field
  }
}
