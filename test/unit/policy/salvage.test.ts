import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { PolicyError } from '../../../policy/errors.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import { salvageNetworkPolicy } from '../../../policy/salvage.ts'
import { policies } from './arbitraries.ts'

const metadata = { namespace: 'x', name: 'p' }
const rest = { namespace: 'x', name: 'p', podSelector: [], policyTypes: ['Ingress'], ingress: [], egress: [] }
const everything = { peers: [], ports: [] }

describe('salvageNetworkPolicy', () => {
  it('gives a readable policy whole, as parseNetworkPolicy does', () => {
    fc.assert(
      fc.property(policies, (raw) => {
        for (const object of raw) {
          const policy = parseNetworkPolicy(object, 'api', { stored: true })
          expect(salvageNetworkPolicy(object, 'api')).toEqual({ policy, problems: [] })
        }
      }),
    )
  })

  it.each([
    [
      'a rule that is not understood goes, the others stay',
      { ingress: [{ later: 1 }, {}] },
      { ingress: [everything] },
      ['spec.ingress[0].later'],
    ],
    ['an unknown field of the spec takes all rules', { ingress: [{}], later: 1 }, {}, ['spec.later']],
    [
      'an unreadable egress rule isolates egress all the same',
      { egress: [{ later: 1 }] },
      { policyTypes: ['Ingress', 'Egress'] },
      ['spec.egress[0].later'],
    ],
    ['an unreadable list has no rules', { egress: {} }, { policyTypes: ['Ingress', 'Egress'] }, ['spec.egress']],
    [
      'an unreadable podSelector selects all Pods, and takes all rules: they were not written for all Pods',
      { podSelector: { later: 1 }, ingress: [{}] },
      {},
      ['spec.podSelector.later'],
    ],
    [
      'unreadable policyTypes isolate both directions, and take all rules: one direction may not have been meant',
      { policyTypes: ['Later'], ingress: [{}] },
      { policyTypes: ['Ingress', 'Egress'] },
      ['spec.policyTypes[0]'],
    ],
    ['an unreadable spec isolates ingress at least', 7, {}, ['spec']],
  ])('%s', (_, spec, expected, fields) => {
    const { policy, problems } = salvageNetworkPolicy({ metadata, spec }, 'api')
    expect(policy).toEqual({ ...rest, ...expected })
    expect(problems.map(({ field }) => field)).toEqual(fields)
  })

  it.each([null, 7, {}, { metadata: { name: 'a' } }])('throws where %j has no name or namespace', (object) => {
    expect(() => salvageNetworkPolicy(object, 'api')).toThrow(PolicyError)
  })
})
