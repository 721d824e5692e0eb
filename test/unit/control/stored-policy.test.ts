import { describe, expect, it } from '@jest/globals'
import { readStoredPolicy } from '../../../sidecar/control/policies/stored-policy.ts'

const stored = (metadata: object, spec: object) =>
  readStoredPolicy({ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata, spec } as object, 'shop')

describe('a policy as the API server has it', () => {
  it('is kept without what nobody asks for', () => {
    const metadata = { name: 'one', namespace: 'shop', resourceVersion: '7', managedFields: [{ manager: 'kubectl' }] }
    expect(stored(metadata, { podSelector: {} })).toEqual({
      metadata: { name: 'one', namespace: 'shop', resourceVersion: '7' },
      policy: {
        namespace: 'shop',
        name: 'one',
        podSelector: [],
        policyTypes: ['Ingress'],
        ingress: [],
        egress: [],
      },
      problems: [],
    })
  })

  it.each([
    ['whose name is none', { name: 'No Name', namespace: 'shop' }, { podSelector: { matchLabels: { app: 'web' } } }],
    ['without metadata', undefined, { podSelector: {}, ingress: [{}] }],
    ['that is no policy at all', { name: 'one', namespace: 'shop' }, 'everything'],
  ])('isolates every Pod, allows nothing and is named, %s', (_, metadata, spec) => {
    const { policy, problems } = stored(metadata as object, spec as object)
    expect(policy).toMatchObject({ podSelector: [], ingress: [], egress: [] })
    expect(policy.policyTypes).toContain('Ingress')
    expect(problems[0]?.message).toContain('NetworkPolicy shop/')
  })
})
