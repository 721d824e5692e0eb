import { describe, expect, it } from '@jest/globals'
import type { V1Pod, V1Service } from '@kubernetes/client-node'
import { serviceEndpoints } from '../../../lab/endpoints.ts'
import { serviceRules } from '../../../lab/services.ts'

function pod(name: string, ready: 'True' | 'False', ip: string, port: number): V1Pod {
  return {
    metadata: { namespace: 'n', name, labels: { app: 'a' } },
    spec: { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: port, protocol: 'TCP' }] }] },
    status: { podIPs: [{ ip }], conditions: [{ type: 'Ready', status: ready }] },
  }
}

function service(spec: V1Service['spec']): V1Service {
  return { metadata: { namespace: 'n', name: 's' }, spec: { clusterIPs: ['10.96.0.9'], ...spec } }
}

describe('Service endpoints', () => {
  const pods = [
    pod('a', 'True', '10.244.0.2', 80),
    pod('b', 'True', '10.244.0.3', 8080),
    pod('c', 'False', '10.244.0.4', 80),
  ]

  it("a named targetPort is each Pod's own, and Pods that are not ready take no part", () => {
    const ports = [{ port: 80, targetPort: 'http' }]
    expect(serviceEndpoints([service({ selector: { app: 'a' }, ports })], pods)).toEqual([
      {
        name: 'n/s:',
        clusterIps: ['10.96.0.9'],
        protocol: 'TCP',
        port: 80,
        endpoints: [
          { address: '10.244.0.2', port: 80 },
          { address: '10.244.0.3', port: 8080 },
        ],
      },
    ])
  })

  it('a Service without selector selects nothing, a headless one is not proxied', () => {
    const ports = [{ port: 80 }]
    expect(serviceEndpoints([service({ ports })], pods).map(({ endpoints }) => endpoints)).toEqual([[]])
    expect(serviceEndpoints([service({ clusterIP: 'None', selector: { app: 'a' }, ports })], pods)).toEqual([])
  })
})

describe('Service rules', () => {
  const rules = (family: 4 | 6) =>
    serviceRules(
      [
        {
          name: 'n/s:',
          clusterIps: ['10.96.0.9', 'fd00:10:96::9'],
          protocol: 'TCP',
          port: 80,
          endpoints: [
            { address: '10.244.0.2', port: 8080 },
            { address: 'fd00:10:244::2', port: 8080 },
            { address: '10.244.0.3', port: 8080 },
          ],
        },
        { name: 'n/empty:', clusterIps: ['10.96.0.10'], protocol: 'UDP', port: 53, endpoints: [] },
      ],
      family,
    ).split('\n')

  it('each endpoint is as likely as the others, and only a hairpin is masqueraded', () => {
    const withoutHashes = rules(4)
      .filter((line) => /KUBE-(SVC|SEP)|10\.96/.test(line))
      .map((line) => line.replaceAll(/(KUBE-SVC|KUBE-SEP)-[0-9A-F]{16}/g, '$1'))
    expect(withoutHashes).toEqual([
      '-A KUBE-SERVICES -d 10.96.0.10/32 -p udp --dport 53 -j REJECT',
      ':KUBE-SVC - [0:0]',
      '-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp --dport 80 -j KUBE-SVC',
      ':KUBE-SEP - [0:0]',
      '-A KUBE-SVC -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP',
      '-A KUBE-SEP -s 10.244.0.2/32 -j KUBE-MARK-MASQ',
      '-A KUBE-SEP -p tcp -j DNAT --to-destination 10.244.0.2:8080',
      ':KUBE-SEP - [0:0]',
      '-A KUBE-SVC -j KUBE-SEP',
      '-A KUBE-SEP -s 10.244.0.3/32 -j KUBE-MARK-MASQ',
      '-A KUBE-SEP -p tcp -j DNAT --to-destination 10.244.0.3:8080',
    ])
  })

  it('a node port leads to the same endpoints, masqueraded unless its traffic policy is Local', () => {
    const ports = [{ port: 80, nodePort: 30_080, protocol: 'TCP' }]
    const pods = [pod('a', 'True', '10.244.0.2', 80)]
    const rulesOf = (externalTrafficPolicy: string) =>
      serviceRules(serviceEndpoints([service({ selector: { app: 'a' }, ports, externalTrafficPolicy })], pods), 4)
        .split('\n')
        .filter((line) => line.includes('KUBE-NODEPORTS'))
        .map((line) => line.replace(/-[0-9A-F]{16}/, ''))
    const local = ['-A KUBE-NODEPORTS -p tcp --dport 30080 -j KUBE-SVC']
    const chain = ':KUBE-NODEPORTS - [0:0]'
    const entry = '-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS'
    expect(rulesOf('Local')).toEqual([chain, ...local, entry])
    expect(rulesOf('Cluster')).toEqual([
      chain,
      '-A KUBE-NODEPORTS -p tcp --dport 30080 -j KUBE-MARK-MASQ',
      ...local,
      entry,
    ])
  })

  it('IPv6 gets its own endpoints, in brackets', () => {
    expect(
      rules(6)
        .filter((line) => line.includes('DNAT'))
        .map((line) => line.split(' ').at(-1)),
    ).toEqual(['[fd00:10:244::2]:8080'])
    expect(rules(6).filter((line) => line.includes('10.'))).toEqual([])
  })

  it('INVALID is dropped in FORWARD before anything is accepted', () => {
    const forward = rules(4).filter((line) => line.startsWith('-A KUBE-FORWARD'))
    expect(forward[0]).toBe('-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP')
  })
})
