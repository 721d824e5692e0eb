import { describe, expect, it } from '@jest/globals'
import { API_SERVER_ENVIRONMENT, ENVIRONMENT } from '../../../api/environment.ts'
import { parseCidr } from '../../../policy/address.ts'
import { ControlError } from '../../../sidecar/control/errors.ts'
import { parseSettings } from '../../../sidecar/control/settings.ts'

const VARIABLES = { ...ENVIRONMENT, ...API_SERVER_ENVIRONMENT }
type Key = keyof typeof VARIABLES

const required: Partial<Record<Key, string>> = {
  podNamespace: 'shop',
  podName: 'api-7d9f.x',
  podUid: '0b7c3f6e-4a3b-4c0e-9e0e-1d2f3a4b5c6d',
  nodeName: 'node-1.example',
  podIps: '10.244.0.7,FD00:0:0:0::7',
  hostIps: '192.168.0.2',
  issuerUrl: 'https://10.96.0.20:443',
  issuerName: 'synguard-webhook.synguard-system.svc',
  trustDomain: 'cluster.local',
  policySource: 'api',
  apiServerAddress: '10.96.0.1',
}

function environment(changes: Partial<Record<Key, string | undefined>> = {}): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries({ ...required, ...changes }).map(([key, value]) => [VARIABLES[key as Key], value]),
  )
}

function problemsOf(changes: Partial<Record<Key, string | undefined>>): string {
  try {
    parseSettings(environment(changes))
  } catch (error) {
    if (error instanceof ControlError && error.code === 'settings-invalid') return error.message
    throw error
  }
  return ''
}

const cidrs = (...texts: string[]) => texts.map((text) => parseCidr(text))

describe('settings', () => {
  it('have defaults for all that the webhook may leave out, and canonical addresses', () => {
    expect(parseSettings(environment())).toEqual({
      pod: {
        namespace: 'shop',
        name: 'api-7d9f.x',
        uid: '0b7c3f6e-4a3b-4c0e-9e0e-1d2f3a4b5c6d',
        nodeName: 'node-1.example',
      },
      podAddresses: ['10.244.0.7', 'fd00::7'],
      hostAddresses: ['192.168.0.2'],
      issuer: { address: '10.96.0.20', port: 443, name: 'synguard-webhook.synguard-system.svc' },
      trustDomain: 'cluster.local',
      policySource: { kind: 'api', address: '10.96.0.1', port: 443 },
      clusterNetworks: cidrs('10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'),
      nodeAddresses: [],
      mode: 'enforce',
      peersWithoutIdentity: 'resolve',
      nodeAccess: 'probes',
      refusal: 'reset',
      probePorts: [],
      healthPort: 15900,
      logLevel: 'info',
    })
  })

  it('take every variable', () => {
    const all = environment({
      issuerUrl: 'https://[fd00:10::1]:9443/',
      policySource: 'directory:/var/run/synguard/policies',
      clusterNetworks: '10.244.0.0/16, fd00::/48',
      nodeAddresses: '10.244.0.1,FE80::1',
      mode: 'audit',
      peersWithoutIdentity: 'deny',
      nodeAccess: 'all',
      refusal: 'drop',
      probePorts: 'TCP/8080, UDP/53',
      healthPort: '16000',
      logLevel: 'debug',
    })
    expect(parseSettings(all)).toMatchObject({
      issuer: { address: 'fd00:10::1', port: 9443, name: 'synguard-webhook.synguard-system.svc' },
      policySource: { kind: 'directory', path: '/var/run/synguard/policies' },
      clusterNetworks: cidrs('10.244.0.0/16', 'fd00::/48'),
      nodeAddresses: ['10.244.0.1', 'fe80::1'],
      mode: 'audit',
      peersWithoutIdentity: 'deny',
      nodeAccess: 'all',
      refusal: 'drop',
      probePorts: [
        { protocol: 'TCP', port: 8080 },
        { protocol: 'UDP', port: 53 },
      ],
      healthPort: 16000,
      logLevel: 'debug',
    })
  })

  it('count an empty variable as absent', () => {
    const empty = {
      mode: '',
      healthPort: ' ',
      probePorts: '',
      nodeAddresses: '',
      clusterNetworks: '',
      apiServerPort: '',
    }
    expect(parseSettings(environment(empty))).toEqual(parseSettings(environment()))
  })

  it('take the address of the API server as the kubelet gives it, IPv6 too, and need none for policies from files', () => {
    const six = environment({ apiServerAddress: 'FD00:0:0::1', apiServerPort: '6443' })
    expect(parseSettings(six).policySource).toEqual({ kind: 'api', address: 'fd00::1', port: 6443 })
    const files = environment({ apiServerAddress: undefined, policySource: 'directory:/p' })
    expect(parseSettings(files).policySource).toEqual({ kind: 'directory', path: '/p' })
  })

  it.each(Object.keys(required) as Key[])('refuse to start without %s, and name it', (key) => {
    expect(problemsOf({ [key]: undefined })).toMatch(new RegExp(`^${VARIABLES[key]} is missing: set it to `))
  })

  const bad: readonly [Key, string, string][] = [
    ['podNamespace', 'Shop', 'is "Shop": set it to the field metadata.namespace'],
    ['podName', 'a/b', 'is "a/b": set it to the field metadata.name'],
    ['podUid', 'x y', 'is "x y": set it to the field metadata.uid'],
    ['nodeName', '-', 'is "-": set it to the field spec.nodeName'],
    ['podIps', '10.0.0.256', 'holds "10.0.0.256": separate by commas the IP addresses of the field status.podIPs'],
    ['podIps', '10.0.0.1,', 'holds "": separate by commas'],
    ['hostIps', 'node', 'holds "node": separate by commas the IP addresses of the field status.hostIPs'],
    ['issuerUrl', 'http://10.0.0.1:1', 'is "http://10.0.0.1:1": set it to `https://ADDRESS:PORT`'],
    ['issuerUrl', 'https://issuer:443', 'is "https://issuer:443"'],
    ['issuerUrl', 'https://u:p@10.0.0.1', 'is "https://u:p@10.0.0.1"'],
    ['issuerUrl', 'https://10.0.0.1/path', 'is "https://10.0.0.1/path"'],
    ['issuerUrl', 'https://10.0.0.1:0', 'is "https://10.0.0.1:0"'],
    ['issuerName', 'a..b', 'is "a..b"'],
    ['trustDomain', 'Cluster', 'is "Cluster"'],
    ['policySource', 'directory:policies', 'use `api`, or `directory:` and an absolute path'],
    ['policySource', 'etcd', 'is "etcd"'],
    ['apiServerAddress', 'kubernetes.default', "set it to the address of the API server's Service, and no name"],
    ['apiServerPort', 'https', 'is "https": use a port, 1 to 65535'],
    ['clusterNetworks', '10.0.0.0/33', 'holds "10.0.0.0/33": separate by commas CIDRs'],
    ['nodeAddresses', '10.0.0.0/8', 'holds "10.0.0.0/8": separate by commas IP addresses'],
    ['mode', 'Enforce', 'is "Enforce": use one of enforce, audit, off'],
    ['peersWithoutIdentity', 'allow', 'use one of resolve, deny'],
    ['nodeAccess', 'none', 'use one of probes, all'],
    ['refusal', 'reject', 'use one of reset, drop'],
    ['probePorts', '8080', 'holds "8080": separate by commas ports such as TCP/8080'],
    ['probePorts', 'TCP/0', 'holds "TCP/0"'],
    ['probePorts', 'TCP/80/81', 'holds "TCP/80/81"'],
    ['probePorts', 'tcp/80', 'holds "tcp/80"'],
    ['healthPort', '65536', 'is "65536": use a port, 1 to 65535'],
    ['healthPort', '1e3', 'is "1e3": use a port'],
    ['logLevel', 'verbose', 'use one of trace, debug, info, warn, error'],
  ]
  it.each(bad)('refuse %s = %j with what is wrong and the fix', (key, value, expected) => {
    const problems = problemsOf({ [key]: value })
    expect(problems.startsWith(`${VARIABLES[key]} `)).toBe(true)
    expect(problems).toContain(expected)
  })

  it('name every mistake at once', () => {
    const problems = problemsOf({ mode: 'x', healthPort: 'y', podIps: undefined }).split('; ')
    expect(problems.map((problem) => problem.split(' ')[0])).toEqual([
      'SYNGUARD_HEALTH_PORT',
      'SYNGUARD_POD_IPS',
      'SYNGUARD_MODE',
    ])
  })

  it('show a bounded part of a bad value', () => {
    expect(problemsOf({ mode: 'x'.repeat(10_000) }).length).toBeLessThan(300)
  })
})
