/**
 * What stands of a stored policy that cannot be read whole, as when the API server knows a field that this version does
 * not. To drop such a policy would un-isolate its Pods. Rules only allow, so a rule that is not understood goes, and
 * what says whom the policy isolates is read wide.
 */

import { PolicyError } from './errors.ts'
import { type Field, isAbsent, member, readList, readObject } from './field.ts'
import { type ParseOptions, readNames, readPolicyTypes, readRule, readSelector, SPEC_FIELDS } from './read.ts'
import type { NetworkPolicy, PolicyRule } from './types.ts'

export interface SalvagedPolicy {
  readonly policy: NetworkPolicy
  /** What could not be read; empty where the policy is whole. */
  readonly problems: readonly PolicyError[]
}

/**
 * The policy of an object from the API server, which never allows more than the object says: without the rules that
 * cannot be read; without any where the spec has an unknown field; for all Pods, without rules, where podSelector cannot
 * be read; for both directions, without rules, where policyTypes cannot. Throws PolicyError only where name or namespace cannot be read.
 */
export function salvageNetworkPolicy(object: unknown, where: string): SalvagedPolicy {
  const options: ParseOptions = { stored: true }
  const problems: PolicyError[] = []
  const root = { value: object, path: '', where }
  const names = readNames(member(root, 'metadata'), options)
  const spec = member(root, 'spec')

  function attempt<T>(read: () => T): T | undefined {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error
      problems.push(error)
      return undefined
    }
  }

  function readRules(field: Field, peersKey: 'from' | 'to'): PolicyRule[] {
    const items = attempt(() => readList(field)) ?? []
    return items.flatMap((item) => attempt(() => readRule(item, peersKey, options)) ?? [])
  }

  const knowsSpec = isAbsent(spec) || attempt(() => readObject(spec, SPEC_FIELDS)) !== undefined
  const egress = member(spec, 'egress')
  // By the list as it was written: a rule that is not understood isolates all the same.
  const hasEgressRules = !isAbsent(egress) && !(Array.isArray(egress.value) && egress.value.length === 0)
  // An absent selector is the empty one; undefined is left for one that cannot be read.
  const podSelector = attempt(() => readSelector(member(spec, 'podSelector'), options) ?? [])
  const policyTypes = attempt(() => readPolicyTypes(member(spec, 'policyTypes'), hasEgressRules))
  // Read wide, the policy covers Pods or directions that its rules were not written for: there they would open
  // what other policies keep closed.
  const keepsRules = knowsSpec && podSelector !== undefined && policyTypes !== undefined
  const ingress = readRules(member(spec, 'ingress'), 'from')
  const egressRules = readRules(egress, 'to')
  const policy: NetworkPolicy = {
    ...names,
    podSelector: podSelector ?? [],
    policyTypes: policyTypes ?? ['Ingress', 'Egress'],
    ingress: keepsRules ? ingress : [],
    egress: keepsRules ? egressRules : [],
  }
  return { policy, problems }
}
