import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { compile } from '../../../policy/compile.ts'
import { evaluate } from '../../../policy/evaluate.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import { suggestPolicy } from '../../../policy/suggest.ts'
import type { Peer } from '../../../policy/types.ts'
import { allEnds, pods, policies, traffic } from './arbitraries.ts'
import { findPod } from './cluster.ts'

const DIRECTIONS = ['ingress', 'egress'] as const
const parse = (object: unknown) => parseNetworkPolicy(object, 'test')
const policy = (name: string, spec: object) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { namespace: 'x', name },
  spec,
})

describe('a suggested policy', () => {
  it('allows what was denied, and isolates nobody who was not', () => {
    let suggested = 0
    fc.assert(
      fc.property(policies, pods, traffic, (raw, cluster, port) => {
        const parsed = raw.map(parse)
        for (const subject of cluster) {
          for (const direction of DIRECTIONS) {
            for (const { pod, address } of allEnds(cluster)) {
              const peer: Peer =
                pod === undefined ? { kind: 'external', address } : { kind: 'identified', pod, address }
              if (evaluate(compile(parsed, subject), direction, peer, port).allowed) continue
              const object = suggestPolicy(parsed, subject, direction, peer, port)
              if (object === undefined) throw new Error('nothing is suggested')
              const more = [...parsed, parse(object)]
              const by = { policy: `${subject.namespace}/${object.metadata.name}`, rule: 0 }
              expect(evaluate(compile(more, subject), direction, peer, port)).toEqual({ allowed: true, by })
              for (const other of cluster) {
                for (const one of DIRECTIONS) {
                  expect(compile(more, other)[one].isolated).toBe(compile(parsed, other)[one].isolated)
                }
              }
              suggested++
            }
          }
        }
      }),
      { numRuns: 100 },
    )
    expect(suggested).toBeGreaterThan(300)
  })

  it('names a Pod by the labels that its successor has too, and selects whom the policy that denies selects', () => {
    const denying = parse(
      policy('deny', {
        podSelector: { matchLabels: { app: 'web' }, matchExpressions: [{ key: 'old', operator: 'DoesNotExist' }] },
        policyTypes: ['Ingress'],
      }),
    )
    const pod = {
      ...findPod('y/b'),
      labels: { app: 'client', 'pod-template-hash': '7d9f', 'statefulset.kubernetes.io/pod-name': 'b-0' },
      namespaceLabels: { 'kubernetes.io/metadata.name': 'y', team: 'blue' },
    }
    const peer: Peer = { kind: 'identified', pod, address: '10.0.2.2' }
    const port = { protocol: 'TCP', port: 80 } as const
    expect(suggestPolicy([denying], findPod('x/a'), 'ingress', peer, port)).toEqual({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { namespace: 'x', name: 'deny-ingress-80' },
      spec: {
        podSelector: { matchLabels: { app: 'web' }, matchExpressions: [{ key: 'old', operator: 'DoesNotExist' }] },
        policyTypes: ['Ingress'],
        ingress: [
          {
            from: [
              {
                namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'y' } },
                podSelector: { matchLabels: { app: 'client' } },
              },
            ],
            ports: [{ protocol: 'TCP', port: 80 }],
          },
        ],
      },
    })
  })

  it('has a name that the API server takes, however long that of the policy is', () => {
    const name = `${'a'.repeat(235)}.${'b'.repeat(17)}`
    const object = suggestPolicy(
      [parse(policy(name, { podSelector: {} }))],
      findPod('x/a'),
      'ingress',
      { kind: 'node', address: 'fd00::1' },
      { protocol: 'UDP', port: 65535 },
    )
    expect(parse(object).name).toBe(`${'a'.repeat(235)}.bbb-ingress-65535`)
  })

  it('is none where nothing isolates the Pod', () => {
    const peer: Peer = { kind: 'external', address: '192.0.2.1' }
    expect(suggestPolicy([], findPod('x/a'), 'egress', peer, { protocol: 'TCP', port: 80 })).toBeUndefined()
  })
})
