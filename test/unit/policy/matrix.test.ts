import { readFileSync } from 'node:fs'
import { describe, expect, it } from '@jest/globals'
import { parse } from 'yaml'
import type { Labels } from '../../../api/identity.ts'
import { type Endpoint, evaluateConnection } from '../../../policy/connection.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import type { NetworkPolicy, TrafficProtocol } from '../../../policy/types.ts'
import { endpoints } from './cluster.ts'

interface Case {
  readonly rule: string
  readonly policies: Readonly<Record<string, unknown>>
  readonly matrix: string | Readonly<Record<string, string>>
  readonly family?: 4 | 6
  readonly pods?: Readonly<Record<string, Labels>>
  readonly namespaces?: Readonly<Record<string, Labels>>
}

const text = readFileSync(new URL('../../fixtures/policy/matrix.yaml', import.meta.url), 'utf8')

const cases: Case[] = parse(text, { maxAliasCount: -1 })

function parsePolicies(specs: Case['policies']): NetworkPolicy[] {
  return Object.entries(specs).map(([key, spec]) => {
    const [namespace, name] = key.split('/')
    const object = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { namespace, name }, spec }
    return parseNetworkPolicy(object, key)
  })
}

function isProtocol(text: string | undefined): text is TrafficProtocol {
  return text === 'TCP' || text === 'UDP' || text === 'SCTP' || text === 'other'
}

function matrix(policies: NetworkPolicy[], ends: Map<string, Endpoint>, traffic: string): string {
  const [protocol, port] = traffic.split('/')
  if (!isProtocol(protocol)) throw new Error(`no protocol: ${traffic}`)
  const lines = [...ends].map(([name, client]) => {
    const cells = [...ends.values()].map((server) => {
      const answer = evaluateConnection({ policies, client, server, protocol, port: Number(port) })
      return answer.reachable ? '+' : '-'
    })
    return `${name} ${cells.join(' ')}\n`
  })
  return lines.join('')
}

describe('NetworkPolicy', () => {
  it.each(cases)('$rule', (one) => {
    const policies = parsePolicies(one.policies)
    const ends = endpoints(one.family ?? 4, one.pods, one.namespaces)
    const expected = typeof one.matrix === 'string' ? { 'TCP/80': one.matrix } : one.matrix
    const found = Object.fromEntries(Object.keys(expected).map((traffic) => [traffic, matrix(policies, ends, traffic)]))
    expect(found).toEqual(expected)
  })

  it('has its matrix whatever the order of the policies', () => {
    for (const one of cases) {
      const policies = parsePolicies(one.policies)
      const ends = endpoints(one.family ?? 4, one.pods, one.namespaces)
      expect(matrix([...policies].reverse(), ends, 'TCP/80')).toEqual(matrix(policies, ends, 'TCP/80'))
    }
  })

  it('is open again when the last policy is deleted', () => {
    const policies = parsePolicies({ 'x/p': { podSelector: {} }, 'x/q': { podSelector: {} } })
    const ends = endpoints(4)
    const denied = matrix(policies, ends, 'TCP/80')
    expect(matrix(policies.slice(1), ends, 'TCP/80')).toEqual(denied)
    expect(denied).not.toEqual(matrix([], ends, 'TCP/80'))
    expect(matrix(policies.slice(2), ends, 'TCP/80')).toMatch(/^(\S+( \+){5}\n){5}$/)
  })
})
