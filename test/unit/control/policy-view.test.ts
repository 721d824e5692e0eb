import { describe, expect, it } from '@jest/globals'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import type { Subject } from '../../../policy/types.ts'
import { createPolicyView } from '../../../sidecar/control/policy-view.ts'

const SUBJECT: Subject = { namespace: 'shop', labels: { app: 'web' }, ports: [], uid: 'uid-web' }

const policy = (name: string, app: string, cidr = '10.0.0.0/8') =>
  parseNetworkPolicies(
    `{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: { name: ${name}, namespace: shop },
       spec: { podSelector: { matchLabels: { app: ${app} } }, ingress: [{ from: [{ ipBlock: { cidr: ${cidr} } }] }] } }`,
    'test.yaml',
  )

describe('the policies that a Pod is judged by', () => {
  it('change with one that selects the Pod: made, altered by one address, taken away', () => {
    const view = createPolicyView()
    expect(view.update([], SUBJECT)).toBe(true)
    for (const set of [policy('a', 'web'), policy('a', 'web', '10.0.0.0/9'), []]) {
      const before = view.policy()
      expect(view.update(set, SUBJECT)).toBe(true)
      expect(view.policy()).not.toBe(before)
      expect(view.message()).toEqual({ type: 'policies', policies: set, subject: SUBJECT })
    }
  })

  it('change with the labels by which they select it', () => {
    const view = createPolicyView()
    const policies = policy('a', 'web')
    view.update(policies, SUBJECT)
    const relabelled = { ...SUBJECT, labels: { app: 'other' } }
    expect(view.update(policies, relabelled)).toBe(true)
    expect(view.message()).toEqual({ type: 'policies', policies: [], subject: relabelled })
  })

  it('are none but one that lets nothing pass, once an operator revoked the Pod', () => {
    const view = createPolicyView()
    const open = parseNetworkPolicies(
      `{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: { name: open, namespace: shop },
         spec: { podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}] } }`,
      'test.yaml',
    )
    view.update(open, SUBJECT)
    const reached = () =>
      (['ingress', 'egress'] as const).map((direction) => {
        const peer = { kind: 'external', address: '10.0.0.1' } as const
        return view.policy()?.evaluator.decide(direction, 0, peer, 'UDP', 53).allowed
      })
    expect(reached()).toEqual([true, true])
    expect([view.update(open, SUBJECT, true), reached()]).toEqual([true, [false, false]])
    expect([view.update(open, SUBJECT, true), view.update(open, SUBJECT), reached()]).toEqual([
      false,
      true,
      [true, true],
    ])
  })

  it('are the same, with all that was decided by them, when others of the namespace change', () => {
    const view = createPolicyView()
    view.update(policy('a', 'web'), SUBJECT)
    const before = [view.policy(), view.message()]
    expect(view.update([...policy('a', 'web'), ...policy('b', 'other')], { ...SUBJECT, labels: { app: 'web' } })).toBe(
      false,
    )
    expect([view.policy(), view.message()]).toEqual(before)
    expect(view.policy()).toBe(before[0])
  })
})
