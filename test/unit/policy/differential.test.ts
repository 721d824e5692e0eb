import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { compile } from '../../../policy/compile.ts'
import { evaluate } from '../../../policy/evaluate.ts'
import { createEvaluator } from '../../../policy/evaluator.ts'
import { explain } from '../../../policy/explain.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import type { Peer } from '../../../policy/types.ts'
import { allEnds, pods, policies, traffic } from './arbitraries.ts'
import { naiveAllows, type RawEnd } from './naive.ts'

const DIRECTIONS = ['ingress', 'egress'] as const
/** Each run makes 72 decisions, of 3 subjects in 2 directions about 12 ends: 100,800 in all. */
const RUNS = 1_400
const DECISIONS_A_RUN = 3 * 2 * 12

function toPeer({ pod, address }: RawEnd): Peer {
  return pod === undefined ? { kind: 'external', address } : { kind: 'attested', pod, address }
}

describe('the compiled evaluator', () => {
  it('agrees with a naive reading of the API reference, and so do its cache and its explanation', () => {
    const decisions = { allowed: 0, denied: 0, notIsolated: 0 }
    fc.assert(
      fc.property(policies, pods, traffic, (raw, cluster, { protocol, port }) => {
        const parsed = raw.map((object) => parseNetworkPolicy(object, 'random'))
        for (const subject of cluster) {
          const compiled = compile(parsed, subject)
          const evaluator = createEvaluator(compiled)
          for (const direction of DIRECTIONS) {
            for (const end of allEnds(cluster)) {
              const peer = toPeer(end)
              const decision = evaluate(compiled, direction, peer, { protocol, port })
              const expected = naiveAllows(raw, subject, direction, end, protocol, port)
              if (decision.allowed !== expected) {
                throw new Error(
                  `${subject.name} ${direction} ${JSON.stringify(end)} ${protocol}/${port}: not ${expected}`,
                )
              }
              // Once to remember, once from memory; both addresses of a Pod go by one key.
              const key = end.pod === undefined ? 0 : cluster.indexOf(end.pod) + 1
              for (let round = 0; round < 2; round++) {
                if (evaluator.decide(direction, key, peer, protocol, port) !== decision)
                  throw new Error('the cache differs')
              }
              if (!decision.allowed) decisions.denied++
              else if (decision.by === 'not-isolated') decisions.notIsolated++
              else decisions.allowed++
            }
          }
        }
      }),
      { numRuns: RUNS },
    )
    // Each kind of decision must have had its share.
    expect(decisions.allowed + decisions.denied + decisions.notIsolated).toBe(RUNS * DECISIONS_A_RUN)
    expect(Math.min(decisions.allowed, decisions.denied, decisions.notIsolated)).toBeGreaterThan(1000)
  })

  it('decides by a rule that its explanation shows as the first to allow', () => {
    fc.assert(
      fc.property(policies, pods, traffic, (raw, cluster, port) => {
        const parsed = raw.map((object) => parseNetworkPolicy(object, 'random'))
        const [subject] = cluster
        if (subject === undefined) throw new Error('an empty cluster')
        for (const direction of DIRECTIONS) {
          for (const end of allEnds(cluster)) {
            const { decision, policies: explained } = explain(parsed, subject, direction, toPeer(end), port)
            const isolatedBy = explained.filter(({ isolates }) => isolates).map(({ policy }) => policy)
            const [first] = explained.flatMap(({ policy, rules }) =>
              rules.filter(({ allows }) => allows).map(({ rule }) => ({ policy, rule })),
            )
            if (isolatedBy.length === 0) expect(decision).toEqual({ allowed: true, by: 'not-isolated' })
            else if (end.pod === subject) expect(decision).toEqual({ allowed: true, by: 'itself' })
            else if (first !== undefined) expect(decision).toEqual({ allowed: true, by: first })
            else expect(decision).toEqual({ allowed: false, isolatedBy })
          }
        }
      }),
      { numRuns: 200 },
    )
  })
})
