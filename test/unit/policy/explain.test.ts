import { describe, expect, it } from '@jest/globals'
import { type Endpoint, evaluateConnection } from '../../../policy/connection.ts'
import { explain, formatExplanation } from '../../../policy/explain.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import type { Peer } from '../../../policy/types.ts'
import { findPod } from './cluster.ts'

const policies = parseNetworkPolicies(
  `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: x }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress:
    - from:
        - podSelector: { matchLabels: { app: client } }
        - namespaceSelector: { matchExpressions: [{ key: env, operator: In, values: [prod, test] }] }
        - ipBlock: { cidr: 10.0.0.0/8, except: [10.0.2.0/24] }
      ports: [{ port: http }]
    - from: [{ namespaceSelector: {}, podSelector: { matchExpressions: [{ key: legacy, operator: DoesNotExist }] } }]
      ports: [{ port: 8000, endPort: 9000 }, { protocol: UDP }]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: out, namespace: x }
spec: { podSelector: {}, policyTypes: [Egress], egress: [{ ports: [{ port: http }] }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: db, namespace: x }
spec: { podSelector: { matchLabels: { app: db } } }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: 'y' }
spec: { podSelector: {} }
`,
  'explain.yaml',
)

const subject = findPod('x/a')
const fromY: Peer = { kind: 'identified', pod: findPod('y/b'), address: '10.0.2.2' }

describe('explain', () => {
  it('tells of each policy, rule, peer and port why it does not allow, and what would', () => {
    expect(formatExplanation(explain(policies, subject, 'ingress', fromY, { protocol: 'TCP', port: 80 }))).toBe(
      `ingress denied: isolated by x/web, no rule allows it
  x/db: does not apply, podSelector asks for app=db
  x/out: does not apply, policyTypes is Egress: it says nothing about ingress
  x/web: isolates, podSelector app=web selects the Pod
    ingress[0] does not match
      no  ingress[0].from[0]: without namespaceSelector only Pods of x match; the peer is in y
      no  ingress[0].from[1]: namespaceSelector asks for env in (prod,test); y has no env
      no  ingress[0].from[2]: 10.0.2.2 is excepted by 10.0.2.0/24
      yes ingress[0].ports[0]: http is TCP/80 of the destination Pod, as TCP/80
    ingress[1] does not match
      no  ingress[1].from[0]: podSelector asks for !legacy; y/b has legacy=true
      no  ingress[1].ports[0]: TCP/8000-9000 is not TCP/80
      no  ingress[1].ports[1]: UDP, all ports is not TCP/80
  y/web: does not apply, it is in another namespace than the Pod (x)
  What would allow it:
    x/web ingress[0].from[0]: without namespaceSelector only Pods of x match; the peer is in y
    x/web ingress[0].from[1]: namespaceSelector asks for env in (prod,test); y has no env
    x/web ingress[0].from[2]: 10.0.2.2 is excepted by 10.0.2.0/24`,
    )
  })

  it('tells of an address outside, and of named ports of a Pod that lacks them', () => {
    const outside: Peer = { kind: 'external', address: '203.0.113.9' }
    expect(formatExplanation(explain(policies, subject, 'egress', outside, { protocol: 'TCP', port: 80 }))).toBe(
      `egress denied: isolated by x/out, no rule allows it
  x/db: does not apply, podSelector asks for app=db
  x/out: isolates, podSelector all selects the Pod
    egress[0] does not match
      yes egress[0].to: absent: all peers
      no  egress[0].ports[0]: TCP/http is a Pod's port name; the destination is no Pod
  x/web: does not apply, policyTypes is Ingress: it says nothing about egress
  y/web: does not apply, it is in another namespace than the Pod (x)
  What would allow it:
    x/out egress[0].ports[0]: TCP/http is a Pod's port name; the destination is no Pod`,
    )
  })

  it('has the structure for programs, with the decision that evaluate gives', () => {
    const [web] = policies
    if (web === undefined) throw new Error('no policy')
    const peer: Peer = { kind: 'external', address: '10.9.9.9' }
    expect(explain([web], subject, 'ingress', peer, { protocol: 'UDP', port: 9 })).toEqual({
      direction: 'ingress',
      decision: { allowed: false, isolatedBy: ['x/web'] },
      policies: [
        {
          policy: 'x/web',
          selects: true,
          isolates: true,
          reason: 'podSelector app=web selects the Pod',
          rules: [
            {
              rule: 0,
              allows: false,
              peers: [
                {
                  path: 'ingress[0].from[0]',
                  matches: false,
                  reason: 'selectors match Pods only; 10.9.9.9 is no Pod of the cluster',
                },
                {
                  path: 'ingress[0].from[1]',
                  matches: false,
                  reason: 'selectors match Pods only; 10.9.9.9 is no Pod of the cluster',
                },
                { path: 'ingress[0].from[2]', matches: true, reason: '10.9.9.9 is in 10.0.0.0/8' },
              ],
              ports: [{ path: 'ingress[0].ports[0]', matches: false, reason: 'TCP/http is not UDP/9' }],
            },
            {
              rule: 1,
              allows: false,
              peers: [
                {
                  path: 'ingress[1].from[0]',
                  matches: false,
                  reason: 'selectors match Pods only; 10.9.9.9 is no Pod of the cluster',
                },
              ],
              ports: [
                { path: 'ingress[1].ports[0]', matches: false, reason: 'TCP/8000-9000 is not UDP/9' },
                { path: 'ingress[1].ports[1]', matches: true, reason: 'UDP, all ports has UDP/9' },
              ],
            },
          ],
        },
      ],
      wouldAllow: [
        'x/web ingress[0].ports[0]: TCP/http is not UDP/9',
        'x/web ingress[1].from[0]: selectors match Pods only; 10.9.9.9 is no Pod of the cluster',
      ],
    })
  })
})

describe('evaluateConnection', () => {
  const a: Endpoint = { pod: findPod('x/a') }
  const b: Endpoint = { pod: findPod('x/b') }
  const y: Endpoint = { pod: findPod('y/a') }
  const outside: Endpoint = { address: '203.0.113.9' }

  it.each([
    ['an open end', outside, outside, 80, true, 'none', 'neither end is a Pod: no policy applies'],
    [
      'a denial by the client',
      a,
      outside,
      80,
      false,
      'egress x/out',
      'x/a to 203.0.113.9: egress denied: isolated by x/out, no rule allows it',
    ],
    [
      'a denial by the server',
      a,
      y,
      80,
      false,
      'ingress y/web',
      'x/a to y/a: ingress denied: isolated by y/web, no rule allows it',
    ],
    [
      'the client first when both deny',
      a,
      y,
      81,
      false,
      'egress x/out',
      'x/a to y/a: egress denied: isolated by x/out, no rule allows it',
    ],
    [
      'the server when both allow',
      b,
      a,
      80,
      true,
      'ingress x/web',
      'egress allowed by x/out rule 0; ingress allowed by x/web rule 0',
    ],
    [
      'a Pod to itself',
      a,
      a,
      9,
      true,
      'none',
      'egress allowed: a Pod always reaches itself; ingress allowed: a Pod always reaches itself',
    ],
  ])('%s', (_, client, server, port, reachable, decidedBy, reason) => {
    expect(evaluateConnection({ policies, client, server, protocol: 'TCP', port })).toEqual({
      reachable,
      decidedBy,
      reason,
    })
  })

  it('names the egress policy where only egress isolates, and none where nothing does', () => {
    const out = policies.filter(({ name }) => name === 'out')
    const question = { client: a, server: y, protocol: 'TCP', port: 80 } as const
    expect(evaluateConnection({ ...question, policies: out })).toEqual({
      reachable: true,
      decidedBy: 'egress x/out',
      reason: 'egress allowed by x/out rule 0; ingress allowed: no policy isolates the Pod',
    })
    expect(evaluateConnection({ ...question, policies: [] }).decidedBy).toBe('none')
  })
})
