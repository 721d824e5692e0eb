import { describe, expect, it } from '@jest/globals'
import { type PathFacts, seen, unseen } from '../../../../cli/check/facts.ts'
import { readConfigMap, readNodes, readPods } from '../../../../cli/check/kube-proxy.ts'
import { guarded, lines, namespace } from './facts.ts'

const CONFIGURATION = (fields: string) => ({
  metadata: { name: 'kube-proxy' },
  data: {
    'kubeconfig.conf': 'apiVersion: v1\nkind: Config\n',
    'config.conf': `apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n${fields}`,
  },
})
const SOURCE = 'ConfigMap kube-system/kube-proxy'

describe("kube-proxy's ConfigMap", () => {
  it.each([
    ['iptables: {masqueradeAll: true}', true, []],
    ['mode: ""\nclusterCIDR: 10.244.0.0/16,fd00::/56', false, ['10.244.0.0/16', 'fd00::/56']],
    ['mode: nftables\nnftables: {masqueradeAll: true}', true, []],
    ['mode: nftables\niptables: {masqueradeAll: false}\nnftables: null', false, []],
    ['mode: ipvs\niptables: {masqueradeAll: true}\nipvs: {strictARP: true}', true, []],
    ['detectLocalMode: NodeCIDR\nclusterCIDR: 10.244.0.0/16', false, []],
  ])('with %j', (fields, masqueradeAll, clusterCidrs) => {
    expect(readConfigMap(CONFIGURATION(fields))).toEqual({ source: SOURCE, masqueradeAll, clusterCidrs })
  })

  it('with something else in it says nothing', () => {
    expect(readConfigMap({ data: { a: 'kind: Config', b: ': {', c: '' } })).toBeUndefined()
    expect(readConfigMap(undefined)).toBeUndefined()
  })
})

describe("kube-proxy's flags", () => {
  const running = (command: string[]) => [
    { metadata: { name: 'kube-proxy-a' }, spec: { containers: [{ name: 'p', command }] } },
  ]

  it.each([
    [['kube-proxy', '--masquerade-all'], true, []],
    [['kube-proxy', '--masquerade-all', '--v=2'], true, []],
    [['kube-proxy', '--masquerade-all=false', '--cluster-cidr=10.0.0.0/8'], false, ['10.0.0.0/8']],
    [
      ['/bin/sh', '-c', 'exec kube-proxy --cluster-cidr 10.0.0.0/8 --masquerade-all=true 1>>/log'],
      true,
      ['10.0.0.0/8'],
    ],
    [['kube-proxy', '--cluster-cidr=10.0.0.0/8', '--detect-local-mode=NodeCIDR'], false, []],
  ])('%j', (command, masqueradeAll, clusterCidrs) => {
    expect(readPods(running(command))).toEqual({ source: 'Pod kube-system/kube-proxy-a', masqueradeAll, clusterCidrs })
  })

  it('that name a configuration file say nothing of what is in it', () => {
    expect(readPods(running(['kube-proxy', '--config=/var/lib/kube-proxy/config.conf']))).toBeUndefined()
  })
})

describe("k3s' arguments on its nodes", () => {
  const nodes = (text: string) => [
    { metadata: { name: 'a', annotations: { 'k3s.io/node-args': text } } },
    { metadata: {} },
  ]

  it.each([
    ['["server","--disable","traefik"]', false],
    ['["server","--kube-proxy-arg","masquerade-all=true"]', true],
    ['["server","--kube-proxy-arg=masquerade-all"]', true],
  ])('%s', (text, masqueradeAll) => {
    expect(readNodes(nodes(text))).toMatchObject({ masqueradeAll })
  })

  it('are not there elsewhere', () => {
    expect(readNodes([{ metadata: { name: 'a' } }])).toBeUndefined()
  })
})

describe('source-translation', () => {
  const none = seen<PathFacts[]>([])
  const configured = (proxy: { masqueradeAll?: boolean; clusterCidrs?: string[] }) =>
    lines('source-translation', {
      cluster: { kubeProxy: seen({ source: SOURCE, masqueradeAll: false, clusterCidrs: [], ...proxy }) },
      pods: { paths: none },
    })
  const path = (seenAs: PathFacts['seenAs']): PathFacts => ({
    path: 'a to b',
    through: 'a Service',
    from: ['10.244.0.5'],
    seenAs,
  })

  it('is found in the configuration', () => {
    expect(configured({})).toEqual([`ok ${SOURCE} masquerades nothing between Pods`])
    expect(configured({ masqueradeAll: true })[0]).toMatch(
      /^fix ConfigMap kube-system\/kube-proxy has masqueradeAll on/,
    )
  })

  it('is found where Pods have addresses outside of clusterCIDR', () => {
    const pods = [{ ...guarded('a'), status: { phase: 'Running', podIPs: [{ ip: '10.9.0.5' }, { ip: 'fd00::5' }] } }]
    const at = (clusterCidrs: string[]) =>
      lines('source-translation', {
        cluster: { kubeProxy: seen({ source: SOURCE, masqueradeAll: false, clusterCidrs }) },
        namespaces: seen([namespace(pods)]),
        pods: { paths: none },
      })[0]
    expect(at(['10.244.0.0/16'])).toMatch(
      /^fix .* has clusterCIDR 10.244.0.0\/16, and Pods have 10.9.0.5: Services hide/,
    )
    expect(at(['10.9.0.0/16'])).toMatch(/^ok/)
    expect(at(['10.9.0.0/16', 'fd01::/64'])).toMatch(/Pods have fd00::5/)
  })

  it('is found by Pods, whatever the configuration says', () => {
    const tried = (seenAs: PathFacts['seenAs']) =>
      lines('source-translation', { pods: { paths: seen([path(seenAs)]) } })
    expect(tried(seen('10.244.0.1'))[0]).toMatch(
      /^fix a to b, through a Service: 10.244.0.5 was seen as 10.244.0.1, so sidecars refuse/,
    )
    expect(tried(seen('10.244.0.5'))[0]).toMatch(/^ok Pods are seen by their own addresses/)
    expect(tried(unseen('ETIMEDOUT'))[0]).toMatch(/^ok ConfigMap/)
  })

  it('is said not to be seen where neither could', () => {
    const kubeProxy = unseen('nothing says how kube-proxy is configured')
    expect(
      lines('source-translation', { cluster: { kubeProxy }, pods: { paths: unseen('--no-pods was given') } }),
    ).toEqual([
      'unseen source translation between Pods could not be seen: nothing says how kube-proxy is configured; --no-pods was given',
    ])
    const lost = seen([path(unseen('ETIMEDOUT'))])
    expect(lines('source-translation', { cluster: { kubeProxy }, pods: { paths: lost } })).toEqual([
      'unseen source translation between Pods could not be seen: nothing says how kube-proxy is configured; no Pod reached another: ETIMEDOUT',
    ])
  })
})

describe('kernel and guarded-pod', () => {
  it('tell what Pods found out, kernel by kernel', () => {
    const common = { kernel: '5.4.0 arm64', node: 'old', nodes: 3 }
    const reason = 'container synguard-init ended with 1: neither iptables-nft nor iptables-legacy'
    const kernels = seen([{ ...common, run: { kind: 'failed', reason } as const }])
    expect(lines('kernel', { pods: { kernels } })).toEqual([
      `fix kernel 5.4.0 arm64 (3 nodes, tried on old): ${reason}`,
    ])
    const well = { kind: 'succeeded', seconds: 1, log: 'by iptables-nft, IPv4 and IPv6' } as const
    expect(lines('kernel', { pods: { kernels: seen([{ ...common, run: well }]) } })).toEqual([
      'ok kernel 5.4.0 arm64 (3 nodes, tried on old): takes the rules, by iptables-nft, IPv4 and IPv6',
    ])
    expect(lines('kernel', { pods: { kernels: seen([]) } })[0]).toMatch(/^unseen/)
  })

  it('say why nothing was run', () => {
    const left = unseen('--no-pods was given')
    expect(lines('kernel', { pods: { kernels: left } })).toEqual([
      'unseen the features of the kernel could not be seen: --no-pods was given',
    ])
    expect(lines('guarded-pod', { pods: { guarded: left } })[0]).toMatch(/^unseen whether a guarded Pod starts/)
    const failed = seen({ kind: 'failed', reason: 'it got no sidecar' } as const)
    expect(lines('guarded-pod', { pods: { guarded: failed } })).toEqual([
      'fix a guarded Pod does not come up: it got no sidecar',
    ])
  })
})
