import { describe, expect, it } from '@jest/globals'
import { type Endpoint, evaluateConnection } from '../../../policy/connection.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import type { NetworkPolicy } from '../../../policy/types.ts'
import { CASES, type Case, matricesOf, objectsOf, parseTraffic } from './cases.ts'
import { endpoints } from './cluster.ts'

const parsePolicies = (policies: Case['policies']): NetworkPolicy[] =>
  objectsOf({ policies }).map((object) => parseNetworkPolicy(object, object.metadata.name))

function matrix(policies: NetworkPolicy[], ends: Map<string, Endpoint>, traffic: string): string {
  const { protocol, port } = parseTraffic(traffic)
  const lines = [...ends].map(([name, client]) => {
    const cells = [...ends.values()].map((server) => {
      const answer = evaluateConnection({ policies, client, server, protocol, port })
      return answer.reachable ? '+' : '-'
    })
    return `${name} ${cells.join(' ')}\n`
  })
  return lines.join('')
}

describe('NetworkPolicy', () => {
  it.each(CASES)('$rule', (one) => {
    const policies = parsePolicies(one.policies)
    const ends = endpoints(one.family ?? 4, one.pods, one.namespaces)
    const expected = matricesOf(one)
    const found = Object.fromEntries(Object.keys(expected).map((traffic) => [traffic, matrix(policies, ends, traffic)]))
    expect(found).toEqual(expected)
  })

  it('has its matrix whatever the order of the policies', () => {
    for (const one of CASES) {
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
