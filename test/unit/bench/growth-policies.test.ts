import { describe, expect, it } from '@jest/globals'
import type { PodIdentity } from '../../../api/identity.ts'
import { compile } from '../../../policy/compile.ts'
import { evaluate } from '../../../policy/evaluate.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { CALLERS, SERVERS } from '../../bench/growth/namespaces.ts'
import { makePolicies } from '../../bench/growth/policies.ts'

const compiled = (count: number) => {
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: makePolicies(count) })
  const policies = parseNetworkPolicies(list, 'list.json')
  return { policies, compiled: compile(policies, { namespace: SERVERS, labels: { app: 'server' }, ports: [] }) }
}

const caller = (team: string): PodIdentity => ({
  namespace: team,
  name: 'client',
  uid: 'uid',
  serviceAccount: 'default',
  labels: { app: 'client' },
  namespaceLabels: { team },
  addresses: ['10.244.0.9'],
  ports: [],
})

describe('the policies of the growth bench', () => {
  it('are as many as asked for, each with a name of its own', () => {
    for (const count of [1, 2, 100]) {
      const names = compiled(count).policies.map(({ name }) => name)
      expect([names.length, new Set(names).size]).toEqual([count, count])
    }
  })

  it('select the server with one of ten, by five peers each, and the last lets callers in', () => {
    const { ingress } = compiled(101).compiled
    expect(ingress.rules.map(({ peers }) => peers?.length)).toEqual([...new Array(10).fill(5), 1])
  })

  it('allow a caller by the last rule alone, and nobody else', () => {
    const { compiled: policy } = compiled(101)
    const decide = (team: string) => {
      const pod = caller(team)
      return evaluate(
        policy,
        'ingress',
        { kind: 'identified', pod, address: '10.244.0.9' },
        { protocol: 'TCP', port: 7000 },
      )
    }
    expect(decide(CALLERS)).toEqual({ allowed: true, by: { policy: `${SERVERS}/zz-callers`, rule: 0 } })
    expect(decide('strangers').allowed).toBe(false)
  })
})
