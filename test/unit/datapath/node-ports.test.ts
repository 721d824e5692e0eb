import { describe, expect, it } from '@jest/globals'
import type { DirectoryEntry, PodIdentity } from '../../../api/identity.ts'
import { connect, fromClient, fromServer, judge, RST, SYN, SYN_ACK, settle, twoPods } from './pods.ts'

const OTHER_NODE = '10.0.0.9'
const OWN_NODE = '10.0.0.8'
/** Of the own node too, but in no Node object. */
const GATEWAY = '10.244.0.1'
const NODE_PORT = 30_080
const SERVICE = '10.96.0.9'

const TO_FRIENDS = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: to-friends, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{ to: [{ podSelector: { matchLabels: { friend: 'yes' } } }], ports: [{ port: 8080 }] }]
`
const TO_NODES = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: to-nodes, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{ to: [{ ipBlock: { cidr: ${OTHER_NODE}/32 } }, { ipBlock: { cidr: ${OWN_NODE}/32 } }, { ipBlock: { cidr: ${GATEWAY}/32 } }] }]
`

function backend(name: string, labels: Record<string, string>, guarded = false) {
  const pod: PodIdentity = {
    namespace: 'shop',
    name,
    uid: `uid-${name}`,
    serviceAccount: 'default',
    labels,
    namespaceLabels: {},
    addresses: ['10.244.0.7'],
    ports: [],
  }
  return { address: '10.244.0.7', port: 8080, guarded, pod }
}
const FRIEND = backend('friend', { friend: 'yes' })
const STRANGER = backend('stranger', {})
const GUARDED = backend('guarded', { friend: 'yes' }, true)

function directory(backends: readonly ReturnType<typeof backend>[], node: string): Record<string, DirectoryEntry> {
  return {
    [node]: {
      kind: 'node',
      name: 'n',
      ports: [{ protocol: 'TCP', port: NODE_PORT, serviceAddress: SERVICE, servicePort: 80 }],
    },
    [SERVICE]: { kind: 'service', namespace: 'shop', name: 'web', ports: [{ protocol: 'TCP', port: 80, backends }] },
  }
}

const bytesOf = (address: string) => Buffer.from(address.split('.').map(Number))

/** Dials a port of a node; the answer shows no WIT. Whether the SYN carried a frame, and what became of the SYN-ACK. */
async function dial(policies: string, node: string, entries: Record<string, DirectoryEntry>, port = NODE_PORT) {
  const { client, server } = await twoPods({ policies, settings: { nodeAddresses: [OWN_NODE, 'fd00::1', GATEWAY] } })
  const atNode = { ...server, address: bytesOf(node) }
  const c = connect(client, atNode, { serverPort: port })
  const syn = await settle(client, 'out', fromClient(c, SYN), 0, entries)
  const framed = syn.packet.length > 100
  if (syn.action !== 'pass') return { framed, answer: `${syn.action} ${syn.refusal}` }
  const synAck = await settle(client, 'in', fromServer(c, SYN_ACK), 0, entries)
  const isReset = (synAck.packet.readUInt8(33) & RST) !== 0
  const refusal = client.reports.at(-1)?.refusal
  return { framed, answer: isReset ? `reset ${refusal}` : synAck.action }
}

describe.each([
  ['another node', OTHER_NODE, OTHER_NODE],
  ['the own node', OWN_NODE, OWN_NODE],
  ['the own node by the gateway’s address', GATEWAY, OWN_NODE],
])('a node port of %s', (_, node, known) => {
  it.each([
    ['is allowed where its unguarded backends are', [FRIEND], TO_FRIENDS, 'release'],
    ['is refused where one of them is not', [FRIEND, STRANGER], TO_FRIENDS, 'reset policy'],
    ['is refused where its guarded backend shows no WIT', [GUARDED], TO_FRIENDS, 'reset no-wit'],
    ['is no way around that by the node’s address', [GUARDED], TO_NODES, 'reset no-wit'],
    ['is not allowed by the node’s address: its backends count', [FRIEND], TO_NODES, 'reset policy'],
    ['without backends is an address', [], TO_NODES, 'release'],
  ] as const)('%s', async (_what, backends, policies, answer) => {
    expect(await dial(policies, node, directory(backends, known))).toEqual({ framed: true, answer })
  })

  it('needs the WIT without any policy too', async () => {
    expect(await dial('', node, directory([GUARDED], known))).toEqual({ framed: true, answer: 'reset no-wit' })
  })

  it('counts by protocol and number: another port of the node is the node', async () => {
    const answers = [
      await dial(TO_NODES, node, directory([GUARDED], known), 443),
      await dial(TO_FRIENDS, node, directory([FRIEND], known), 443),
    ]
    const framed = node === OTHER_NODE
    // The own node’s are decided at the SYN.
    const refused = framed ? 'reset policy' : 'refuse policy'
    expect(answers).toEqual([
      { framed, answer: 'release' },
      { framed, answer: refused },
    ])
  })

  it('is an address to whom the issuer cannot answer', async () => {
    expect(await dial(TO_NODES, node, {})).toMatchObject({ answer: 'release' })
    expect((await dial(TO_FRIENDS, node, {})).answer).toMatch(/^re(set|fuse)/)
  })
})

describe('a Pod that reaches itself through a node port', () => {
  it('is let through, and proves it', async () => {
    const { client } = await twoPods({ settings: { nodeAddresses: [OWN_NODE, GATEWAY] } })
    const entries = directory([{ ...GUARDED, address: '10.244.0.2', pod: client.identity }], OWN_NODE)
    const node = bytesOf(OWN_NODE)
    const c = connect(client, client, { serverPort: 8080 })
    // The node translates both ends: the Pod sees itself at the node's address.
    const syn = (await settle(client, 'out', fromClient(c, SYN, { to: node, toPort: NODE_PORT }), 0, entries)).packet
    syn.set(node, 12)
    syn.set(client.address, 16)
    syn.writeUInt16BE(8080, 22)
    expect((await settle(client, 'in', syn)).action).toBe('pass')
    const answer = fromServer(c, SYN_ACK, { to: node })
    const synAck = (await settle(client, 'out', answer)).packet
    synAck.set(node, 12)
    synAck.set(client.address, 16)
    synAck.writeUInt16BE(NODE_PORT, 20)
    expect((await settle(client, 'in', synAck, 0, entries)).action).toBe('release')
  })
})

describe('what comes from a node', () => {
  it('is the node’s, on whatever port of its own', async () => {
    const { client, server } = await twoPods()
    const atNode = { ...client, address: bytesOf(OTHER_NODE) }
    const c = connect(atNode, server, { clientPort: NODE_PORT })
    const entries = directory([GUARDED], OTHER_NODE)
    expect((await settle(server, 'in', fromClient(c, SYN), 0, entries)).action).toBe('pass')
    expect(judge(server, 'out', fromServer(c, SYN_ACK)).action).toBe('release')
  })
})
