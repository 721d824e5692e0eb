/**
 * A NetworkPolicy from an object: validated as the API server does it (k8s.io/kubernetes/pkg/apis/networking/validation,
 * unknown fields refused as with kubectl's strict validation), defaults applied.
 */

import { type Cidr, cidrContainsCidr, formatCidr, parseCidr } from './address.ts'
import { type Field, fieldError, isAbsent, member, readList, readObject, readString } from './field.ts'
import { dnsLabelProblem, dnsSubdomainProblem, labelKeyProblem, labelValueProblem, portNameProblem } from './syntax.ts'
import type {
  LabelOperator,
  LabelRequirement,
  LabelSelector,
  NetworkPolicy,
  PolicyPeer,
  PolicyPort,
  PolicyRule,
  PolicyType,
} from './types.ts'

export interface ParseOptions {
  /** The namespace of objects that name none; without it they are an error. */
  readonly defaultNamespace?: string
  /**
   * The object comes from the API server, which keeps what older versions of it accepted: CIDRs with bits after the
   * prefix, leading zeros or IPv4-mapped addresses, label values of any form. Items of its lists have no kind.
   */
  readonly stored?: boolean
}

export const SPEC_FIELDS = ['podSelector', 'ingress', 'egress', 'policyTypes'] as const
export const POLICY_API_VERSION = 'networking.k8s.io/v1'

/** The policy in an object, which may be an item of a list. Throws PolicyError at the first field that is wrong. */
export function readPolicy(root: Field, options: ParseOptions): NetworkPolicy {
  readObject(root, ['apiVersion', 'kind', 'metadata', 'spec', 'status'])
  requireValue(member(root, 'apiVersion'), POLICY_API_VERSION, options)
  requireValue(member(root, 'kind'), 'NetworkPolicy', options)
  const { name, namespace } = readNames(member(root, 'metadata'), options)
  const spec = member(root, 'spec')
  if (!isAbsent(spec)) readObject(spec, SPEC_FIELDS)
  const ingress = readList(member(spec, 'ingress')).map((rule) => readRule(rule, 'from', options))
  const egress = readList(member(spec, 'egress')).map((rule) => readRule(rule, 'to', options))
  return {
    namespace,
    name,
    podSelector: readSelector(member(spec, 'podSelector'), options) ?? [],
    policyTypes: readPolicyTypes(member(spec, 'policyTypes'), egress.length > 0),
    ingress,
    egress,
  }
}

/** The name and namespace in an object's metadata. */
export function readNames(metadata: Field, options: ParseOptions): Pick<NetworkPolicy, 'namespace' | 'name'> {
  if (isAbsent(metadata)) throw fieldError(metadata, 'is missing; add name and namespace', 'policy-missing-field')
  readObject(metadata)
  const name = readName(member(metadata, 'name'), dnsSubdomainProblem)
  const namespaceField = member(metadata, 'namespace')
  const namespace = readName(
    isAbsent(namespaceField) ? { ...namespaceField, value: options.defaultNamespace } : namespaceField,
    dnsLabelProblem,
  )
  return { namespace, name }
}

function requireValue(field: Field, expected: string, options: ParseOptions): void {
  if (options.stored && isAbsent(field)) return
  if (field.value !== expected) throw fieldError(field, `must be ${expected}`, 'policy-wrong-kind')
}

function readName(field: Field, problemOf: (text: string) => string | undefined): string {
  const name = readString(field)
  refuse(field, name, problemOf(name))
  return name
}

function refuse(field: Field, text: string, problem: string | undefined): void {
  if (problem !== undefined) throw fieldError(field, `${JSON.stringify(text)} ${problem}`)
}

/** Defaults as SetDefaults_NetworkPolicy: Ingress always, Egress where there are egress rules. */
export function readPolicyTypes(field: Field, hasEgressRules: boolean): PolicyType[] {
  const items = readList(field)
  const types: readonly PolicyType[] = ['Ingress', 'Egress']
  if (items.length === 0) return hasEgressRules ? ['Ingress', 'Egress'] : ['Ingress']
  if (items.length > 2) throw fieldError(field, 'has more than two items; list Ingress and Egress once')
  return [...new Set(items.map((item) => readOneOf(item, types)))]
}

function readOneOf<T extends string>(field: Field, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === field.value)
  if (found !== undefined) return found
  const given = isAbsent(field) ? 'is missing' : `${JSON.stringify(field.value)} is not supported`
  throw fieldError(
    field,
    `${given}; use ${allowed.join(', ')}`,
    isAbsent(field) ? 'policy-missing-field' : 'policy-invalid-field',
  )
}

export function readRule(field: Field, peersKey: 'from' | 'to', options: ParseOptions): PolicyRule {
  readObject(field, [peersKey, 'ports'])
  return {
    peers: readList(member(field, peersKey)).map((peer) => readPeer(peer, options)),
    ports: readList(member(field, 'ports')).map(readPort),
  }
}

function readPeer(field: Field, options: ParseOptions): PolicyPeer {
  readObject(field, ['podSelector', 'namespaceSelector', 'ipBlock'])
  const podSelector = readSelector(member(field, 'podSelector'), options)
  const namespaceSelector = readSelector(member(field, 'namespaceSelector'), options)
  const ipBlock = member(field, 'ipBlock')
  const hasSelector = podSelector !== undefined || namespaceSelector !== undefined
  if (isAbsent(ipBlock)) {
    if (!hasSelector) {
      throw fieldError(
        field,
        'names no peer; add podSelector, namespaceSelector or ipBlock, or remove the item',
        'policy-missing-field',
      )
    }
    return {
      kind: 'pods',
      ...(namespaceSelector === undefined ? {} : { namespaceSelector }),
      ...(podSelector === undefined ? {} : { podSelector }),
    }
  }
  if (hasSelector) throw fieldError(field, 'has ipBlock and a selector; make two items of it')
  return readIpBlock(ipBlock, options)
}

function readIpBlock(field: Field, options: ParseOptions): PolicyPeer {
  readObject(field, ['cidr', 'except'])
  const cidr = readCidr(member(field, 'cidr'), options)
  const except = readList(member(field, 'except')).map((item) => {
    const inner = readCidr(item, options)
    if (cidrContainsCidr(cidr, inner) && inner.prefixBits > cidr.prefixBits) return inner
    throw fieldError(item, `${formatCidr(inner)} must be a smaller block inside ${formatCidr(cidr)}`)
  })
  return { kind: 'ipBlock', cidr, except }
}

function readCidr(field: Field, options: ParseOptions): Cidr {
  const text = readString(field)
  const cidr = parseCidr(options.stored ? withoutLeadingZeros(text) : text)
  if (cidr === undefined) {
    throw fieldError(field, `${JSON.stringify(text)} is no CIDR; write it as 10.0.0.0/8 or 2001:db8::/32`)
  }
  // A block in another form is read differently by others: as one address, as octal, or not at all.
  if (!options.stored && formatCidr(cidr) !== text) {
    throw fieldError(field, `${JSON.stringify(text)} is not in canonical form; write ${formatCidr(cidr)}`)
  }
  return cidr
}

/** Go's netutils.ParseCIDRSloppy reads 010.0.0.0/8 as 10.0.0.0/8. */
function withoutLeadingZeros(text: string): string {
  return text.includes(':') ? text : text.replace(/(^|\.)0+(?=\d)/g, '$1')
}

function readPort(field: Field): PolicyPort {
  readObject(field, ['protocol', 'port', 'endPort'])
  const protocolField = member(field, 'protocol')
  const protocol = isAbsent(protocolField) ? 'TCP' : readOneOf(protocolField, ['TCP', 'UDP', 'SCTP'])
  const portField = member(field, 'port')
  const endPortField = member(field, 'endPort')
  const port = isAbsent(portField) ? undefined : readPortNumberOrName(portField)
  if (isAbsent(endPortField)) return port === undefined ? { protocol } : { protocol, port }
  if (port === undefined) throw fieldError(endPortField, 'needs port, the first of the range; add it')
  if (typeof port === 'string') throw fieldError(endPortField, 'goes only with a numeric port; remove it')
  const endPort = readPortNumber(endPortField)
  if (endPort < port) throw fieldError(endPortField, `${endPort} must not be less than port ${port}`)
  return { protocol, port, endPort }
}

function readPortNumberOrName(field: Field): number | string {
  if (typeof field.value !== 'string') return readPortNumber(field)
  refuse(field, field.value, portNameProblem(field.value))
  return field.value
}

function readPortNumber(field: Field): number {
  const { value } = field
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 65535) return value
  throw fieldError(field, `${JSON.stringify(value)} must be a number from 1 to 65535`)
}

/** undefined for an absent selector, which is not the empty one. */
export function readSelector(field: Field, options: ParseOptions): LabelSelector | undefined {
  if (isAbsent(field)) return undefined
  readObject(field, ['matchLabels', 'matchExpressions'])
  return [
    ...readMatchLabels(member(field, 'matchLabels'), options),
    ...readList(member(field, 'matchExpressions')).map((item) => readRequirement(item, options)),
  ]
}

function readMatchLabels(field: Field, options: ParseOptions): LabelRequirement[] {
  if (isAbsent(field)) return []
  return Object.keys(readObject(field)).map((key) => {
    refuse(field, key, labelKeyProblem(key))
    return { key, operator: 'In', values: [readLabelValue(member(field, key), options)] }
  })
}

function readRequirement(field: Field, options: ParseOptions): LabelRequirement {
  readObject(field, ['key', 'operator', 'values'])
  const keyField = member(field, 'key')
  const key = readString(keyField)
  refuse(keyField, key, labelKeyProblem(key))
  const operators: readonly LabelOperator[] = ['In', 'NotIn', 'Exists', 'DoesNotExist']
  const operator = readOneOf(member(field, 'operator'), operators)
  const valuesField = member(field, 'values')
  const values = readList(valuesField).map((value) => readLabelValue(value, options))
  const takesValues = operator === 'In' || operator === 'NotIn'
  if (takesValues && values.length === 0) {
    throw fieldError(valuesField, `must not be empty when operator is ${operator}; add a value`, 'policy-missing-field')
  }
  if (!takesValues && values.length > 0) {
    throw fieldError(valuesField, `must be empty when operator is ${operator}; remove it`)
  }
  return { key, operator, values }
}

function readLabelValue(field: Field, options: ParseOptions): string {
  const value = readString(field)
  if (!options.stored) refuse(field, value, labelValueProblem(value))
  return value
}
