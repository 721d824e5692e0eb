import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { parseAllDocuments } from 'yaml'
import { compile, couldAllowAnyPeer } from '../../../policy/compile.ts'
import { PolicyError } from '../../../policy/errors.ts'
import { evaluate } from '../../../policy/evaluate.ts'
import { createEvaluator } from '../../../policy/evaluator.ts'
import { explain } from '../../../policy/explain.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import { salvageNetworkPolicy } from '../../../policy/salvage.ts'
import type { NetworkPolicy, Peer } from '../../../policy/types.ts'
import { OUTSIDE, PODS } from '../../unit/policy/cluster.ts'
import { naiveAllows, type RawEnd, type RawPolicy } from '../../unit/policy/naive.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, unfold } from '../values.ts'

const ENDS: readonly RawEnd[] = [
  ...PODS.flatMap((pod) => pod.addresses.map((address) => ({ pod, address }))),
  ...OUTSIDE.map((address) => ({ address })),
]
const PORTS = [
  { protocol: 'TCP', port: 80 },
  { protocol: 'TCP', port: 8080 },
  { protocol: 'UDP', port: 53 },
  { protocol: 'SCTP', port: 65_535 },
] as const
const DIRECTIONS = ['ingress', 'egress'] as const

function read(path: string): readonly Json[] {
  const text = readFileSync(new URL(path, import.meta.url), 'utf8')
  return parseAllDocuments(text).map((document): Json => JSON.parse(JSON.stringify(document.toJS())))
}

function policy(name: string, spec: Json): Json {
  return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { namespace: 'x', name }, spec }
}

export const POLICY_SEEDS: readonly Json[] = [
  ...read('../../../examples/three-tier/policies.yaml').filter((object) => isObject(object)),
  policy('deny', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] }),
  policy('web', {
    podSelector: { matchLabels: { app: 'web' }, matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] },
    ingress: [
      {
        from: [{ podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['db', 'web'] }] } }],
        ports: [{ port: 'http' }],
      },
      {
        from: [{ namespaceSelector: { matchLabels: { ns: 'y' } }, podSelector: {} }],
        ports: [{ protocol: 'UDP', port: 53 }],
      },
    ],
    egress: [
      { to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.2.0/24'] } }], ports: [{ port: 80, endPort: 8080 }] },
      { to: [{ namespaceSelector: {} }], ports: [{ port: 'http' }, { protocol: 'SCTP' }] },
    ],
  }),
  policy('db', {
    podSelector: { matchLabels: { app: 'db' } },
    policyTypes: ['Egress'],
    ingress: [{}],
    egress: [
      { to: [{ ipBlock: { cidr: '2001:db8::/32' } }, { ipBlock: { cidr: 'fd00::/16', except: ['fd00:0:0:1::/64'] } }] },
    ],
  }),
]

/** What null means to the API server: nothing. For an object that was accepted; in lists null is refused. */
function withoutNulls(value: Json): Json {
  if (Array.isArray(value)) return (value as readonly Json[]).map(withoutNulls)
  if (!isObject(value)) return value
  const kept = Object.entries(value).filter(([, member]) => member !== null)
  return Object.fromEntries(kept.map(([key, member]) => [key, withoutNulls(member)]))
}

function toRaw(object: Json): RawPolicy {
  const raw = withoutNulls(object) as unknown as RawPolicy & { spec?: RawPolicy['spec'] }
  return { ...raw, spec: { ...raw.spec, podSelector: raw.spec?.podSelector ?? {} } }
}

/** All that policies allow among the cluster's ends, as texts; each decision made by every evaluator there is. */
function allowedBy(policies: readonly NetworkPolicy[], raw?: readonly RawPolicy[]): Set<string> {
  const allowed = new Set<string>()
  for (const subject of PODS) {
    const compiled = compile(policies, subject)
    const evaluator = createEvaluator(compiled)
    for (const direction of DIRECTIONS) {
      for (const { protocol, port } of PORTS) {
        for (const { pod, address } of ENDS) {
          const peer: Peer = pod === undefined ? { kind: 'external', address } : { kind: 'identified', pod, address }
          const decision = evaluate(compiled, direction, peer, { protocol, port })
          const key = pod === undefined ? 0 : PODS.indexOf(pod) + 1
          hold(
            evaluator.decide(direction, key, peer, protocol, port) === decision,
            'the cache decides as evaluate does',
          )
          hold(
            !decision.allowed || pod === subject || couldAllowAnyPeer(compiled, direction, protocol),
            'what is allowed could be',
          )
          if (decision.allowed) allowed.add(`${subject.uid} ${direction} ${address} ${protocol}/${port}`)
          if (raw === undefined) continue
          const end = pod === undefined ? { address } : { pod, address }
          const expected = naiveAllows([...raw], subject, direction, end, protocol, port)
          hold(decision.allowed === expected, 'the decision is that of the naive reading')
        }
      }
    }
  }
  return allowed
}

function tryRead<T>(read: () => T): T | PolicyError {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    return error
  }
}

/** The object with a member that nobody knows, or a value of no use, at a place of its spec that `path` leads to. */
function damage(value: Json, path: readonly Json[]): Json {
  const [step, ...rest] = path
  if (step === undefined || typeof step !== 'number') return isObject(value) ? { ...value, later: 1 } : 7
  const entries = Object.entries(isObject(value) || Array.isArray(value) ? value : {})
  if (entries.length === 0) return damage(value, [])
  const at = Math.abs(Math.trunc(step)) % entries.length
  if (Array.isArray(value))
    return (value as readonly Json[]).with(at, damage((value as readonly Json[])[at] ?? null, rest))
  return Object.fromEntries(entries.map(([key, member], index) => [key, index === at ? damage(member, rest) : member]))
}

/** A policy that a later version of the API made, read by this one, opens nothing that it would not without the change. */
function holdSalvage(objects: readonly Json[], policies: readonly NetworkPolicy[], path: readonly Json[]): void {
  const [first] = objects
  if (!isObject(first) || !isObject(first.spec ?? null)) return
  const { policy: salvaged } = salvageNetworkPolicy({ ...first, spec: damage(first.spec ?? {}, path) }, 'fuzz')
  const before = allowedBy(policies)
  const opened = [...allowedBy([salvaged, ...policies.slice(1)])].filter((flow) => !before.has(flow))
  hold(opened.length === 0, 'a salvaged policy opens nothing that the whole one does not')
}

function checkObjects(objects: readonly Json[], path: readonly Json[]): string {
  const strict = objects.map((object) => tryRead(() => parseNetworkPolicy(object, 'fuzz')))
  const stored = objects.map((object) => tryRead(() => parseNetworkPolicy(object, 'fuzz', { stored: true })))
  for (const [at, object] of objects.entries()) {
    const [one, other] = [strict[at], stored[at]]
    if (!(one instanceof PolicyError))
      hold(isDeepStrictEqual(one, other), 'what is read strictly is stored as the same')
    const salvaged = tryRead(() => salvageNetworkPolicy(object, 'fuzz'))
    if (salvaged instanceof PolicyError) {
      hold(other instanceof PolicyError, 'a policy that can be read can be salvaged')
      continue
    }
    allowedBy([salvaged.policy])
    if (other instanceof PolicyError) continue
    hold(
      salvaged.problems.length === 0 && isDeepStrictEqual(salvaged.policy, other),
      'a whole policy is salvaged whole',
    )
  }
  const readable = stored.filter((one) => one !== undefined && !(one instanceof PolicyError)) as NetworkPolicy[]
  if (readable.length < objects.length) {
    const [error] = stored.filter((one) => one instanceof PolicyError)
    return error?.code ?? 'refused'
  }
  const isStrict = strict.every((one) => !(one instanceof PolicyError))
  const names = new Set(readable.map(({ namespace, name }) => `${namespace}/${name}`))
  const allowed = allowedBy(readable, isStrict && names.size === readable.length ? objects.map(toRaw) : undefined)
  const [subject] = PODS
  if (subject !== undefined)
    explain(readable, subject, 'ingress', { kind: 'external', address: '203.0.113.9' }, PORTS[0])
  holdSalvage(objects, readable, path)
  return `${isStrict ? 'strict' : 'stored'}-${allowed.size > 200 ? 'open' : 'closed'}`
}

export const policyTarget = valueTarget({
  name: 'policy',
  about: 'NetworkPolicy objects: PolicyError or decisions as a naive evaluator has them; salvage never opens more',
  sources: ['policy/'],
  batch: 8,
  seeds: [
    ...POLICY_SEEDS.map((object) => ({ objects: [object], path: [] })),
    {
      objects: [policy('one', { podSelector: { matchLabels: { app: 'web' } }, ingress: [{}] }), ...POLICY_SEEDS],
      path: [0, 0],
    },
  ],
  words: [
    'Ingress',
    'Egress',
    'In',
    'NotIn',
    'Exists',
    'DoesNotExist',
    'TCP',
    'UDP',
    'SCTP',
    '0.0.0.0/0',
    '::/0',
    '010.0.0.0/8',
    '10.0.0.1/8',
    '::ffff:10.0.0.0/104',
    'x',
    'y',
    '/',
    'a/b',
  ],
  check(input) {
    const { objects, path } = isObject(input) ? input : {}
    // Each decision is made several times, one of them slowly.
    const list = unfold(objects ?? [], 600)
    const steps = Array.isArray(path) ? (path as readonly Json[]) : []
    return checkObjects(Array.isArray(list) ? (list as readonly Json[]) : [list], steps)
  },
})
