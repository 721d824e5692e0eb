/** Random clusters and policies over few names, so that what is asked for is often there. */

import fc from 'fast-check'
import type { PodIdentity } from '../../../api/identity.ts'
import type { RawEnd, RawPeer, RawPolicy, RawPort, RawSelector, RawSpec } from './naive.ts'

const KEYS = ['app', 'tier', 'constructor']
const VALUES = ['', 'a', 'b']
const NAMESPACES = ['n0', 'n1']
const PORT_NAMES = ['http', 'dns']
const PORT_NUMBERS = [53, 80, 81, 8080]
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const
const BLOCKS = [
  { cidr: '10.0.0.0/8', except: ['10.0.0.0/9', '10.0.1.0/24', '10.0.1.1/32'] },
  { cidr: '10.0.0.0/23', except: ['10.0.0.128/25', '10.0.1.2/31'] },
  { cidr: '0.0.0.0/0', except: ['10.0.0.0/8', '192.0.2.0/24'] },
  { cidr: '10.0.1.2/32', except: [] },
  { cidr: '192.0.2.128/25', except: ['192.0.2.200/29'] },
  { cidr: '::/0', except: ['fd00::/8', '2001:db8::/32'] },
  { cidr: 'fd00::/61', except: ['fd00:0:0:1::/64', 'fd00::1/128'] },
]
const OUTSIDE = ['192.0.2.7', '192.0.2.200', '10.0.1.3', '10.200.0.1', '2001:db8::5', 'fd00:0:0:8::1']

const labels = fc.dictionary(fc.constantFrom(...KEYS), fc.constantFrom(...VALUES), {
  maxKeys: 3,
  noNullPrototype: true,
})

const requirement = fc.oneof(
  fc.record({
    key: fc.constantFrom(...KEYS),
    operator: fc.constantFrom('In', 'NotIn'),
    values: fc.array(fc.constantFrom(...VALUES), { minLength: 1, maxLength: 2 }),
  }),
  fc.record({ key: fc.constantFrom(...KEYS), operator: fc.constantFrom('Exists', 'DoesNotExist') }),
)

const selector: fc.Arbitrary<RawSelector> = fc.oneof(
  fc.constant({}),
  fc.record(
    {
      matchLabels: fc.dictionary(fc.constantFrom(...KEYS), fc.constantFrom(...VALUES), {
        maxKeys: 1,
        noNullPrototype: true,
      }),
      matchExpressions: fc.array(requirement, { maxLength: 2 }),
    },
    { requiredKeys: [] },
  ),
)

const peer: fc.Arbitrary<RawPeer> = fc.oneof(
  fc.record({ podSelector: selector }),
  fc.record({ namespaceSelector: selector }),
  fc.record({ podSelector: selector, namespaceSelector: selector }),
  fc
    .constantFrom(...BLOCKS)
    .chain(({ cidr, except }) => fc.record({ cidr: fc.constant(cidr), except: fc.subarray(except) }))
    .map((ipBlock) => ({ ipBlock })),
)

const protocolField = fc.record({ protocol: fc.constantFrom(...PROTOCOLS) }, { requiredKeys: [] })
const port: fc.Arbitrary<RawPort> = fc.oneof(
  protocolField,
  fc.tuple(protocolField, fc.constantFrom(...PORT_NUMBERS)).map(([rest, number]) => ({ ...rest, port: number })),
  fc
    .tuple(protocolField, fc.constantFrom(...PORT_NUMBERS), fc.nat(1000))
    .map(([rest, number, more]) => ({ ...rest, port: number, endPort: number + more })),
  fc.tuple(protocolField, fc.constantFrom(...PORT_NAMES)).map(([rest, name]) => ({ ...rest, port: name })),
)

const peers = fc.array(peer, { maxLength: 2 })
const ports = fc.array(port, { maxLength: 2 })
const ingress = fc.array(fc.record({ from: peers, ports }, { requiredKeys: [] }), { maxLength: 2 })
const egress = fc.array(fc.record({ to: peers, ports }, { requiredKeys: [] }), { maxLength: 2 })
const policyTypes = fc.subarray(['Ingress', 'Egress'])

const spec: fc.Arbitrary<RawSpec> = fc
  .tuple(selector, fc.record({ policyTypes, ingress, egress }, { requiredKeys: [] }))
  .map(([podSelector, rest]) => ({ podSelector, ...rest }))

export const policies: fc.Arbitrary<RawPolicy[]> = fc
  .array(fc.tuple(fc.constantFrom(...NAMESPACES), spec), { maxLength: 4 })
  .map((list) =>
    list.map(([namespace, one], index) => ({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { namespace, name: `p${index}` },
      spec: one,
    })),
  )

const podParts = fc.record({
  namespace: fc.constantFrom(...NAMESPACES),
  labels,
  ports: fc.array(
    fc.record({
      name: fc.constantFrom(...PORT_NAMES),
      port: fc.constantFrom(...PORT_NUMBERS),
      protocol: fc.constantFrom(...PROTOCOLS),
    }),
    { maxLength: 3 },
  ),
})

/** Three Pods in up to two namespaces, whose labels agree within a namespace. */
export const pods: fc.Arbitrary<PodIdentity[]> = fc
  .tuple(fc.array(podParts, { minLength: 3, maxLength: 3 }), labels, labels)
  .map(([parts, n0, n1]) =>
    parts.map((part, index) => ({
      ...part,
      name: `pod${index}`,
      uid: `uid${index}`,
      serviceAccount: 'default',
      namespaceLabels: part.namespace === 'n0' ? n0 : n1,
      addresses: [`10.0.${index % 2}.${index + 1}`, `fd00:0:0:${index % 2}::${index + 1}`],
    })),
  )

/** Every Pod at each of its addresses, and addresses outside. */
export function allEnds(all: readonly PodIdentity[]): RawEnd[] {
  const inside = all.flatMap((pod) => pod.addresses.map((address) => ({ pod, address })))
  return [...inside, ...OUTSIDE.map((address) => ({ address }))]
}

export const traffic = fc.record({
  protocol: fc.constantFrom(...PROTOCOLS),
  port: fc.oneof(fc.constantFrom(...PORT_NUMBERS), fc.integer({ min: 1, max: 65535 })),
})
