/** The table of meetings: who meets whom, and what `synguard explain` says of each end. */
import { describe, expect, it } from '@jest/globals'
import type { V1EndpointSlice, V1Namespace, V1Node, V1Pod, V1Service } from '@kubernetes/client-node'
import { judgeWays } from '../../../../cli/explain/answer.ts'
import { formatAnswer } from '../../../../cli/explain/format.ts'
import { parseQuery } from '../../../../cli/explain/query.ts'
import type { Rules } from '../../../../cli/explain/rules.ts'
import type { Verdict } from '../../../../cli/explain/verdict.ts'
import { findSource, findWays } from '../../../../cli/explain/ways.ts'
import { parseNetworkPolicy } from '../../../../policy/parse.ts'
import { isGuarded } from '../../../../webhook/admission/pod.ts'
import { createDirectory } from '../../../../webhook/directory/directory.ts'
import { createMemoryCluster } from '../../../../webhook/memory-cluster.ts'
import { guardedPod, NAMESPACE_LABELS, type PodChanges, plainPod } from '../../webhook/fixtures.ts'

const NODE = '10.0.0.1'
const OTHER_NODE = '10.0.0.2'
const SIDECAR_READY = { initContainerStatuses: [{ name: 'synguard-sidecar', ready: true }] }

/** As a kubelet on the first node shows it. */
function running(pod: V1Pod, node = NODE): V1Pod {
  return { ...pod, status: { ...pod.status, ...SIDECAR_READY, hostIPs: [{ ip: node }] } } as V1Pod
}
const guarded = (name: string, address: string, changes: PodChanges = {}, node = NODE) =>
  running(guardedPod({ name, addresses: [address], labels: { app: name }, ...changes }), node)
const unguarded = (name: string, address: string, changes: PodChanges = {}) =>
  running(plainPod({ name, addresses: [address], labels: { app: name }, ...changes }))

const CLIENT = guarded('client', '10.244.0.2')
const WEB = guarded('web', '10.244.0.3')
const PLAIN = unguarded('plain', '10.244.0.4')
const HOST = unguarded('host', NODE, { hostNetwork: true })

interface Stage {
  readonly pods?: readonly V1Pod[]
  readonly services?: readonly V1Service[]
  readonly slices?: readonly V1EndpointSlice[]
  readonly annotations?: Record<string, string>
  readonly policies?: readonly object[]
  readonly modes?: Rules['modes']
  readonly voids?: Rules['voids']
}

function answerTo(stage: Stage, from: string, to: string, port: string, protocol = 'TCP') {
  const cluster = createMemoryCluster({ now: () => 0 })
  const { annotations = {} } = stage
  const namespace: V1Namespace = { metadata: { name: 'shop', labels: NAMESPACE_LABELS, annotations } }
  cluster.put('Namespace', namespace)
  for (const [name, address] of [
    ['node-1', NODE],
    ['node-2', OTHER_NODE],
  ] as const) {
    cluster.put('Node', { metadata: { name }, status: { addresses: [{ type: 'InternalIP', address }] } } as V1Node)
  }
  for (const pod of stage.pods ?? [CLIENT, WEB, PLAIN, HOST]) cluster.put('Pod', pod)
  for (const service of stage.services ?? []) cluster.put('Service', service)
  for (const slice of stage.slices ?? []) cluster.put('EndpointSlice', slice)
  const objects = { cluster, directory: createDirectory({ cluster, isGuarded }), unseen: [] }
  const policies = (stage.policies ?? []).map((policy) => parseNetworkPolicy(policy, 'test'))
  const rules = { policies, modes: stage.modes ?? new Map(), voids: stage.voids ?? new Map(), notes: [] }
  const query = parseQuery({ from, to, port, protocol })
  const source = findSource(objects, query)
  return judgeWays(objects, rules, query, source, findWays(objects, query, source))
}

let serial = 0
const policy = (spec: object) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { namespace: 'shop', name: `p${++serial}` },
  spec,
})
const ofApp = (app: string) => ({ matchLabels: { app } })
const admit = (app: string, ...from: readonly object[]) =>
  policy({ podSelector: ofApp(app), ingress: from.length === 0 ? [] : [{ from }] })
const admitEgress = (app: string, ...to: readonly object[]) =>
  policy({ podSelector: ofApp(app), policyTypes: ['Egress'], egress: to.length === 0 ? [] : [{ to }] })
const labelled = (app: string) => ({ podSelector: ofApp(app) })
const block = (cidr: string) => ({ ipBlock: { cidr } })

function service(name: string, changes: Partial<V1Service['spec']> = {}): V1Service {
  return {
    metadata: { name, namespace: 'shop' },
    spec: { clusterIPs: ['10.96.0.10'], selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }], ...changes },
  }
}

/** `egress / ingress` of each way: the outcome, with the refusal's code. */
function outcomes(...parameters: Parameters<typeof answerTo>): string[] {
  const said = ({ outcome, refusal }: Verdict) => (refusal === undefined ? outcome : `${outcome} ${refusal}`)
  return answerTo(...parameters).ways.map(({ egress, ingress }) => `${said(egress)} / ${said(ingress)}`)
}

type Meeting = readonly [
  name: string,
  expected: readonly string[],
  ...parameters: [stage: Stage, from: string, to: string, port: string, protocol?: string],
]
const MEETINGS: readonly Meeting[] = [
  ['guarded to guarded, no policy', ['allowed / allowed'], {}, 'shop/client', 'shop/web', '8080'],
  [
    'guarded to guarded, by the labels of its identity',
    ['allowed / allowed'],
    { policies: [admit('web', labelled('client'))] },
    'shop/client',
    'shop/web',
    'http',
  ],
  [
    'guarded to guarded, other labels',
    ['allowed / denied policy'],
    { policies: [admit('web', labelled('other'))] },
    'shop/client',
    'shop/web',
    '8080',
  ],
  [
    'guarded to guarded, refused at both ends',
    ['denied policy / denied policy'],
    { policies: [admit('web', labelled('other')), admitEgress('client')] },
    'shop/client',
    'shop/web',
    '8080',
  ],
  [
    'unguarded to guarded, by the labels of the Pod at that address',
    ['unjudged / allowed'],
    { policies: [admit('web', labelled('plain'))] },
    'shop/plain',
    'shop/web',
    '8080',
  ],
  [
    'guarded to unguarded',
    ['allowed / unjudged'],
    { policies: [admitEgress('client', labelled('plain'))] },
    '10.244.0.2',
    '10.244.0.4',
    '80',
  ],
  ['unguarded to unguarded', ['unjudged / unjudged'], {}, 'shop/plain', 'shop/host', '80'],
  [
    'guarded to outside, by ipBlock alone',
    ['allowed / unjudged'],
    { policies: [admitEgress('client', block('203.0.113.0/24'))] },
    'shop/client',
    '203.0.113.7',
    '443',
  ],
  [
    'guarded to outside, which labels never match',
    ['denied policy / unjudged'],
    { policies: [admitEgress('client', { namespaceSelector: {} })] },
    'shop/client',
    '203.0.113.7',
    '443',
  ],
  [
    'outside to guarded',
    ['unjudged / denied policy'],
    { policies: [admit('web', { namespaceSelector: {} })] },
    '203.0.113.7',
    'shop/web',
    '8080',
  ],
  [
    'UDP between guarded Pods, by the directory',
    ['allowed / allowed'],
    { policies: [admit('web', labelled('client'))] },
    'shop/client',
    'shop/web',
    '53',
    'UDP',
  ],
  [
    'the own node, refused but for probes',
    ['unjudged / denied policy'],
    { policies: [admit('web')] },
    NODE,
    'shop/web',
    '8080',
  ],
  [
    'a Pod on the host network is its node',
    ['unjudged / denied policy'],
    { policies: [admit('web', labelled('host'))] },
    'shop/host',
    'shop/web',
    '8080',
  ],
  [
    'another node, by ipBlock',
    ['unjudged / allowed'],
    { policies: [admit('web', block(`${OTHER_NODE}/32`))] },
    OTHER_NODE,
    'shop/web',
    '8080',
  ],
  [
    'to itself, by its own address',
    ['unjudged / unjudged'],
    { policies: [admit('web'), admitEgress('web')] },
    'shop/web',
    'shop/web',
    '8080',
  ],
  [
    'to itself, through a Service',
    ['allowed / allowed'],
    { policies: [admit('web'), admitEgress('web')], services: [service('web')] },
    'shop/web',
    'shop/svc/web',
    '80',
  ],
  [
    'to itself through a Service without an identity, where its node stands in its place',
    ['allowed / denied policy'],
    {
      policies: [admit('web', labelled('web'))],
      services: [service('web', { ports: [{ port: 53, protocol: 'UDP' }] })],
    },
    'shop/web',
    'shop/svc/web',
    '53',
    'UDP',
  ],
  [
    'to itself through a port of its own node',
    ['allowed / allowed'],
    {
      policies: [admit('web')],
      services: [service('web', { type: 'NodePort', ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] })],
    },
    'shop/web',
    NODE,
    '30080',
  ],
  [
    'to itself through a port of another node, which its identity does not name',
    ['allowed / denied wit-address'],
    {
      policies: [admit('web')],
      services: [service('web', { type: 'NodePort', ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] })],
    },
    'shop/web',
    OTHER_NODE,
    '30080',
  ],
  [
    'to a Service, by the real port',
    ['allowed / allowed'],
    {
      services: [service('web')],
      policies: [
        policy({
          podSelector: ofApp('client'),
          policyTypes: ['Egress'],
          egress: [{ to: [labelled('web')], ports: [{ port: 8080 }] }],
        }),
      ],
    },
    'shop/client',
    'shop/svc/web',
    '80',
  ],
  [
    'to a mixed Service: an identity counts for its endpoint, the others count together',
    ['allowed / unjudged', 'denied policy / allowed', 'allowed / unjudged'].sort(),
    {
      pods: [CLIENT, guarded('web', '10.244.0.3'), unguarded('a', '10.244.0.4'), unguarded('b', '10.244.0.5')],
      services: [service('all', { selector: { app: 'none' } })],
      slices: [
        {
          metadata: { name: 'all-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'all' } },
          addressType: 'IPv4',
          ports: [{ port: 8080 }],
          endpoints: ['10.244.0.3', '10.244.0.4', '10.244.0.5'].map((address) => ({ addresses: [address] })),
        } as V1EndpointSlice,
      ],
      policies: [admitEgress('client', labelled('a'), labelled('b'))],
    },
    'shop/client',
    'shop/all',
    '80',
  ],
  [
    'through a node port the node stands in the place of the client',
    ['allowed / denied wit-address'],
    { services: [service('web', { type: 'NodePort', ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }] })] },
    'shop/client',
    OTHER_NODE,
    '30080',
  ],
  [
    'through a node port that keeps the source',
    ['allowed / allowed'],
    {
      services: [
        service('web', {
          type: 'NodePort',
          externalTrafficPolicy: 'Local',
          ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }],
        }),
      ],
    },
    'shop/client',
    OTHER_NODE,
    '30080',
  ],
  [
    'two live Pods on one address are nobody by labels',
    ['unjudged / denied policy'],
    {
      pods: [WEB, unguarded('one', '10.244.0.9'), unguarded('two', '10.244.0.9')],
      policies: [admit('web', { podSelector: {} })],
    },
    'shop/one',
    'shop/web',
    '8080',
  ],
  [
    'peers that show no identity, where only addresses count for them',
    ['unjudged / denied no-wit'],
    {
      pods: [guarded('web', '10.244.0.3', { annotations: { 'synguard.io/peers-without-identity': 'deny' } }), PLAIN],
      policies: [admit('web', labelled('plain'))],
    },
    'shop/plain',
    'shop/web',
    '8080',
  ],
  [
    'a revoked client',
    ['denied policy / denied wit-void'],
    { voids: new Map([['uid-client', { revoked: 1 }]]) },
    'shop/client',
    'shop/web',
    '8080',
  ],
  [
    'a revoked server',
    ['denied wit-void / denied policy'],
    { voids: new Map([['uid-web', { revoked: 2, restored: 1 }]]) },
    'shop/client',
    'shop/web',
    '8080',
  ],
  [
    'a revoked server, by what shows no identity',
    ['unjudged / denied policy'],
    { voids: new Map([['uid-web', { revoked: 1 }]]) },
    'shop/plain',
    'shop/web',
    '53',
    'UDP',
  ],
  [
    'a revoked server, restored since',
    ['allowed / allowed'],
    { voids: new Map([['uid-web', { revoked: 1, restored: 2 }]]) },
    'shop/client',
    'shop/web',
    '8080',
  ],
  [
    'a Service without endpoint',
    ['allowed / unjudged'],
    { services: [service('gone')] },
    'shop/client',
    'shop/gone',
    '80',
  ],
  [
    'a headless Service leads to the Pods, at the port that is asked for',
    ['allowed / allowed'],
    { services: [service('web', { clusterIPs: ['None'] })], policies: [admit('web', labelled('client'))] },
    'shop/client',
    'shop/svc/web',
    '8080',
  ],
]

describe('a meeting', () => {
  it.each(MEETINGS)('%s', (_, expected, ...parameters) => {
    expect(outcomes(...parameters).sort()).toEqual(expected)
  })

  it('lets the own node through to the ports of probes', () => {
    const probed = plainPod({ name: 'web', addresses: ['10.244.0.3'] })
    const [container] = probed.spec.containers
    if (container !== undefined) container.readinessProbe = { httpGet: { port: 8080 } }
    const pod = guardedWith(probed)
    const [way] = answerTo({ pods: [pod], policies: [admit('web')] }, NODE, 'shop/web', '8080').ways
    expect([way?.allowed, way?.ingress.reason]).toEqual([
      true,
      "ingress allowed: the Pod's own node may reach the ports of its probes",
    ])
  })

  it('is allowed only where every endpoint is, and has one', () => {
    expect(answerTo({ services: [service('gone')] }, 'shop/client', 'shop/gone', '80').allowed).toBe(false)
    expect(answerTo({}, 'shop/client', 'shop/web', '80').allowed).toBe(true)
  })
})

function guardedWith(pod: ReturnType<typeof plainPod>): V1Pod {
  const { spec } = guardedPod({ name: 'web' })
  const sidecar = spec?.initContainers?.map((container) =>
    container.name === 'synguard-sidecar'
      ? { ...container, env: [...(container.env ?? []), { name: 'SYNGUARD_PROBE_PORTS', value: 'TCP/8080' }] }
      : container,
  )
  return running({ ...pod, spec: { ...pod.spec, initContainers: sidecar ?? [] } })
}

describe('the mode of an end', () => {
  const denied = { policies: [admit('web')] }
  const ingress = (stage: Stage) => answerTo(stage, 'shop/client', 'shop/web', '8080').ways[0]?.ingress

  it('is the stricter of Pod and namespace, and lets pass what it only counts', () => {
    const annotations = { 'synguard.io/mode': 'audit' }
    expect(ingress({ ...denied, annotations })).toMatchObject({
      outcome: 'tolerated',
      guard: { mode: 'audit', modeBy: 'synguard.io/mode of its namespace' },
    })
    const pods = [CLIENT, guarded('web', '10.244.0.3', { annotations: { 'synguard.io/mode': 'enforce' } })]
    expect(ingress({ ...denied, annotations, pods })).toMatchObject({
      outcome: 'denied',
      guard: { mode: 'enforce', modeBy: 'synguard.io/mode of its own' },
    })
  })

  it('is what break-glass says, with its reason, once the webhook has put it where sidecars look', () => {
    const annotations = { 'synguard.io/break-glass': 'off: INC-7' }
    const modes = new Map([['shop', { mode: 'enforce', breakGlass: 'off' }]] as const)
    const off = { mode: 'off', modeBy: 'the glass is broken: INC-7' }
    expect(ingress({ ...denied, annotations, modes })).toMatchObject({ outcome: 'tolerated', guard: off })
    expect(ingress({ ...denied, annotations })).toMatchObject({ guard: off })
    const before = new Map([['shop', { mode: 'enforce' }]] as const)
    expect(ingress({ ...denied, annotations, modes: before })).toMatchObject({ guard: { mode: 'enforce' } })
  })
})

describe('what would allow it', () => {
  it('is a policy that does, for every end that policies deny', () => {
    for (const [name, , stage, from, to, port, protocol] of MEETINGS) {
      const before = answerTo(stage, from, to, port, protocol)
      const suggested = before.ways.flatMap(({ egress, ingress }) =>
        [egress, ingress].flatMap((one) => one.suggestion ?? []),
      )
      if (suggested.length === 0) continue
      const policies = [
        ...(stage.policies ?? []),
        ...new Map(suggested.map((one) => [one.metadata.name, one])).values(),
      ]
      const after = answerTo({ ...stage, policies }, from, to, port, protocol)
      expect([name, after.ways.flatMap(({ egress, ingress }) => [egress.refusal, ingress.refusal])]).toEqual([
        name,
        after.ways.flatMap(() => [undefined, undefined]),
      ])
    }
  })

  it('is told for what no policy can allow', () => {
    const voids = new Map([['uid-client', { revoked: 1 }]])
    const [way] = answerTo({ voids }, 'shop/client', 'shop/web', '8080').ways
    expect([way?.egress.wouldAllow, way?.ingress.wouldAllow]).toEqual([
      ['synguard revoke --undo shop/client'],
      ['synguard revoke --undo shop/client'],
    ])
  })
})

describe('the text', () => {
  it('has both ends, every policy with what it asked for, and a policy to try', () => {
    serial = 0
    const pods = [CLIENT, { ...WEB, status: { ...WEB.status, initContainerStatuses: [] } } as V1Pod]
    const stage = { pods, services: [service('web')], policies: [admit('web', labelled('other'))] }
    expect(formatAnswer(answerTo(stage, 'shop/client', 'shop/svc/web', '80'))).toBe(
      `
shop/client to shop/web, TCP/80: denied

10.244.0.2 to 10.96.0.10:80, through Service shop/web, to shop/web at 10.244.0.3:8080
  source shop/client: guarded, enforce
    egress allowed: no policy isolates the Pod
    it sees shop/web, by its identity
    shop/p1: does not apply, podSelector asks for app=web
  destination shop/web: guarded, enforce, its sidecar is not ready, so nothing new passes
    ingress denied: isolated by shop/p1, no rule allows it [policy]
    it sees shop/client, by its identity
    shop/p1: isolates, podSelector app=web selects the Pod
      ingress[0] does not match
        no  ingress[0].from[0]: podSelector asks for app=other; shop/client has app=client
        yes ingress[0].ports: absent: all ports
    What would allow it:
      shop/p1 ingress[0].from[0]: podSelector asks for app=other; shop/client has app=client
    Or this policy beside the others:
      apiVersion: networking.k8s.io/v1
      kind: NetworkPolicy
      metadata:
        namespace: shop
        name: p1-ingress-8080
      spec:
        podSelector:
          matchLabels:
            app: web
        policyTypes:
          - Ingress
        ingress:
          - from:
              - namespaceSelector:
                  matchLabels:
                    kubernetes.io/metadata.name: shop
                podSelector:
                  matchLabels:
                    app: client
            ports:
              - protocol: TCP
                port: 8080`.slice(1),
    )
  })

  it('tells endpoints that are alike once', () => {
    const pods = [
      CLIENT,
      ...[3, 4, 5].map((host) => guarded(`web-${host}`, `10.244.0.${host}`, { labels: { app: 'web' } })),
    ]
    const text = formatAnswer(answerTo({ pods, services: [service('web')] }, 'shop/client', 'shop/web', '80'))
    expect(text.split('\n').slice(2, 5)).toEqual([
      '10.244.0.2 to 10.96.0.10:80, through Service shop/web, to shop/web-3 at 10.244.0.3:8080',
      'the same for shop/web-4 at 10.244.0.4:8080, shop/web-5 at 10.244.0.5:8080',
      '  source shop/client: guarded, enforce',
    ])
  })
})
