import { describe, expect, it } from '@jest/globals'
import type { DirectoryEntry, PodIdentity } from '../../../api/identity.ts'
import { MARK_OWN, MARK_RELEASED } from '../../../api/marks.ts'
import { parseAddress, parseCidr } from '../../../policy/address.ts'
import { compile } from '../../../policy/compile.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { groupDenied, LISTED_FLOWS, LISTED_RUNNING, listFlows } from '../../../sidecar/control/flow-list.ts'
import { createGatePolicy } from '../../../sidecar/datapath/gate.ts'
import type { Flow } from '../../../sidecar/netlink/flow.ts'
import type { DiagnosedSocket } from '../../../sidecar/netlink/inet-diag.ts'

const SELF = '10.244.0.2'
const bytes = (text: string): Uint8Array => parseAddress(text) ?? new Uint8Array(4)

function pod(name: string, address: string): PodIdentity {
  const facts = { labels: { app: name }, namespaceLabels: {}, ports: [] }
  return { namespace: 'shop', name, uid: `uid-${name}`, serviceAccount: 'default', addresses: [address], ...facts }
}

function flow(from: string, to: string, mark = 0, more: Partial<Flow> = {}, port = 80, sourcePort = 40_000): Flow {
  const ends = { source: bytes(from), destination: bytes(to), sourcePort, destinationPort: port }
  const original = { family: 4, protocol: 6, ...ends } as const
  const reply = { ...original, source: original.destination, destination: original.source }
  return { original, reply, mark: (MARK_RELEASED | mark) >>> 0, status: 0, tcpState: 3, ...more }
}

const ONLY_WEB = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-web, namespace: shop }
spec: { podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { app: web } } }], ports: [{ port: 80 }] }] }
`

function optionsFor(flows: readonly Flow[], sockets: readonly DiagnosedSocket[] = []) {
  const web = pod('web', '10.244.0.3')
  const known: Readonly<Record<string, DirectoryEntry>> = {
    '10.244.0.4': { kind: 'pod', guarded: false, pod: pod('plain', '10.244.0.4') },
    '198.51.100.1': { kind: 'external' },
  }
  return {
    conntrack: {
      *dumpInSteps(_: unknown, onFlow: (flow: Flow) => void) {
        for (const one of flows) onFlow(one)
        yield
        return flows.length
      },
    },
    sockDiag: { listConnections: () => [...sockets] },
    table: {
      get: (index: number) =>
        index === 1 || index === 2
          ? { index, identity: web, port: index === 2 ? 8080 : 0, kid: 'k', issuedAt: 0, expiresAt: 1 }
          : undefined,
    },
    judge: {
      settings: { peersWithoutIdentity: 'resolve', nodeAccess: 'probes', probePorts: [] } as const,
      clusterNetworks: ['10.244.0.0/16'].flatMap((cidr) => parseCidr(cidr) ?? []),
      nodeAddresses: new Set<string>(),
      directory: { get: (address: string) => known[address] },
      policy: createGatePolicy(compile(parseNetworkPolicies(ONLY_WEB, 'test.yaml'), pod('self', SELF))),
    },
    witExpected: false,
    podAddresses: new Set([SELF]),
    currentIdentity: (identity: PodIdentity) => identity,
    openedAt: async (connections: readonly unknown[]) => connections.map((_, at) => (at === 0 ? 1_700_000_000 : 0)),
  }
}

const socketOf = (local: string, localPort: number, remote: string, remotePort: number): DiagnosedSocket => ({
  family: 4,
  protocol: 6,
  local: bytes(local),
  localPort,
  remote: bytes(remote),
  remotePort,
  state: 1,
  uid: 0,
  inode: 1,
  cookie: new Uint8Array(8),
  bytesAcknowledged: 5,
  bytesReceived: 7,
})

describe('the list of flows', () => {
  it('names the peer by its WIT, by the directory, or by its address, with what decides it', async () => {
    const { flows, total } = await listFlows(
      optionsFor([
        flow('10.244.0.3', SELF, 1),
        flow('10.244.0.4', SELF),
        flow(SELF, '198.51.100.1'),
        flow('10.244.0.7', SELF),
      ]),
    )
    expect(total).toBe(4)
    expect(
      flows.map(({ direction, peer, allowed, decidedBy }) => [
        direction,
        peer.kind,
        peer.pod?.name,
        allowed,
        decidedBy,
      ]),
    ).toEqual([
      ['ingress', 'identified', 'web', true, 'shop/only-web rule 0'],
      ['ingress', 'attested', 'plain', false, 'shop/only-web'],
      ['egress', 'address', undefined, true, 'not isolated'],
      ['ingress', 'address', undefined, null, ''],
    ])
  })

  it('takes bytes from the socket, else from the kernel’s accounting, and the age from whoever has it', async () => {
    const counted = { bytes: { original: 300, reply: 200 }, startedAtNanoseconds: 1_600_000_000e9 }
    const { flows } = await listFlows(
      optionsFor(
        [flow('10.244.0.3', SELF, 1), flow(SELF, '10.244.0.3', 1, counted), flow('10.244.0.3', SELF, 1, {}, 81)],
        [socketOf(SELF, 80, '10.244.0.3', 40_000)],
      ),
    )
    expect(flows.map((one) => [one.localPort, one.remotePort, one.bytes, one.opened])).toEqual([
      [80, 40_000, { sent: 5, received: 7, by: 'socket' }, '2023-11-14T22:13:20.000Z'],
      [40_000, 80, { sent: 300, received: 200, by: 'conntrack' }, '2020-09-13T12:26:40.000Z'],
      [81, 40_000, null, null],
    ])
  })

  it('leaves out its own connections, those that are over, and the Pod’s with itself; and is bounded', async () => {
    const own = flow(SELF, '10.244.0.9', MARK_OWN)
    const over = flow('10.244.0.3', SELF, 1, { tcpState: 7 })
    const many = Array.from({ length: LISTED_FLOWS + 5 }, (_, at) => flow('10.244.0.3', SELF, 1, {}, 80, at + 1))
    const { flows, total } = await listFlows(optionsFor([own, over, flow(SELF, SELF), ...many]))
    expect([flows.length, total]).toEqual([LISTED_FLOWS, LISTED_FLOWS + 5])
  })
})

describe('running connections that are denied', () => {
  const decision = { allowed: false, isolatedBy: ['shop/only-web'] } as const

  it('are counted by peer and real port', () => {
    const denied = [
      { flow: flow('10.244.0.4', SELF), direction: 'ingress', decision },
      { flow: flow('10.244.0.4', SELF, 0, {}, 80, 40_001), direction: 'ingress', decision },
      { flow: flow('10.244.0.4', SELF, 0, { tcpState: 8 }), direction: 'ingress', decision },
      { flow: flow(SELF, '10.96.0.1', 2), direction: 'egress', decision },
    ] as const
    expect(groupDenied(optionsFor([]), denied)).toMatchObject({
      running: [
        { direction: 'ingress', port: 80, count: 2, peer: { pod: { name: 'plain' } }, policies: ['shop/only-web'] },
        { direction: 'egress', port: 8080, count: 1, peer: { address: '10.96.0.1', pod: { name: 'web' } } },
      ],
      unlisted: 0,
    })
  })

  it('are listed up to a bound, and counted beyond', () => {
    const denied = Array.from({ length: LISTED_RUNNING + 3 }, (_, at) => ({
      flow: flow('10.244.0.4', SELF, 0, {}, at + 1),
      direction: 'ingress' as const,
      decision,
    }))
    const { running, unlisted } = groupDenied(optionsFor([]), denied)
    expect([running.length, unlisted]).toEqual([LISTED_RUNNING, 3])
  })
})
