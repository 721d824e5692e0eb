import { describe, expect, it } from '@jest/globals'
import { PolicyError } from '../../../policy/errors.ts'
import { parseNetworkPolicies, parseNetworkPolicy } from '../../../policy/parse.ts'

const HEAD = 'apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: web, namespace: prod }\n'

/** The code and message of the PolicyError that a function throws. */
function errorOf(run: () => unknown): [string, string] {
  try {
    run()
  } catch (error) {
    if (error instanceof PolicyError) return [error.code, error.message]
    throw error
  }
  throw new Error('nothing was thrown')
}

function specError(spec: string): [string, string] {
  return errorOf(() => parseNetworkPolicies(`${HEAD}spec: ${spec}\n`, 'f.yaml'))
}

describe('parseNetworkPolicies', () => {
  it('reads all fields and applies the defaults', () => {
    const text = `${HEAD}spec:
  podSelector: { matchLabels: { app: web }, matchExpressions: [{ key: tier, operator: In, values: [front, ''] }] }
  policyTypes: [Egress, Ingress, ]
  ingress:
    - from:
        - podSelector: {}
          namespaceSelector: { matchExpressions: [{ key: example.com/env, operator: DoesNotExist, values: [] }] }
        - ipBlock: { cidr: 10.0.0.0/8, except: [10.1.0.0/16] }
      ports: [{ port: 80 }, { protocol: UDP, port: dns }, { port: 8000, endPort: 8000, protocol: SCTP }, {}]
  egress: [{}]
`
    expect(parseNetworkPolicies(text, 'f.yaml')).toEqual([
      {
        namespace: 'prod',
        name: 'web',
        podSelector: [
          { key: 'app', operator: 'In', values: ['web'] },
          { key: 'tier', operator: 'In', values: ['front', ''] },
        ],
        policyTypes: ['Egress', 'Ingress'],
        ingress: [
          {
            peers: [
              {
                kind: 'pods',
                podSelector: [],
                namespaceSelector: [{ key: 'example.com/env', operator: 'DoesNotExist', values: [] }],
              },
              {
                kind: 'ipBlock',
                cidr: { bytes: Uint8Array.of(10, 0, 0, 0), prefixBits: 8 },
                except: [{ bytes: Uint8Array.of(10, 1, 0, 0), prefixBits: 16 }],
              },
            ],
            ports: [
              { protocol: 'TCP', port: 80 },
              { protocol: 'UDP', port: 'dns' },
              { protocol: 'SCTP', port: 8000, endPort: 8000 },
              { protocol: 'TCP' },
            ],
          },
        ],
        egress: [{ peers: [], ports: [] }],
      },
    ])
  })

  it.each([
    ['{}', ['Ingress']],
    ['{ egress: [] }', ['Ingress']],
    ['{ egress: [{}] }', ['Ingress', 'Egress']],
    ['{ ingress: [], egress: [{}], policyTypes: [] }', ['Ingress', 'Egress']],
    ['{ egress: [{}], policyTypes: [Ingress] }', ['Ingress']],
    ['{ policyTypes: [Egress] }', ['Egress']],
    ['{ policyTypes: [Egress, Egress] }', ['Egress']],
  ])('of spec %s has policyTypes %j', (spec, policyTypes) => {
    const [policy] = parseNetworkPolicies(`${HEAD}spec: ${spec}`, 'f.yaml')
    expect(policy?.policyTypes).toEqual(policyTypes)
  })

  it('reads documents, lists and lists of policies, and skips empty documents', () => {
    const item = (name: string) =>
      `{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: { name: ${name}, namespace: prod } }`
    const text = `---\n---\n${HEAD}---\napiVersion: v1\nkind: List\nitems: [${item('a')}, ${item('b')}]
---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems: [${item('c')}]\n---\n# nothing\n`
    expect(parseNetworkPolicies(text, 'f.yaml').map(({ name }) => name)).toEqual(['web', 'a', 'b', 'c'])
  })

  it('ignores other kinds only when asked', () => {
    const text = `apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web }\n---\n${HEAD}`
    expect(parseNetworkPolicies(text, 'f.yaml', { otherKinds: 'ignore' }).map(({ name }) => name)).toEqual(['web'])
    expect(errorOf(() => parseNetworkPolicies(text, 'f.yaml'))).toEqual([
      'policy-wrong-kind',
      'f.yaml document 1: apiVersion: must be networking.k8s.io/v1',
    ])
    const old = 'apiVersion: extensions/v1beta1\nkind: NetworkPolicy\n'
    expect(errorOf(() => parseNetworkPolicies(old, 'f.yaml', { otherKinds: 'ignore' }))[0]).toBe('policy-wrong-kind')
  })

  it('takes the default namespace only where none is named', () => {
    const text = `${HEAD}---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: web }\n`
    const parsed = parseNetworkPolicies(text, 'f.yaml', { defaultNamespace: 'test' })
    expect(parsed.map(({ namespace }) => namespace)).toEqual(['prod', 'test'])
  })

  it('refuses the same name twice in a namespace', () => {
    expect(errorOf(() => parseNetworkPolicies(`${HEAD}---\n${HEAD}`, 'f.yaml'))).toEqual([
      'policy-duplicate',
      'f.yaml document 2: metadata.name: prod/web is there twice; rename one',
    ])
  })

  it.each([
    ['a: [', 'policy-not-yaml', /^f\.yaml: is not YAML: .+ at line \d+/],
    ['a: 1\na: 2', 'policy-not-yaml', /^f\.yaml: is not YAML: Map keys must be unique at line 2/],
    ['a: *b', 'policy-not-yaml', /^f\.yaml: is not YAML: .*alias/],
    ['text', 'policy-invalid-field', /^f\.yaml: must be an object, not the string "text"$/],
    ['[]', 'policy-invalid-field', /^f\.yaml: must be an object, not a list$/],
  ])('says what is wrong with the YAML %j', (text, code, message) => {
    expect(errorOf(() => parseNetworkPolicies(text, 'f.yaml'))).toEqual([code, expect.stringMatching(message)])
  })

  it('does not unfold an alias bomb', () => {
    const bomb = ['a: &a [x, x, x, x, x, x, x, x, x]']
    for (let index = 0; index < 8; index++) {
      const [name, inner] = [String.fromCharCode(98 + index), String.fromCharCode(97 + index)]
      bomb.push(`${name}: &${name} [${Array(9).fill(`*${inner}`).join(', ')}]`)
    }
    expect(errorOf(() => parseNetworkPolicies(bomb.join('\n'), 'f.yaml'))[0]).toBe('policy-not-yaml')
  })
})

describe('a field that is wrong', () => {
  const invalid = 'policy-invalid-field'
  const missing = 'policy-missing-field'
  const unknown = 'policy-unknown-field'
  it.each([
    [
      '{ podSelecter: {} }',
      unknown,
      'spec.podSelecter: is not a field of networking.k8s.io/v1; use one of podSelector, ingress, egress, policyTypes',
    ],
    [
      '{ ingress: [{ to: [] }] }',
      unknown,
      'spec.ingress[0].to: is not a field of networking.k8s.io/v1; use one of from, ports',
    ],
    [
      '{ egress: [{ from: [] }] }',
      unknown,
      'spec.egress[0].from: is not a field of networking.k8s.io/v1; use one of to, ports',
    ],
    [
      '{ podSelector: { app: web } }',
      unknown,
      'spec.podSelector.app: is not a field of networking.k8s.io/v1; use one of matchLabels, matchExpressions',
    ],
    ['[]', invalid, 'spec: must be an object, not a list'],
    ['{ ingress: {} }', invalid, 'spec.ingress: must be a list, not an object'],
    ['{ ingress: [null] }', invalid, 'spec.ingress[0]: is empty; write {} if everything is meant, or remove the line'],
    [
      '{ ingress: [{ from: [null] }] }',
      invalid,
      'spec.ingress[0].from[0]: is empty; write {} if everything is meant, or remove the line',
    ],
    [
      '{ ingress: [{ from: [{}] }] }',
      missing,
      'spec.ingress[0].from[0]: names no peer; add podSelector, namespaceSelector or ipBlock, or remove the item',
    ],
    [
      '{ ingress: [{ from: [{ podSelector: null }] }] }',
      missing,
      'spec.ingress[0].from[0]: names no peer; add podSelector, namespaceSelector or ipBlock, or remove the item',
    ],
    [
      '{ ingress: [{ from: [{ podSelector: {}, ipBlock: { cidr: 10.0.0.0/8 } }] }] }',
      invalid,
      'spec.ingress[0].from[0]: has ipBlock and a selector; make two items of it',
    ],
    ['{ egress: [{ to: [{ ipBlock: {} }] }] }', missing, 'spec.egress[0].to[0].ipBlock.cidr: is missing; add it'],
    [
      '{ egress: [{ to: [{ ipBlock: { cidr: 10.0.0.0 } }] }] }',
      invalid,
      'spec.egress[0].to[0].ipBlock.cidr: "10.0.0.0" is no CIDR; write it as 10.0.0.0/8 or 2001:db8::/32',
    ],
    [
      '{ egress: [{ to: [{ ipBlock: { cidr: 010.0.0.0/8 } }] }] }',
      invalid,
      'spec.egress[0].to[0].ipBlock.cidr: "010.0.0.0/8" is no CIDR; write it as 10.0.0.0/8 or 2001:db8::/32',
    ],
    [
      '{ egress: [{ to: [{ ipBlock: { cidr: 10.1.0.0/8 } }] }] }',
      invalid,
      'spec.egress[0].to[0].ipBlock.cidr: "10.1.0.0/8" is not in canonical form; write 10.0.0.0/8',
    ],
    [
      '{ egress: [{ to: [{ ipBlock: { cidr: "2001:DB8::/32" } }] }] }',
      invalid,
      'spec.egress[0].to[0].ipBlock.cidr: "2001:DB8::/32" is not in canonical form; write 2001:db8::/32',
    ],
    [
      '{ egress: [{ to: [{ ipBlock: { cidr: "::ffff:10.0.0.0/104" } }] }] }',
      invalid,
      'spec.egress[0].to[0].ipBlock.cidr: "::ffff:10.0.0.0/104" is not in canonical form; write 10.0.0.0/8',
    ],
    [
      '{ ingress: [{}, { from: [{ podSelector: {} }, { ipBlock: { cidr: 10.0.0.0/8, except: [11.0.0.0/16] } }] }] }',
      invalid,
      'spec.ingress[1].from[1].ipBlock.except[0]: 11.0.0.0/16 must be a smaller block inside 10.0.0.0/8',
    ],
    [
      '{ ingress: [{ from: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.0.0.0/8] } }] }] }',
      invalid,
      'spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 must be a smaller block inside 10.0.0.0/8',
    ],
    [
      '{ ingress: [{ from: [{ ipBlock: { cidr: 10.0.0.0/8, except: ["::/0"] } }] }] }',
      invalid,
      'spec.ingress[0].from[0].ipBlock.except[0]: ::/0 must be a smaller block inside 10.0.0.0/8',
    ],
    [
      '{ ingress: [{ ports: [{ port: 0 }] }] }',
      invalid,
      'spec.ingress[0].ports[0].port: 0 must be a number from 1 to 65535',
    ],
    [
      '{ ingress: [{ ports: [{ port: 65536 }] }] }',
      invalid,
      'spec.ingress[0].ports[0].port: 65536 must be a number from 1 to 65535',
    ],
    [
      '{ ingress: [{ ports: [{ port: 80.5 }] }] }',
      invalid,
      'spec.ingress[0].ports[0].port: 80.5 must be a number from 1 to 65535',
    ],
    [
      '{ ingress: [{ ports: [{ port: "80" }] }] }',
      invalid,
      'spec.ingress[0].ports[0].port: "80" is a number in quotes; remove the quotes',
    ],
    [
      '{ ingress: [{ ports: [{ port: web--x }] }] }',
      invalid,
      'spec.ingress[0].ports[0].port: "web--x" must be lower case letters, digits and single "-" between them, with a letter',
    ],
    [
      '{ ingress: [{ ports: [{ port: a-name-too-long-x }] }] }',
      invalid,
      'spec.ingress[0].ports[0].port: "a-name-too-long-x" has 17 characters; 15 are allowed',
    ],
    [
      '{ ingress: [{ ports: [{ port: 80, endPort: 79 }] }] }',
      invalid,
      'spec.ingress[0].ports[0].endPort: 79 must not be less than port 80',
    ],
    [
      '{ ingress: [{ ports: [{ port: 80, endPort: 65536 }] }] }',
      invalid,
      'spec.ingress[0].ports[0].endPort: 65536 must be a number from 1 to 65535',
    ],
    [
      '{ ingress: [{ ports: [{ port: 80, endPort: "90" }] }] }',
      invalid,
      'spec.ingress[0].ports[0].endPort: "90" must be a number from 1 to 65535',
    ],
    [
      '{ ingress: [{ ports: [{ port: http, endPort: 90 }] }] }',
      invalid,
      'spec.ingress[0].ports[0].endPort: goes only with a numeric port; remove it',
    ],
    [
      '{ ingress: [{ ports: [{ endPort: 90 }] }] }',
      invalid,
      'spec.ingress[0].ports[0].endPort: needs port, the first of the range; add it',
    ],
    [
      '{ ingress: [{ ports: [{ protocol: tcp }] }] }',
      invalid,
      'spec.ingress[0].ports[0].protocol: "tcp" is not supported; use TCP, UDP, SCTP',
    ],
    ['{ policyTypes: [ingress] }', invalid, 'spec.policyTypes[0]: "ingress" is not supported; use Ingress, Egress'],
    [
      '{ policyTypes: [Ingress, Egress, Ingress] }',
      invalid,
      'spec.policyTypes: has more than two items; list Ingress and Egress once',
    ],
    [
      '{ podSelector: { matchLabels: { a: 1 } } }',
      invalid,
      'spec.podSelector.matchLabels.a: must be a string, not the number 1; write it in quotes',
    ],
    [
      '{ podSelector: { matchLabels: { a: yes } } }',
      invalid,
      'spec.podSelector.matchLabels.a: must be a string, not the boolean true; write it in quotes',
    ],
    ['{ podSelector: { matchLabels: { a: } } }', missing, 'spec.podSelector.matchLabels.a: is missing; add it'],
    [
      '{ podSelector: { matchLabels: { a: b c } } }',
      invalid,
      'spec.podSelector.matchLabels.a: "b c" must be letters, digits, "-", "_" and ".", and begin and end with a letter or digit',
    ],
    [
      '{ podSelector: { matchLabels: { a/b/c: d } } }',
      invalid,
      'spec.podSelector.matchLabels: "a/b/c" must be letters, digits, "-", "_" and ".", begin and end with a letter or digit, after at most one "/"',
    ],
    [
      '{ podSelector: { matchLabels: { A/b: d } } }',
      invalid,
      'spec.podSelector.matchLabels: "A/b" has a prefix that must be lower case letters, digits, "-" and ".", and begin and end each part with a letter or digit',
    ],
    [
      '{ podSelector: { matchExpressions: [{ operator: Exists }] } }',
      missing,
      'spec.podSelector.matchExpressions[0].key: is missing; add it',
    ],
    [
      '{ podSelector: { matchExpressions: [{ key: a }] } }',
      missing,
      'spec.podSelector.matchExpressions[0].operator: is missing; use In, NotIn, Exists, DoesNotExist',
    ],
    [
      '{ podSelector: { matchExpressions: [{ key: a, operator: Gt, values: ["1"] }] } }',
      invalid,
      'spec.podSelector.matchExpressions[0].operator: "Gt" is not supported; use In, NotIn, Exists, DoesNotExist',
    ],
    [
      '{ podSelector: { matchExpressions: [{ key: a, operator: In }] } }',
      missing,
      'spec.podSelector.matchExpressions[0].values: must not be empty when operator is In; add a value',
    ],
    [
      '{ podSelector: { matchExpressions: [{ key: a, operator: NotIn, values: [] }] } }',
      missing,
      'spec.podSelector.matchExpressions[0].values: must not be empty when operator is NotIn; add a value',
    ],
    [
      '{ podSelector: { matchExpressions: [{ key: a, operator: Exists, values: [b] }] } }',
      invalid,
      'spec.podSelector.matchExpressions[0].values: must be empty when operator is Exists; remove it',
    ],
  ])('spec %s', (spec, code, message) => {
    expect(specError(spec)).toEqual([code, `f.yaml: ${message}`])
  })

  it.each([
    [
      { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', spec: {} },
      missing,
      'metadata: is missing; add name and namespace',
    ],
    [
      { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'a' } },
      missing,
      'metadata.namespace: is missing; add it',
    ],
    [
      { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { namespace: 'a' } },
      missing,
      'metadata.name: is missing; add it',
    ],
    [
      { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'A', namespace: 'a' } },
      invalid,
      'metadata.name: "A" must be lower case letters, digits, "-" and ".", and begin and end each part with a letter or digit',
    ],
    [
      { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'a', namespace: 'a.b' } },
      invalid,
      'metadata.namespace: "a.b" must be lower case letters, digits and "-", and begin and end with no "-"',
    ],
    [
      { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'a', namespace: 'b'.repeat(64) } },
      invalid,
      `metadata.namespace: "${'b'.repeat(64)}" has 64 characters; 63 are allowed`,
    ],
    [{ apiVersion: 'v1', kind: 'NetworkPolicy' }, 'policy-wrong-kind', 'apiVersion: must be networking.k8s.io/v1'],
    [{ apiVersion: 'networking.k8s.io/v1', kind: 'Ingress' }, 'policy-wrong-kind', 'kind: must be NetworkPolicy'],
    [
      { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', specs: {} },
      unknown,
      'specs: is not a field of networking.k8s.io/v1; use one of apiVersion, kind, metadata, spec, status',
    ],
    [null, invalid, 'must be an object, not empty'],
    [7, invalid, 'must be an object, not the number 7'],
  ])('object %j', (object, code, message) => {
    expect(errorOf(() => parseNetworkPolicy(object, 'here'))).toEqual([code, `here: ${message}`])
  })
})

describe('an object that the API server has stored', () => {
  const metadata = { name: 'a', namespace: 'b' }

  function storedCidr(cidr: string) {
    const spec = { ingress: [{ from: [{ ipBlock: { cidr } }] }] }
    return parseNetworkPolicy({ metadata, spec }, 'api', { stored: true }).ingress[0]?.peers
  }

  it.each(['10.1.2.3/8', '010.000.0.00/8', '::ffff:10.1.2.3/104'])(
    'may have the CIDR %s, which is 10.0.0.0/8',
    (text) => {
      const cidr = { bytes: Uint8Array.of(10, 0, 0, 0), prefixBits: 8 }
      expect(storedCidr(text)).toEqual([{ kind: 'ipBlock', cidr, except: [] }])
    },
  )

  it('may have a label value of any form, and neither apiVersion nor kind', () => {
    const spec = { podSelector: { matchLabels: { a: 'not valid' } } }
    expect(parseNetworkPolicy({ metadata, spec }, 'api', { stored: true }).podSelector).toEqual([
      { key: 'a', operator: 'In', values: ['not valid'] },
    ])
    expect(errorOf(() => parseNetworkPolicy({ metadata, spec }, 'api'))[0]).toBe('policy-wrong-kind')
  })

  it('may not have a field of a later version, which could narrow a rule', () => {
    const spec = { ingress: [{ fromNodes: [] }] }
    expect(errorOf(() => parseNetworkPolicy({ metadata, spec }, 'api', { stored: true }))[0]).toBe(
      'policy-unknown-field',
    )
  })
})
