/** The table of test/fixtures/policy/matrix.yaml: one rule of NetworkPolicy a case, and who reaches whom by it. */
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import type { Labels } from '../../../api/identity.ts'
import type { TrafficProtocol } from '../../../policy/types.ts'

export interface Case {
  readonly rule: string
  /** Specs by `namespace/name`. */
  readonly policies: Readonly<Record<string, unknown>>
  /** Of TCP/80, or one for each `TCP/80`. */
  readonly matrix: string | Readonly<Record<string, string>>
  readonly family?: 4 | 6
  /** Labels in place of the cluster's, by `namespace/name`. */
  readonly pods?: Readonly<Record<string, Labels>>
  readonly namespaces?: Readonly<Record<string, Labels>>
  /** Tried over real sidecars too (test/netns/policies). */
  readonly lab?: boolean
}

const text = readFileSync(new URL('../../fixtures/policy/matrix.yaml', import.meta.url), 'utf8')

export const CASES: readonly Case[] = parse(text, { maxAliasCount: -1 })

/** The matrices by traffic, such as `TCP/80`. */
export function matricesOf({ matrix }: Case): Readonly<Record<string, string>> {
  return typeof matrix === 'string' ? { 'TCP/80': matrix } : matrix
}

/** The case's policies as objects of the API. */
export function objectsOf({ policies }: Pick<Case, 'policies'>) {
  return Object.entries(policies).map(([key, spec]) => {
    const [namespace = '', name = ''] = key.split('/')
    return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { namespace, name }, spec }
  })
}

export function parseTraffic(traffic: string): { readonly protocol: TrafficProtocol; readonly port: number } {
  const [protocol, port] = traffic.split('/')
  if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP' && protocol !== 'other') {
    throw new Error(`no protocol: ${traffic}`)
  }
  return { protocol, port: Number(port) }
}
