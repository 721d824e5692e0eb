import { describe, expect, it } from '@jest/globals'
import { compile, couldAllowAnyPeer } from '../../../policy/compile.ts'
import { evaluate } from '../../../policy/evaluate.ts'
import { createEvaluator, DECISION_CACHE_ENTRIES } from '../../../policy/evaluator.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import type { NetworkPolicy, Peer } from '../../../policy/types.ts'
import { findPod } from './cluster.ts'

function policy(name: string, spec: unknown): NetworkPolicy {
  const metadata = { name, namespace: 'x' }
  return parseNetworkPolicy({ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata, spec }, name)
}

const subject = findPod('x/a')
const pod = findPod('x/b')
const peer: Peer = { kind: 'identified', pod, address: '10.0.1.2' }
const fromApp = (app: string) => policy('p', { ingress: [{ from: [{ podSelector: { matchLabels: { app } } }] }] })

describe('a decision', () => {
  it('names the policy and the rule that allow, the first in the order of names', () => {
    const compiled = compile(
      [policy('z', { ingress: [{}] }), policy('b', { ingress: [{ ports: [{ port: 1 }] }, {}] })],
      subject,
    )
    expect(evaluate(compiled, 'ingress', peer, { protocol: 'TCP', port: 80 })).toEqual({
      allowed: true,
      by: { policy: 'x/b', rule: 1 },
    })
    expect(evaluate(compiled, 'egress', peer, { protocol: 'TCP', port: 80 })).toEqual({
      allowed: true,
      by: 'not-isolated',
    })
  })

  it('names all policies that isolate when it denies, sorted', () => {
    const compiled = compile(
      [policy('z', {}), policy('b', { egress: [{}] }), policy('c', { policyTypes: ['Egress'] })],
      subject,
    )
    expect(evaluate(compiled, 'ingress', peer, { protocol: 'TCP', port: 80 })).toEqual({
      allowed: false,
      isolatedBy: ['x/b', 'x/z'],
    })
  })

  it('holds for a Pod itself only where the subject has a uid', () => {
    const self: Peer = { kind: 'identified', pod: subject, address: '10.0.1.1' }
    const { namespace, labels, ports } = subject
    const traffic = { protocol: 'TCP', port: 80 } as const
    expect(evaluate(compile([policy('p', {})], subject), 'ingress', self, traffic)).toEqual({
      allowed: true,
      by: 'itself',
    })
    const nameless = compile([policy('p', {})], { namespace, labels, ports })
    for (const uid of [subject.uid, '']) {
      const peer: Peer = { ...self, pod: { ...subject, uid } }
      expect(evaluate(nameless, 'ingress', peer, traffic)).toEqual({ allowed: false, isolatedBy: ['x/p'] })
    }
  })

  it('gives ipBlock rules no match for an address that is none', () => {
    const compiled = compile([policy('p', { ingress: [{ from: [{ ipBlock: { cidr: '0.0.0.0/0' } }] }] })], subject)
    for (const address of ['', '10.0.0', '::ffff:10.0.0.1', '10.0.0.1%x']) {
      const decision = evaluate(compiled, 'ingress', { kind: 'external', address }, { protocol: 'TCP', port: 80 })
      expect(decision).toEqual({ allowed: false, isolatedBy: ['x/p'] })
    }
  })

  it('lets a node match ipBlock rules and rules for everyone only', () => {
    const node: Peer = { kind: 'node', address: '10.244.0.1' }
    const traffic = { protocol: 'TCP', port: 80 } as const
    const bySelector = compile([policy('p', { ingress: [{ from: [{ namespaceSelector: {} }] }] })], subject)
    const byBlock = compile([policy('p', { ingress: [{ from: [{ ipBlock: { cidr: '10.244.0.0/16' } }] }] })], subject)
    expect(evaluate(bySelector, 'ingress', node, traffic).allowed).toBe(false)
    expect(evaluate(byBlock, 'ingress', node, traffic).allowed).toBe(true)
    expect(evaluate(compile([policy('p', { ingress: [{}] })], subject), 'ingress', node, traffic).allowed).toBe(true)
  })
})

describe('couldAllowAnyPeer', () => {
  it.each([
    ['not isolated', {}, true],
    ['isolated without rules', { policyTypes: ['Egress'] }, false],
    ['a rule for everything', { egress: [{}] }, true],
    ['a rule for UDP', { egress: [{ ports: [{ protocol: 'UDP', port: 53 }] }] }, false],
    ['a rule for one TCP port', { egress: [{ ports: [{ port: 1 }] }] }, true],
    ['a rule for a named TCP port', { egress: [{ ports: [{ port: 'http' }] }] }, true],
  ])('for TCP egress, %s', (_, spec, expected) => {
    expect(couldAllowAnyPeer(compile([policy('p', spec)], subject), 'egress', 'TCP')).toBe(expected)
  })
})

describe('the evaluator', () => {
  it('keeps what it decided of a key until that is forgotten', () => {
    const evaluator = createEvaluator(compile([fromApp('db')], subject))
    const relabelled: Peer = { ...peer, pod: { ...pod, labels: {} } }
    const denied = { allowed: false, isolatedBy: ['x/p'] }
    const allowed = { allowed: true, by: { policy: 'x/p', rule: 0 } }
    expect(evaluator.decide('ingress', 7, peer, 'TCP', 80)).toEqual(allowed)
    expect(evaluator.decide('ingress', 7, relabelled, 'TCP', 80)).toEqual(allowed)
    expect(evaluator.decide('ingress', 8, relabelled, 'TCP', 80)).toEqual(denied)
    evaluator.forget(7)
    expect(evaluator.decide('ingress', 7, relabelled, 'TCP', 80)).toEqual(denied)
    expect(evaluator.size()).toBe(2)
  })

  it('remembers nothing of peers without a key, nor of keys that do not fit', () => {
    const evaluator = createEvaluator(compile([fromApp('db')], subject))
    for (const key of [0, -1, 1 << 20]) evaluator.decide('ingress', key, peer, 'TCP', 80)
    expect(evaluator.size()).toBe(0)
    evaluator.decide('ingress', (1 << 20) - 1, peer, 'TCP', 80)
    expect(evaluator.size()).toBe(1)
  })

  it('keeps directions, protocols, ports and keys apart', () => {
    const spec = {
      ingress: [{ ports: [{ port: 80 }, { protocol: 'UDP', port: 81 }] }],
      egress: [{ ports: [{ port: 81 }, { protocol: 'UDP', port: 80 }] }],
    }
    const evaluator = createEvaluator(compile([policy('p', spec)], subject))
    const decide = () =>
      (['ingress', 'egress'] as const).map((direction) =>
        (['TCP', 'UDP'] as const).map((protocol) =>
          [80, 81].map((port) => [1, 2].map((key) => evaluator.decide(direction, key, peer, protocol, port).allowed)),
        ),
      )
    const [yes, no] = [
      [true, true],
      [false, false],
    ]
    const expected = [
      [
        [yes, no],
        [no, yes],
      ],
      [
        [no, yes],
        [yes, no],
      ],
    ]
    expect(decide()).toEqual(expected)
    expect(decide()).toEqual(expected)
    expect(evaluator.size()).toBe(16)
  })

  it('decides anew when a known peer comes from another address and a rule has an ipBlock', () => {
    const evaluator = createEvaluator(
      compile([policy('p', { ingress: [{ from: [{ ipBlock: { cidr: '10.0.1.0/24' } }] }] })], subject),
    )
    const addresses = ['10.0.1.2', '10.0.9.9', '10.0.1.2', 'fd00:0:0:1::2']
    const found = addresses.map((address) => evaluator.decide('ingress', 3, { ...peer, address }, 'TCP', 80).allowed)
    expect(found).toEqual([true, false, true, false])
    expect(evaluator.size()).toBe(1)
  })

  it('does not take one port for another after its port numbers have run out', () => {
    const spec = {
      ingress: [{ ports: [{ port: 1, endPort: 30000 }] }],
      egress: [{ ports: [{ port: 30001, endPort: 65535 }] }],
    }
    const evaluator = createEvaluator(compile([policy('p', spec)], subject))
    for (let round = 0; round < 6; round++) {
      // 800 ports of each direction are more than there are numbers; each round begins where another table is stale.
      for (const direction of round % 2 === 0 ? (['egress', 'ingress'] as const) : (['ingress', 'egress'] as const)) {
        for (let port = 40; port < 64040; port += 80) {
          const allowed = direction === 'ingress' ? port <= 30000 : port > 30000
          if (evaluator.decide(direction, 5, peer, 'TCP', port).allowed !== allowed)
            throw new Error(`${direction} ${port}`)
        }
      }
    }
    expect(evaluator.size()).toBeLessThan(1024)
  })

  it('stays within its bound whatever keys and ports are asked for, and stays right', () => {
    const spec = { ingress: [{ ports: [{ port: 1, endPort: 30000 }] }] }
    const evaluator = createEvaluator(compile([policy('p', spec)], subject))
    let largest = 0
    for (let port = 1; port < 65536; port += 13) {
      expect(evaluator.decide('ingress', 5, peer, 'TCP', port).allowed).toBe(port <= 30000)
      largest = Math.max(largest, evaluator.size())
    }
    for (let key = 1; key < 2 * DECISION_CACHE_ENTRIES; key++) {
      evaluator.decide('ingress', key, peer, 'TCP', 80)
      largest = Math.max(largest, evaluator.size())
    }
    expect(largest).toBe(DECISION_CACHE_ENTRIES)
    expect(evaluator.decide('ingress', 5, peer, 'TCP', 40000).allowed).toBe(false)
  })
})
