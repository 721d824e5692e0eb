import { describe, expect, it } from '@jest/globals'
import type { V1Namespace, V1Pod } from '@kubernetes/client-node'
import { applyPatch } from '../../../lab/admit.ts'
import { admitPurely, assignAddresses } from '../../../lab/bring-up.ts'
import { findDifferences, parseExpectations } from '../../../lab/expectation.ts'
import { labInjectionSettings } from '../../../lab/injection.ts'
import { listConnections, listPlaces } from '../../../lab/judge.ts'
import { parseManifests } from '../../../lab/manifests.ts'
import { formatMatrix } from '../../../lab/matrix.ts'
import { explainConnections } from '../../../lab/reachability.ts'

const pod = (namespace: string, name: string, more = '') => `---
apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: ${namespace}, labels: {app: ${name}}}
spec: {containers: [{name: c, ports: [{containerPort: 80}], ${more}}]}
`
const namespace = (name: string, annotations = '{}') => `---
apiVersion: v1
kind: Namespace
metadata: {name: ${name}, labels: {synguard.io/inject: enabled}, annotations: ${annotations}}
`
const policy = (inNamespace: string, name: string, spec: string) => `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ${name}, namespace: ${inNamespace}}
spec: ${spec}
`

function explain(text: string) {
  const manifests = parseManifests(new Map([['x.yaml', text]]))
  const pods = admitPurely(assignAddresses(manifests.pods), manifests.namespaces, labInjectionSettings('/p'))
  const places = listPlaces(pods, manifests.namespaces)
  return explainConnections(
    listConnections(places),
    places,
    manifests.policies.map(({ policy: one }) => one),
  )
}

const answers = (text: string) =>
  Object.fromEntries(
    explain(text).map(({ from, to, reachable, decidedBy }) => [`${from} ${to}`, [reachable, decidedBy]]),
  )

describe('what the engine says of a cluster', () => {
  it('a denial names the end and the policy; a policy of a namespace that nobody guards is not enforced', () => {
    const deny = '{podSelector: {}, policyTypes: [Ingress]}'
    expect(
      answers(namespace('g') + pod('g', 'a') + pod('u', 'b') + policy('g', 'deny', deny) + policy('u', 'deny', deny)),
    ).toEqual({
      'g/a u/b': [true, 'none'],
      'u/b g/a': [false, 'ingress g/deny'],
      'node g/a': [false, 'ingress g/deny'],
      'external g/a': [false, 'ingress g/deny'],
      'node u/b': [true, 'none'],
      'external u/b': [true, 'none'],
    })
  })

  it("egress is the client's, named first, and reaches no further than its own guard", () => {
    const none = '{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]}'
    const result = answers(namespace('g') + pod('g', 'a') + pod('g', 'b') + policy('g', 'none', none))
    expect([result['g/a g/b'], result['g/b g/a']]).toEqual([
      [false, 'egress g/none'],
      [true, 'none'],
    ])
  })

  it('the node reaches declared probes whatever policies say, and everything where node access is all', () => {
    const deny = policy('g', 'deny', '{podSelector: {}}')
    const probed = pod('g', 'a', 'livenessProbe: {httpGet: {port: 80}}')
    expect(answers(namespace('g') + probed + deny)['node g/a']).toEqual([true, 'none'])
    const all = namespace('g', '{synguard.io/node-access: all}')
    expect(answers(all + pod('g', 'a') + deny)['node g/a']).toEqual([true, 'none'])
  })

  it('audit refuses nothing; where only shown identities count an unguarded Pod matches no selector', () => {
    const everyone = policy('g', 'pods', '{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}')
    const audit = namespace('g', '{synguard.io/mode: audit}')
    expect(answers(audit + pod('g', 'a') + everyone)['external g/a']).toEqual([true, 'none'])
    expect(answers(namespace('g') + pod('g', 'a') + pod('u', 'b') + everyone)['u/b g/a']).toEqual([
      true,
      'ingress g/pods',
    ])
    const strict = namespace('g', '{synguard.io/peers-without-identity: deny}')
    expect(answers(strict + pod('g', 'a') + pod('u', 'b') + everyone)['u/b g/a']).toEqual([false, 'ingress g/pods'])
  })

  it('an ipBlock sees the addresses that manifests fix', () => {
    const block = policy('g', 'block', '{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}')
    const fixed = `${pod('u', 'b')}status: {podIP: 192.0.2.7}\n`
    expect(answers(namespace('g') + pod('g', 'a') + fixed + block)['u/b g/a']).toEqual([true, 'ingress g/block'])
  })
})

describe('addresses', () => {
  const named = (ip?: string): V1Pod => (ip === undefined ? {} : { status: { podIPs: [{ ip }] } })
  const assigned = (pods: V1Pod[]) => assignAddresses(pods).map(({ status }) => status?.podIPs?.map(({ ip }) => ip))

  it('fixed ones are kept, the pool goes around them, and an IPv6 Pod gets an IPv4 address for the issuer', () => {
    expect(assigned([named(), named('10.244.0.2'), named('fd12::1')])).toEqual([
      ['10.244.0.4', 'fd00:10:244::4'],
      ['10.244.0.2'],
      ['fd12::1', '10.244.0.3'],
    ])
  })

  it('one address for two Pods is refused', () => {
    expect(() => assigned([named('10.244.0.2'), named('10.244.0.2')])).toThrow('address 10.244.0.2 is taken twice')
  })
})

describe('admission without a webhook', () => {
  it('a refused Pod is an error with its reason', () => {
    const host: V1Pod = {
      metadata: { namespace: 'g', name: 'a' },
      spec: { hostPID: true, containers: [{ name: 'c' }] },
    }
    const guarded: V1Namespace = { metadata: { name: 'g', labels: { 'synguard.io/inject': 'enabled' } } }
    expect(() => admitPurely([host], [guarded], labInjectionSettings('/p'))).toThrow(/^Pod g\/a is refused: .*hostPID/)
  })

  it('a JSON patch is applied in order: lists shift, escaped keys are names', () => {
    const document = { list: ['a', 'c'], map: { 'x/y': '1' } }
    const operations = [
      { op: 'add', path: '/list/1', value: 'b' },
      { op: 'add', path: '/list/-', value: 'd' },
      { op: 'remove', path: '/list/0' },
      { op: 'replace', path: '/map/x~1y', value: '2' },
    ]
    expect(applyPatch(document, operations)).toEqual({ list: ['b', 'c', 'd'], map: { 'x/y': '2' } })
    expect(() => applyPatch({}, [{ op: 'add', path: '/no/where', value: 1 }])).toThrow('/no/where')
  })
})

describe('expectations', () => {
  const result = {
    from: 'a',
    to: 'b/c',
    port: 80,
    protocol: 'TCP',
    reachable: true,
    decidedBy: 'none',
    reason: 'r',
  } as const

  it('a difference says what was expected and what is; what nobody expects is not compared', () => {
    const expected = parseExpectations(
      '[{"from":"a","to":"b/c","port":80,"reachable":false},{"from":"a","to":"b/d","port":80,"protocol":"UDP","reachable":true}]',
      'e.json',
    )
    expect(findDifferences([result], expected)).toEqual([
      'a -> b/c 80/TCP: expected not reachable, is reachable (none; r)',
      'a -> b/d 80/UDP: expected reachable, but no such connection was tried',
    ])
    expect(findDifferences([result], [])).toEqual([])
  })

  it.each([
    ['{', 'e.json: is not JSON'],
    ['{}', 'e.json: must be an array'],
    ['[{"to":"x","port":1,"reachable":true}]', 'e.json: [0].from'],
    ['[{"from":"x","to":"x","port":1,"protocol":"ICMP","reachable":true}]', 'e.json: [0].protocol'],
    ['[null]', 'e.json: [0].from'],
  ])('%s is refused', (text, message) => {
    expect(() => parseExpectations(text, 'e.json')).toThrow(message)
  })

  it('the matrix marks what was reached, what was not and itself, and explains denials', () => {
    const denied = { ...result, from: 'b/c', to: 'a/d', reachable: false, decidedBy: 'ingress a/p' }
    expect(formatMatrix([result, denied]).split('\n')).toEqual([
      '[1] b/c:80/TCP',
      '[2] a/d:80/TCP',
      '',
      'from  1 2',
      'a     + .',
      'b/c   . x',
      '',
      '+ reached   x not reached   . itself',
      '',
      'b/c -> a/d:80/TCP: ingress a/p (r)',
    ])
  })
})
