import { isDeepStrictEqual } from 'node:util'
import type { DirectoryEntry } from '../../../api/identity.ts'
import { trustBundle } from '../../../certs/authority.ts'
import { compile } from '../../../policy/compile.ts'
import { evaluate } from '../../../policy/evaluate.ts'
import { parseNetworkPolicy } from '../../../policy/parse.ts'
import { ControlError } from '../../../sidecar/control/errors.ts'
import {
  parseDirectoryEntry,
  parseIdentityResponse,
  parseStreamMessage,
  parseTrustBundle,
} from '../../../sidecar/control/issuer-messages.ts'
import { PODS } from '../../unit/policy/cluster.ts'
import { applyEdits, NO_EDIT } from '../edits.ts'
import { knownKey } from '../keys.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, unfold } from '../values.ts'

const BUNDLE = { keys: trustBundle([knownKey(1), knownKey(2)]).keys.map((key) => ({ ...key })) }
const POD = JSON.parse(JSON.stringify({ ...PODS[0], degraded: ['app: NET_RAW'] })) as Json
const BACKEND = { address: '10.0.1.1', port: 80, guarded: true, pod: POD }
const ENTRIES: readonly Json[] = [
  { kind: 'pod', guarded: true, pod: POD },
  { kind: 'service', namespace: 'x', name: 's', ports: [{ protocol: 'TCP', port: 80, backends: [BACKEND] }] },
  {
    kind: 'node',
    name: 'n1',
    ports: [{ protocol: 'TCP', port: 30080, serviceAddress: '10.96.0.9', servicePort: 1 }],
  },
  { kind: 'unmatched', reason: 'two Pods' },
  { kind: 'external' },
]
const VOID = { uid: 'x-a', iatBefore: 7, labels: { a: '' }, namespaceLabels: {} }
const MESSAGES: readonly Json[] = [
  { type: 'hello', bundle: BUNDLE, voids: [VOID], mode: 'audit' },
  { type: 'ping' },
  { type: 'renew' },
  { type: 'bundle', bundle: BUNDLE },
  { type: 'void', void: VOID },
  { type: 'mode', mode: 'off' },
  { type: 'news' },
  ...ENTRIES.map((entry) => ({ type: 'directory', address: 'fd00::9', entry })),
]

const POLICY = parseNetworkPolicy(
  {
    metadata: { namespace: 'x', name: 'p' },
    spec: {
      podSelector: {},
      ingress: [
        { from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 'http' }] },
        { from: [{ namespaceSelector: { matchExpressions: [{ key: 'ns', operator: 'NotIn', values: ['x'] }] } }] },
        { from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.1.0/24'] } }] },
      ],
      egress: [{ to: [{ podSelector: {} }], ports: [{ port: 'http' }] }],
    },
  },
  'fuzz',
  { stored: true },
)

/** Every Pod of an entry can be judged, and be judged for. */
function judge(entry: DirectoryEntry): void {
  const pods =
    entry.kind === 'pod'
      ? [entry.pod]
      : entry.kind === 'service'
        ? entry.ports.flatMap(({ backends }) => backends.flatMap(({ pod }) => pod ?? []))
        : []
  for (const pod of pods.slice(0, 8)) {
    const labels = [...Object.values(pod.labels), ...Object.values(pod.namespaceLabels)]
    hold(
      labels.every((label) => typeof label === 'string'),
      'labels are texts',
    )
    const peer = { kind: 'attested', pod, address: pod.addresses[0] ?? '10.0.0.1' } as const
    for (const subject of [pod, ...PODS.slice(0, 1)]) {
      const compiled = compile([POLICY], subject)
      evaluate(compiled, 'ingress', peer, { protocol: 'TCP', port: 80 })
      evaluate(compiled, 'egress', peer, { protocol: 'TCP', port: 80 })
    }
  }
}

/** What a parser takes, it takes again as its own result; what it refuses, it refuses by ControlError. */
function tryParse<T>(parse: (value: unknown) => T, value: unknown): T | 'refused' {
  let parsed: T
  try {
    parsed = parse(value)
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'issuer-answer') throw error
    hold(
      error.message.length <= 1_000 + JSON.stringify(value ?? null).length,
      'an error message is no longer than what came',
    )
    return 'refused'
  }
  const again: unknown = JSON.parse(JSON.stringify(parsed ?? null))
  hold(parsed === undefined || isDeepStrictEqual(parse(again), parsed), 'what was parsed parses to the same again')
  return parsed
}

export const issuerMessagesTarget = valueTarget({
  name: 'issuer-messages',
  about:
    'what the issuer sends to sidecars: stream lines, directory entries, bundles, identities; all judged by policies',
  sources: ['sidecar/control/issuer-messages.ts'],
  seeds: [
    ...MESSAGES,
    ...ENTRIES,
    BUNDLE,
    { wit: 'a.b.c', bundle: BUNDLE },
    { line: { type: 'ping' }, edits: [NO_EDIT] },
  ],
  check(input) {
    const value = unfold(input)
    const line = isObject(value) && value.line !== undefined ? value.line : value
    const text = applyEdits(JSON.stringify(line), isObject(value) ? value.edits : undefined)
    const message = tryParse((again) => parseStreamMessage(again === text ? text : JSON.stringify(again)), text)
    if (message !== 'refused' && message?.type === 'directory') judge(message.entry)
    const entry = tryParse(parseDirectoryEntry, value)
    if (entry !== 'refused') judge(entry)
    const bundle = tryParse(parseTrustBundle, value)
    const identity = tryParse(parseIdentityResponse, value)
    if (message !== 'refused') return `message-${message?.type ?? 'unknown'}`
    if (entry !== 'refused') return `entry-${entry.kind}`
    return bundle !== 'refused' ? 'bundle' : identity !== 'refused' ? 'identity' : 'refused'
  },
})
