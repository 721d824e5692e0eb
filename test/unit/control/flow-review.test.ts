import { MessageChannel } from 'node:worker_threads'
import { describe, expect, it } from '@jest/globals'
import type { DirectoryEntry, PodIdentity } from '../../../api/identity.ts'
import { MARK_OWN, MARK_RELEASED, MARK_REVOKED } from '../../../api/marks.ts'
import { formatAddress, parseAddress, parseCidr } from '../../../policy/address.ts'
import { compile } from '../../../policy/compile.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { type FlowReviewOptions, reviewFlows } from '../../../sidecar/control/flow-review.ts'
import type { IdentityRow } from '../../../sidecar/control/identity-table.ts'
import { createGatePolicy } from '../../../sidecar/datapath/gate.ts'
import type { Flow } from '../../../sidecar/netlink/flow.ts'

const POD = '10.244.0.2'

function pod(name: string, labels: Readonly<Record<string, string>>, address: string): PodIdentity {
  return {
    namespace: 'shop',
    name,
    uid: `uid-${name}`,
    serviceAccount: 'default',
    labels,
    namespaceLabels: {},
    addresses: [address],
    ports: [],
  }
}

const bytes = (text: string): Uint8Array => parseAddress(text) ?? new Uint8Array(4)
const SELF = pod('self', { app: 'self' }, POD)
const GOOD = pod('good', { tier: 'good' }, '10.244.0.3')
const BAD = pod('bad', { tier: 'bad' }, '10.244.0.4')

const GOOD_ONLY_ON_80 = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: good, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{ from: [{ podSelector: { matchLabels: { tier: good } } }], ports: [{ port: 80 }] }]
  egress: [{ to: [{ podSelector: { matchLabels: { tier: good } } }], ports: [{ port: 80 }] }]
`

function flow(from: string, to: string, mark: number, port = 80, protocol = 6): Flow {
  const original = {
    family: 4,
    protocol,
    source: bytes(from),
    destination: bytes(to),
    sourcePort: 40_000 + (mark & 0xff),
    destinationPort: port,
  } as const
  const reply = { ...original, source: original.destination, destination: original.source }
  return { original, reply, mark: mark >>> 0, status: 0, tcpState: 3 }
}

interface Setup {
  readonly flows: Flow[]
  readonly rows?: readonly Omit<IdentityRow, 'kid' | 'issuedAt' | 'expiresAt'>[]
  readonly directory?: Readonly<Record<string, DirectoryEntry>>
  readonly currentIdentity?: FlowReviewOptions['currentIdentity']
  readonly isDistrusted?: FlowReviewOptions['isDistrusted']
  readonly nodeAddresses?: readonly string[]
  readonly probePorts?: readonly { protocol: 'TCP'; port: number }[]
  readonly witExpected?: boolean
  /** Flows that are released while the first pass runs. */
  readonly late?: Flow[]
}

/** Reviews over a table in memory; returns the remote ends that were revoked, and what was told of the review. */
async function review(setup: Setup) {
  const flows = [...setup.flows]
  const known = new Map<string, DirectoryEntry | 'unknown'>()
  const asked: string[] = []
  const destroyed: string[] = []
  let dumps = 0
  const result = await reviewFlows({
    witExpected: setup.witExpected ?? false,
    conntrack: {
      *dumpInSteps({ mark, mask } = { mark: 0, mask: 0 }, onFlow) {
        if (dumps++ === 1) flows.push(...(setup.late ?? []))
        const matching = flows.filter((one) => (one.mark & mask) >>> 0 === mark)
        for (const one of matching) {
          onFlow(one)
          yield
        }
        return matching.length
      },
      updateMarks(updates) {
        for (const { tuple, mark, mask } of updates) {
          const index = flows.findIndex((one) => one.original === tuple)
          const one = flows[index]
          if (one) flows[index] = { ...one, mark: ((one.mark & ~mask) | mark) >>> 0 }
        }
        return updates.length
      },
    },
    sockDiag: {
      destroySocket({ remote, remotePort }) {
        destroyed.push(`${formatAddress(remote)}:${remotePort}`)
        return true
      },
    },
    table: {
      get(index) {
        const row = setup.rows?.find((one) => one.index === index)
        return row && { ...row, kid: 'k', issuedAt: 1_000, expiresAt: 2_000 }
      },
    },
    judge: {
      settings: { peersWithoutIdentity: 'resolve', nodeAccess: 'probes', probePorts: setup.probePorts ?? [] },
      clusterNetworks: [parseCidr('10.0.0.0/8')].flatMap((cidr) => cidr ?? []),
      nodeAddresses: new Set(setup.nodeAddresses ?? []),
      directory: known,
      policy: createGatePolicy(compile(parseNetworkPolicies(GOOD_ONLY_ON_80, 'test.yaml'), SELF)),
    },
    podAddresses: new Set([POD]),
    currentIdentity: setup.currentIdentity ?? ((identity) => identity),
    ...(setup.isDistrusted && { isDistrusted: setup.isDistrusted }),
    async resolve(address) {
      asked.push(address)
      known.set(address, setup.directory?.[address] ?? 'unknown')
    },
  })
  const revoked = flows.filter(({ mark }) => (mark & MARK_REVOKED) !== 0).map(({ original }) => original)
  return {
    revoked: revoked.map(({ source, destination }) => `${formatAddress(source)} ${formatAddress(destination)}`),
    counts: result.revoked,
    inUse: [...result.inUse],
    asked,
    destroyed,
  }
}

const RELEASED = MARK_RELEASED
const rows = [
  { index: 1, identity: GOOD, port: 0 },
  { index: 2, identity: BAD, port: 0 },
]

describe('the review of running connections', () => {
  it('revokes by the direction of who opened it, and touches nothing that is still allowed', async () => {
    const to = ['10.244.0.3', '10.244.0.4'] as const
    const result = await review({
      rows,
      flows: [
        flow(to[0], POD, RELEASED | 1),
        flow(to[1], POD, RELEASED | 2),
        flow(POD, to[0], RELEASED | 1),
        flow(POD, to[1], RELEASED | 2),
      ],
    })
    expect(result).toEqual({
      revoked: [`${to[1]} ${POD}`, `${POD} ${to[1]}`],
      counts: { ingress: 1, egress: 1 },
      inUse: [1],
      asked: [],
      destroyed: [`${to[1]}:40002`, `${to[1]}:80`],
    })
  })

  it('judges a connection through a Service by the real port of its row', async () => {
    const behind = [
      { index: 1, identity: GOOD, port: 80 },
      { index: 2, identity: GOOD, port: 8080 },
    ]
    const flows = [flow(POD, '10.96.0.1', RELEASED | 1, 443), flow(POD, '10.96.0.2', RELEASED | 2, 80)]
    expect((await review({ rows: behind, flows })).revoked).toEqual([`${POD} 10.96.0.2`])
  })

  it.each([
    ['after audit, a guarded one that showed none is revoked', true],
    ['else a guarded one is judged by its labels: conntrack may have forgotten what it showed', false],
  ])('asks the directory about peers without a row; %s', async (_rule, witExpected) => {
    const flows = [
      flow('10.244.0.3', POD, RELEASED),
      flow('10.244.0.4', POD, RELEASED),
      flow('10.244.0.5', POD, RELEASED),
    ]
    const result = await review({
      flows,
      witExpected,
      directory: {
        '10.244.0.3': { kind: 'pod', guarded: false, pod: GOOD },
        '10.244.0.4': { kind: 'pod', guarded: false, pod: BAD },
        '10.244.0.5': { kind: 'pod', guarded: true, pod: { ...GOOD, addresses: ['10.244.0.5'] } },
      },
    })
    expect(result.asked).toEqual(['10.244.0.3', '10.244.0.4', '10.244.0.5'])
    expect(result.revoked).toEqual([`10.244.0.4 ${POD}`, ...(witExpected ? [`10.244.0.5 ${POD}`] : [])])
  })

  it('never touches the sidecar’s own connections, though others go to the same address', async () => {
    const external = { '10.96.0.9': { kind: 'external' } } as const
    const own = flow(POD, '10.96.0.9', RELEASED | MARK_OWN, 443)
    const other = flow(POD, '10.96.0.9', RELEASED, 444)
    const result = await review({ flows: [own, other], directory: external })
    expect({ counts: result.counts, destroyed: result.destroyed }).toEqual({
      counts: { ingress: 0, egress: 1 },
      destroyed: ['10.96.0.9:444'],
    })
  })

  it('counts a connection once, though another one to its address had to wait for the directory', async () => {
    const external = { '10.244.0.4': { kind: 'external' } } as const
    const flows = [flow(POD, '10.244.0.4', RELEASED | 2), flow(POD, '10.244.0.4', RELEASED, 81)]
    expect((await review({ rows, flows, directory: external })).counts).toEqual({ ingress: 0, egress: 2 })
  })

  it('revokes connections of void WITs and of rows that are gone', async () => {
    const flows = [flow('10.244.0.3', POD, RELEASED | 1), flow('10.244.0.7', POD, RELEASED | 77)]
    const result = await review({ rows, flows, currentIdentity: () => 'void' })
    expect(result.revoked).toEqual([`10.244.0.3 ${POD}`, `10.244.0.7 ${POD}`])
  })

  it('revokes connections of WITs by a key that was cut, and no others', async () => {
    const flows = [flow('10.244.0.3', POD, RELEASED | 1), flow('10.244.0.4', POD, RELEASED | 2, 80)]
    expect((await review({ rows, flows, isDistrusted: (kid) => kid === 'k' })).revoked).toHaveLength(2)
    const allowed = (await review({ rows, flows })).revoked
    expect((await review({ rows, flows, isDistrusted: (kid) => kid === 'other' })).revoked).toEqual(allowed)
    expect(allowed.length).toBeLessThan(2)
  })

  it('judges a relabelled peer by its labels of now', async () => {
    const flows = [flow('10.244.0.3', POD, RELEASED | 1), flow('10.244.0.4', POD, RELEASED | 2)]
    const swapped = (identity: PodIdentity) => ({
      ...identity,
      labels: { tier: identity.name === 'good' ? 'bad' : 'good' },
    })
    expect((await review({ rows, flows, currentIdentity: swapped })).revoked).toEqual([`10.244.0.3 ${POD}`])
  })

  it('leaves the node’s probes, and revokes its other connections', async () => {
    const flows = [flow('10.244.0.1', POD, RELEASED, 8080), flow('10.244.0.1', POD, RELEASED | 0, 9090)]
    const result = await review({
      flows,
      nodeAddresses: ['10.244.0.1'],
      probePorts: [{ protocol: 'TCP', port: 8080 }],
    })
    expect(result.counts).toEqual({ ingress: 1, egress: 0 })
  })

  it('follows a node port to the Service behind it, also where the directory has to be asked for both', async () => {
    const flows = [
      flow(POD, '10.0.0.9', RELEASED, 30080),
      flow(POD, '10.0.0.9', RELEASED, 30081),
      flow(POD, '10.0.0.9', RELEASED, 22),
    ]
    const backend = (peer: PodIdentity) => ({ address: peer.addresses[0] ?? '', port: 80, guarded: false, pod: peer })
    const leads = (port: number, servicePort: number) =>
      ({ protocol: 'TCP', port, serviceAddress: '10.96.0.9', servicePort }) as const
    const directory = {
      '10.0.0.9': { kind: 'node', name: 'n', ports: [leads(30080, 1), leads(30081, 2)] },
      '10.96.0.9': {
        kind: 'service',
        namespace: 'shop',
        name: 'web',
        ports: [
          { protocol: 'TCP', port: 1, backends: [backend(GOOD)] },
          { protocol: 'TCP', port: 2, backends: [backend(BAD)] },
        ],
      },
    } as const
    const result = await review({ flows, directory })
    expect({ asked: result.asked, destroyed: result.destroyed }).toEqual({
      asked: ['10.0.0.9', '10.96.0.9'],
      destroyed: ['10.0.0.9:22', '10.0.0.9:30081'],
    })
  })

  it('finds in its second pass what was released during the first', async () => {
    const late = [flow('10.244.0.4', POD, RELEASED | 2)]
    expect((await review({ rows, flows: [], late })).revoked).toEqual([`10.244.0.4 ${POD}`])
  })

  it('marks what is no TCP without destroying a socket', async () => {
    const result = await review({
      rows,
      flows: [flow('10.244.0.4', POD, RELEASED, 53, 17)],
      directory: { '10.244.0.4': { kind: 'external' } },
    })
    expect({ revoked: result.revoked, destroyed: result.destroyed }).toEqual({
      revoked: [`10.244.0.4 ${POD}`],
      destroyed: [],
    })
  })

  it('does what else waits between its steps, while it lists, judges again and revokes', async () => {
    const { port1, port2 } = new MessageChannel()
    let turns = 0
    port1.on('message', () => {
      turns++
      port2.postMessage('')
    })
    port2.postMessage('')
    const flows = Array.from({ length: 320 }, () => flow('10.244.0.4', POD, RELEASED))
    const result = await review({ flows, directory: { '10.244.0.4': { kind: 'external' } } })
    port1.close()
    expect(result.counts.ingress).toBe(320)
    // One for each connection listed, for each 32 judged and for each 32 revoked.
    expect(turns).toBeGreaterThan(320)
  })

  it('leaves the Pod’s traffic with itself alone', async () => {
    expect((await review({ flows: [flow(POD, POD, RELEASED)] })).revoked).toEqual([])
  })
})
