import { describe, expect, it } from '@jest/globals'
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node'
import type { DirectoryEntry, PodIdentity, Protocol, ServicePort } from '../../../api/identity.ts'
import { isGuarded } from '../../../webhook/admission/pod.ts'
import { createDirectory } from '../../../webhook/directory/directory.ts'
import { createMemoryCluster } from '../../../webhook/memory-cluster.ts'
import { guardedPod, NAMESPACE_LABELS, namespace, plainPod } from './fixtures.ts'

function setUp() {
  const cluster = createMemoryCluster({ now: () => 0 })
  cluster.put('Namespace', namespace())
  const directory = createDirectory({ cluster, isGuarded })
  return { cluster, directory }
}

function service(spec: Partial<V1Service['spec']> = {}, name = 'web'): V1Service {
  return {
    metadata: { name, namespace: 'shop' },
    spec: {
      clusterIPs: ['10.96.0.10', 'fd00:96::10'],
      selector: { app: 'web' },
      ports: [{ port: 80, targetPort: 'http' }],
      ...spec,
    },
  }
}

function slice(changes: Partial<V1EndpointSlice>, name = 'web-1'): V1EndpointSlice {
  return {
    metadata: { name, namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    ports: [{ port: 8080 }],
    ...changes,
  }
}

function node(address = '10.0.0.1', name = 'node-1'): V1Node {
  return { metadata: { name }, status: { addresses: [{ type: 'InternalIP', address }] } }
}

const WEB: PodIdentity = {
  namespace: 'shop',
  name: 'web',
  uid: 'uid-web',
  serviceAccount: 'web',
  labels: { app: 'web' },
  namespaceLabels: NAMESPACE_LABELS,
  addresses: ['10.244.0.5', 'fd00:244::5'],
  ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
}
const ADDRESSES = { addresses: ['10.244.0.5', 'fd00:244::5'] }
function portsOf(entry: DirectoryEntry): readonly ServicePort[] {
  if (entry.kind !== 'service') throw new Error(`${entry.kind} is no Service`)
  return entry.ports
}

describe('an address of a Pod', () => {
  it('names the Pod, guarded by its spec and never by what it says of itself', () => {
    const { cluster, directory } = setUp()
    cluster.put('Pod', guardedPod(ADDRESSES))
    const guarded: DirectoryEntry = { kind: 'pod', guarded: true, pod: WEB }
    expect([directory.lookup('10.244.0.5'), directory.lookup('fd00:244::5')]).toEqual([guarded, guarded])
    const annotations = { 'synguard.io/status': 'injected' }
    cluster.put('Pod', plainPod({ ...ADDRESSES, annotations }))
    expect(directory.lookup('10.244.0.5')).toEqual({ kind: 'pod', guarded: false, pod: WEB })
  })

  it('is canonical, however the status writes it', () => {
    const { cluster, directory } = setUp()
    cluster.put('Pod', plainPod({ addresses: ['FD00:244:0:0::5'] }))
    expect(directory.lookup('fd00:244::5')).toMatchObject({ kind: 'pod', pod: { addresses: ['fd00:244::5'] } })
  })

  it('matches nothing while two live Pods claim it', () => {
    const { cluster, directory } = setUp()
    cluster.put('Pod', plainPod(ADDRESSES))
    cluster.put('Pod', plainPod({ ...ADDRESSES, name: 'other' }))
    expect(directory.lookup('10.244.0.5').kind).toBe('unmatched')
    cluster.put('Pod', plainPod({ ...ADDRESSES, name: 'other', phase: 'Succeeded' }))
    expect(directory.lookup('10.244.0.5')).toMatchObject({ kind: 'pod', pod: WEB })
  })

  it.each([
    ['Succeeded', { phase: 'Succeeded' }],
    ['Failed', { phase: 'Failed' }],
    ['on the host network', { hostNetwork: true }],
    ['of an unknown namespace', { namespace: 'nowhere' }],
  ])('matches nothing for a Pod that is %s', (_, changes) => {
    const { cluster, directory } = setUp()
    cluster.put('Pod', plainPod({ ...ADDRESSES, ...changes }))
    expect(directory.lookup('10.244.0.5').kind).toBe('unmatched')
  })

  it('is external before the Pod has it and after the Pod is gone', () => {
    const { cluster, directory } = setUp()
    cluster.put('Pod', plainPod({ addresses: [] }))
    const kinds = [directory.lookup('10.244.0.5').kind]
    cluster.put('Pod', plainPod(ADDRESSES))
    kinds.push(directory.lookup('10.244.0.5').kind)
    cluster.delete('Pod', 'web', 'shop')
    kinds.push(directory.lookup('10.244.0.5').kind)
    expect(kinds).toEqual(['external', 'pod', 'external'])
  })
})

describe('an address of a node', () => {
  it('names the node, also where host network Pods or Services share it', () => {
    const { cluster, directory } = setUp()
    cluster.put('Node', node())
    cluster.put('Pod', plainPod({ addresses: ['10.0.0.1'], hostNetwork: true }))
    cluster.put('Service', service({ externalIPs: ['10.0.0.1'] }))
    expect(directory.lookup('10.0.0.1')).toEqual({ kind: 'node', name: 'node-1', ports: [] })
  })

  it('matches nothing where an ordinary Pod claims it', () => {
    const { cluster, directory } = setUp()
    cluster.put('Node', node())
    cluster.put('Pod', plainPod({ addresses: ['10.0.0.1'] }))
    expect(directory.lookup('10.0.0.1').kind).toBe('unmatched')
  })
})

describe('the ports of a node', () => {
  const at = (port: number, servicePort: number, protocol: Protocol = 'TCP', serviceAddress = '10.96.0.10') => ({
    protocol,
    port,
    serviceAddress,
    servicePort,
  })
  const withNodePorts = (changes: Partial<V1Service['spec']> = {}, name = 'web') =>
    service({ type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }], ...changes }, name)

  function portsOfNode(...services: V1Service[]) {
    const { cluster, directory } = setUp()
    for (const address of ['10.0.0.1', 'fd00::1']) cluster.put('Node', node(address, `node-${address}`))
    for (const one of services) cluster.put('Service', one)
    return ['10.0.0.1', 'fd00::1'].map((address) => {
      const entry = directory.lookup(address)
      return entry.kind === 'node' ? entry.ports : entry.kind
    })
  }

  it('lead to the Service’s cluster address of the same family, each by protocol and number', () => {
    const ports = [
      { name: 'a', port: 53, nodePort: 30053, protocol: 'TCP' },
      { name: 'b', port: 53, nodePort: 30053, protocol: 'UDP' },
      { name: 'c', port: 81, targetPort: 'http', nodePort: 30081 },
    ]
    const ofFamily = (address: string) => [
      at(30053, 53, 'TCP', address),
      at(30053, 53, 'UDP', address),
      at(30081, 81, 'TCP', address),
    ]
    expect(portsOfNode(withNodePorts({ ports }))).toEqual([ofFamily('10.96.0.10'), ofFamily('fd00:96::10')])
  })

  it('are those of load balancers too, whatever the traffic policy; never the port of the health check', () => {
    const local = { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 30999 }
    expect(portsOfNode(withNodePorts({ ...local, clusterIPs: ['10.96.0.10'] }))).toEqual([[at(30080, 80)], []])
  })

  it('are none of a Service without node ports, nor one that two Services claim', () => {
    const plain = service({ ports: [{ port: 80 }] }, 'plain')
    const unallocated = withNodePorts({ type: 'LoadBalancer', ports: [{ port: 80 }] }, 'unallocated')
    const clusterOnly = withNodePorts({ type: 'ClusterIP' }, 'left-over')
    expect(portsOfNode(plain, unallocated, clusterOnly)).toEqual([[], []])
    expect(portsOfNode(withNodePorts(), withNodePorts({ clusterIPs: ['10.96.0.11'] }, 'other'))).toEqual([
      [],
      [at(30080, 80, 'TCP', 'fd00:96::10')],
    ])
  })

  it('are more than an entry can list: then the node’s address matches nothing', () => {
    const ports = Array.from({ length: 8_001 }, (_, index) => ({ port: 80, nodePort: 20_000 + index }))
    expect(portsOfNode(withNodePorts({ ports }))).toEqual(['unmatched', 'unmatched'])
    const longest = withNodePorts({
      clusterIPs: ['fd00:1111:2222:3333:4444:5555:6666:7777'],
      ports: ports.slice(1).map((one) => ({ ...one, port: 65_535, protocol: 'SCTP' })),
    })
    // The sidecar takes lines of 1 MiB.
    expect(JSON.stringify(portsOfNode(longest)).length).toBeLessThan(1_000_000)
  })

  it('are told of where they change, and not where something else of their Service does', () => {
    const { cluster, directory } = setUp()
    cluster.put('Node', node())
    const heard: string[] = []
    directory.subscribe((addresses) => heard.push(...addresses))
    const during = (change: () => void) => {
      heard.length = 0
      change()
      return heard.filter((address) => address === '10.0.0.1').length
    }
    const counts = [
      during(() => cluster.put('Service', withNodePorts())),
      during(() => cluster.put('Service', withNodePorts({ selector: { app: 'other' } }))),
      during(() => cluster.put('Service', withNodePorts({ ports: [{ port: 81, nodePort: 30080 }] }))),
      during(() => cluster.put('Service', service())),
      during(() => cluster.put('Service', withNodePorts())),
      during(() => cluster.delete('Service', 'web', 'shop')),
    ]
    expect(counts).toEqual([1, 0, 1, 1, 1, 1])
    expect(directory.lookup('10.0.0.1')).toEqual({ kind: 'node', name: 'node-1', ports: [] })
  })
})

describe('an address of a Service', () => {
  it('leads to the ready Pods of its selector where it has no EndpointSlices, by family', () => {
    const { cluster, directory } = setUp()
    cluster.put('Service', service())
    cluster.put('Pod', plainPod(ADDRESSES))
    cluster.put('Pod', plainPod({ name: 'late', labels: { app: 'web' }, addresses: ['10.244.0.6'], ready: false }))
    cluster.put('Pod', plainPod({ name: 'other', addresses: ['10.244.0.7'] }))
    const at = (address: string) => ({
      kind: 'service',
      namespace: 'shop',
      name: 'web',
      ports: [{ protocol: 'TCP', port: 80, backends: [{ address, port: 8080, guarded: false, pod: WEB }] }],
    })
    expect(directory.lookup('10.96.0.10')).toEqual(at('10.244.0.5'))
    expect(directory.lookup('fd00:96::10')).toEqual(at('fd00:244::5'))
  })

  it('is known by cluster, external and load balancer addresses; headless Services have none', () => {
    const { cluster, directory } = setUp()
    const balanced = service({ externalIPs: ['198.51.100.7'] })
    cluster.put('Service', { ...balanced, status: { loadBalancer: { ingress: [{ ip: '203.0.113.7' }] } } })
    cluster.put('Service', service({ clusterIP: 'None', clusterIPs: ['None'] }, 'headless'))
    const kinds = ['10.96.0.10', '198.51.100.7', '203.0.113.7'].map((address) => directory.lookup(address).kind)
    expect(kinds).toEqual(['service', 'service', 'service'])
  })

  it('is none of an ExternalName Service: what DNS says of its name is judged as whatever it is', () => {
    const { cluster, directory } = setUp()
    cluster.put('Pod', plainPod(ADDRESSES))
    cluster.put('Service', service({ type: 'ExternalName', clusterIPs: [], externalName: '10.244.0.5' }))
    expect(directory.lookup('10.244.0.5')).toEqual({ kind: 'pod', guarded: false, pod: WEB })
  })

  it('resolves targetPort for each backend, leaving out Pods that do not name it', () => {
    const { cluster, directory } = setUp()
    cluster.put(
      'Service',
      service({
        ports: [
          { name: 'a', port: 80, targetPort: 'http' },
          { name: 'b', port: 81, targetPort: 9090 },
          { name: 'c', port: 82 },
          { name: 'd', port: 53, targetPort: 'http', protocol: 'UDP' },
        ],
      }),
    )
    cluster.put('Pod', plainPod(ADDRESSES))
    const moved = plainPod({ name: 'moved', labels: { app: 'web' }, addresses: ['10.244.0.6'] })
    moved.spec.containers = [{ name: 'app', ports: [{ name: 'http', containerPort: 8181 }] }]
    cluster.put('Pod', moved)
    const ports = portsOf(directory.lookup('10.96.0.10'))
    expect(ports.map((port) => port.backends.map((b) => `${b.address}:${b.port}`))).toEqual([
      ['10.244.0.5:8080', '10.244.0.6:8181'],
      ['10.244.0.5:9090', '10.244.0.6:9090'],
      ['10.244.0.5:82', '10.244.0.6:82'],
      [],
    ])
  })

  it('follows EndpointSlices where there are any, and the Pods that really have their addresses', () => {
    const { cluster, directory } = setUp()
    cluster.put('Service', service({ ports: [{ port: 80 }] }))
    cluster.put('Pod', guardedPod(ADDRESSES))
    cluster.put('Pod', plainPod({ name: 'unlisted', labels: { app: 'web' }, addresses: ['10.244.0.6'] }))
    const forged = { kind: 'Pod', name: 'unlisted', namespace: 'shop' }
    cluster.put(
      'EndpointSlice',
      slice({
        endpoints: [
          { addresses: ['10.244.0.5'], conditions: { ready: true }, targetRef: forged },
          { addresses: ['203.0.113.9'], targetRef: forged },
          { addresses: ['10.244.0.6'], conditions: { ready: false, serving: true, terminating: true } },
          { addresses: ['not an address'] },
        ],
      }),
    )
    cluster.put('EndpointSlice', slice({ addressType: 'IPv6', endpoints: [{ addresses: ['fd00:244::5'] }] }, 'web-2'))
    expect(portsOf(directory.lookup('10.96.0.10'))).toEqual([
      {
        protocol: 'TCP',
        port: 80,
        backends: [
          { address: '10.244.0.5', port: 8080, guarded: true, pod: WEB },
          { address: '203.0.113.9', port: 8080, guarded: false },
        ],
      },
    ])
  })

  it('falls back to terminating endpoints that serve where none is ready', () => {
    const { cluster, directory } = setUp()
    cluster.put('Service', service({ ports: [{ port: 80 }] }))
    const conditions = { ready: false, serving: true, terminating: true }
    cluster.put('EndpointSlice', slice({ endpoints: [{ addresses: ['10.244.0.5'], conditions }] }))
    expect(portsOf(directory.lookup('10.96.0.10'))).toEqual([
      { protocol: 'TCP', port: 80, backends: [{ address: '10.244.0.5', port: 8080, guarded: false }] },
    ])
  })

  it('matches nothing where two Services, or a Pod and a Service, have it', () => {
    const { cluster, directory } = setUp()
    cluster.put('Service', service())
    cluster.put('Service', service({ externalIPs: ['10.244.0.5'], clusterIPs: ['10.96.0.10'] }, 'other'))
    cluster.put('Pod', plainPod(ADDRESSES))
    const kinds = ['10.96.0.10', '10.244.0.5'].map((address) => directory.lookup(address).kind)
    expect(kinds).toEqual(['unmatched', 'unmatched'])
  })

  it('matches nothing where it has more backends than an entry can list', () => {
    const { cluster, directory } = setUp()
    cluster.put('Service', service({ ports: [{ port: 80 }] }))
    const endpoints = Array.from({ length: 1_001 }, (_, n) => ({ addresses: [`10.1.${n >> 8}.${n & 255}`] }))
    cluster.put('EndpointSlice', slice({ endpoints }))
    expect(directory.lookup('10.96.0.10').kind).toBe('unmatched')
  })
})

describe('subscribe', () => {
  it('names each address whose entry a change may alter, before and after it', () => {
    const { cluster, directory } = setUp()
    const heard: string[][] = []
    directory.subscribe((addresses) => heard.push([...addresses].sort()))
    const during = (change: () => void) => {
      heard.length = 0
      change()
      return heard.flat()
    }
    const endpoints = [{ addresses: ['10.244.0.5'] }]
    expect(during(() => cluster.put('Pod', plainPod(ADDRESSES)))).toEqual(['10.244.0.5', 'fd00:244::5'])
    expect(during(() => cluster.put('Service', service()))).toEqual(['10.96.0.10', 'fd00:96::10'])
    expect(during(() => cluster.put('EndpointSlice', slice({ endpoints })))).toEqual(['10.96.0.10', 'fd00:96::10'])
    expect(during(() => cluster.put('Pod', plainPod({ addresses: ['10.244.0.8'] })))).toEqual([
      '10.244.0.5',
      '10.244.0.8',
      '10.96.0.10',
      'fd00:244::5',
      'fd00:96::10',
    ])
    expect(during(() => cluster.put('Namespace', namespace('shop', { team: 'a' })))).toEqual([
      '10.244.0.8',
      '10.96.0.10',
      'fd00:96::10',
    ])
    expect(during(() => cluster.put('Node', node()))).toEqual(['10.0.0.1'])
    expect(during(() => cluster.put('Node', node('10.0.0.2')))).toEqual(['10.0.0.1', '10.0.0.2'])
    expect(during(() => cluster.put('Namespace', namespace('elsewhere')))).toEqual([])
    expect(during(() => cluster.delete('Service', 'web', 'shop'))).toEqual(['10.96.0.10', 'fd00:96::10'])
  })

  it('knows what the cluster held before the directory was made', () => {
    const { cluster } = setUp()
    cluster.put('Pod', plainPod(ADDRESSES))
    cluster.put('Service', service())
    const directory = createDirectory({ cluster, isGuarded })
    expect([directory.lookup('10.244.0.5').kind, directory.lookup('10.96.0.10').kind]).toEqual(['pod', 'service'])
  })
})
