/** The whole answer: what is asked, every way, and whether the connection comes to be. */
import type { ApiClient } from '../../kubernetes/client.ts'
import type { NetworkPolicy } from '../../policy/types.ts'
import { CliError } from '../errors.ts'
import { gatherObjects, type Objects } from './gather.ts'
import { findPod, type Guard, guardOf } from './guard.ts'
import { formatEnd, type Query } from './query.ts'
import { gatherRules, type Rules } from './rules.ts'
import { judgeEgress, judgeIngress, type Verdict } from './verdict.ts'
import { findSource, findWays, type Source, type Way } from './ways.ts'

/** A connection to one endpoint, judged at both ends. */
export interface JudgedWay extends Omit<Way, 'endpoint'> {
  readonly endpoint?: { readonly address: string; readonly port: number; readonly pod?: string }
  readonly allowed: boolean
  readonly egress: Verdict
  readonly ingress: Verdict
}

export interface Answer {
  readonly from: string
  readonly to: string
  readonly port: number | string
  readonly protocol: string
  /** Whether every way is allowed. */
  readonly allowed: boolean
  readonly ways: readonly JudgedWay[]
  /** What the source is, where it is no Pod with a network of its own. */
  readonly source?: string
  /** What could not be seen or read. */
  readonly notes: readonly string[]
}

/** Asks the cluster, and judges. Rejects with ApiError, CliError `explain-unseen` or `explain-unknown`, ControlError. */
export async function answer(
  client: ApiClient,
  query: Query,
  system: string,
  tried: readonly NetworkPolicy[],
): Promise<Answer> {
  const named = [query.from, query.to].flatMap((end) => (end.kind === 'address' ? [] : [end.namespace]))
  const needsAll = [query.from, query.to].some(({ kind }) => kind === 'address')
  const objects = await gatherObjects(client, [...new Set(named)], needsAll)
  const source = findSource(objects, query)
  const ways = findWays(objects, query, source)
  const namespaces = [source.pod?.metadata?.namespace, ...ways.map(({ endpoint }) => endpoint?.pod?.namespace)]
  const rules = await gatherRules(client, new Set(namespaces.filter((name) => name !== undefined)), system, tried)
  return judgeWays(objects, rules, query, source, ways)
}

/** The answer from what was gathered. */
export function judgeWays(objects: Objects, rules: Rules, query: Query, source: Source, ways: readonly Way[]): Answer {
  const client = source.pod && guardOf(objects, rules, source.pod)
  const guards = new Map<string, Guard | undefined>()
  const guardAt = (uid: string | undefined): Guard | undefined => {
    if (uid === undefined) return undefined
    if (!guards.has(uid)) {
      const pod = findPod(objects, uid)
      guards.set(uid, pod && guardOf(objects, rules, pod))
    }
    return guards.get(uid)
  }
  const judged = ways.map((way): JudgedWay => {
    const ends = { client, server: guardAt(way.endpoint?.pod?.uid) }
    const egress = judgeEgress(ends, way, query.protocol)
    const ingress = judgeIngress(ends, way, query.protocol)
    const { endpoint, ...rest } = way
    const pod = endpoint?.pod && { pod: `${endpoint.pod.namespace}/${endpoint.pod.name}` }
    return {
      ...rest,
      ...(endpoint && { endpoint: { address: endpoint.address, port: endpoint.port, ...pod } }),
      allowed: endpoint !== undefined && egress.outcome !== 'denied' && ingress.outcome !== 'denied',
      egress,
      ingress,
    }
  })
  if (judged.length === 0) throw new CliError('explain-unknown', 'there is no way between the two')
  return {
    from: source.name,
    to: formatEnd(query.to),
    port: query.port,
    protocol: query.protocol,
    allowed: judged.every(({ allowed }) => allowed),
    ways: judged,
    ...(source.remark !== undefined && { source: source.remark }),
    notes: [...objects.unseen, ...rules.notes],
  }
}
