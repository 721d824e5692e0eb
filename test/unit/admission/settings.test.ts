import { describe, expect, it } from '@jest/globals'
import { AdmissionError } from '../../../webhook/admission/errors.ts'
import { DEFAULT_INJECTION_SETTINGS, parseInjectionSettings } from '../../../webhook/admission/settings.ts'

const LEAST = { image: 'synguard/sidecar:1', issuerUrl: 'https://10.96.0.20:8443', issuerName: 'synguard.synguard.svc' }

function errorOf(run: () => unknown): unknown {
  try {
    return run()
  } catch (error) {
    return error instanceof AdmissionError ? `${error.code}: ${error.message}` : error
  }
}

describe('parseInjectionSettings', () => {
  it('fills in every default', () => {
    expect(parseInjectionSettings(LEAST)).toEqual({ ...DEFAULT_INJECTION_SETTINGS, ...LEAST })
  })

  it('takes every field', () => {
    const all = {
      ...LEAST,
      imagePullPolicy: 'Never',
      trustDomain: 'example.org',
      clusterNetworks: ['10.244.0.0/16', 'fd00:10:244::/64'],
      nodeAddresses: ['10.244.0.1', 'fd00::1'],
      policySource: { kind: 'directory', hostPath: '/srv/policies' },
      healthPort: 16000,
      logLevel: 'debug',
      resources: { cpuRequest: '10m', cpuLimit: '1', memoryRequest: '64Mi', memoryLimit: '128Mi' },
      namespaceLabel: { key: 'e2e-run' },
      defaults: { mode: 'audit', peersWithoutIdentity: 'deny', nodeAccess: 'all', refusal: 'drop' },
      tokenExpirationSeconds: 600,
      command: { init: ['/n', 'i'], sidecar: ['/n', 's'] },
    }
    expect(parseInjectionSettings(all)).toEqual(all)
  })

  it('keeps the port of an issuer on 443, and brackets of IPv6', () => {
    expect(parseInjectionSettings({ ...LEAST, issuerUrl: 'https://[fd00::5]' }).issuerUrl).toBe('https://[fd00::5]:443')
  })

  it('starts Node so that no signal opens its inspector', () => {
    const { command } = DEFAULT_INJECTION_SETTINGS
    expect([command.init[1], command.sidecar[1]]).toEqual(['--disable-sigusr1', '--disable-sigusr1'])
  })

  it.each([
    [{ image: undefined }, 'image must be an image reference'],
    [{ image: 'a b' }, 'image must be an image reference'],
    [
      { issuerUrl: 'https://synguard.svc:8443' },
      'issuerUrl must be https://ADDRESS:PORT with an IP address, so that sidecars need no DNS',
    ],
    [
      { issuerUrl: 'http://10.0.0.1:80' },
      'issuerUrl must be https://ADDRESS:PORT with an IP address, so that sidecars need no DNS',
    ],
    [{ issuerName: 'UPPER' }, "issuerName must be the DNS name in the issuer's certificate"],
    [{ clusterNetworks: ['10.0.0.0/33'] }, 'clusterNetworks[0] must be a CIDR'],
    [{ clusterNetworks: '10.0.0.0/8' }, 'clusterNetworks must be a list'],
    [{ clusterNetworks: ['10.0.0.0/08'] }, 'clusterNetworks[0] must be a CIDR'],
    [{ nodeAddresses: ['fe80::1%eth0'] }, 'nodeAddresses[0] must be an IP address'],
    [{ issuerName: 'a..b' }, "issuerName must be the DNS name in the issuer's certificate"],
    [{ nodeAddresses: ['node-1'] }, 'nodeAddresses[0] must be an IP address'],
    [{ policySource: { kind: 'directory' } }, 'policySource.hostPath must be an absolute path without ".."'],
    [
      { policySource: { kind: 'directory', hostPath: '/a/../b' } },
      'policySource.hostPath must be an absolute path without ".."',
    ],
    [{ policySource: { kind: 'git' } }, 'policySource.kind must be one of api, directory'],
    [{ healthPort: 80 }, 'healthPort must be a whole number from 1024 to 65535'],
    [{ logLevel: 'loud' }, 'logLevel must be one of trace, debug, info, warn, error'],
    [
      { resources: { cpuLimit: 'lots' } },
      'resources.cpuLimit must be a Kubernetes quantity above zero, such as 25m or 64Mi',
    ],
    [{ resources: { memoryRequest: '1Gi' } }, 'resources.memoryRequest must not be above resources.memoryLimit'],
    [{ namespaceLabel: { value: 'x' } }, 'namespaceLabel.key must be a label key'],
    [{ defaults: { mode: 'on' } }, 'defaults.mode must be one of enforce, audit, off'],
    [{ tokenExpirationSeconds: 60 }, 'tokenExpirationSeconds must be a whole number from 600 to 4294967296'],
    [{ command: { init: [] } }, 'command.init must name a program'],
    [
      { resources: { cpu: '1' } },
      'resources.cpu is unknown; known fields are cpuRequest, cpuLimit, memoryRequest, memoryLimit',
    ],
  ])('refuses %j', (change, message) => {
    expect(errorOf(() => parseInjectionSettings({ ...LEAST, ...change }))).toBe(
      `bad-setting: injection settings: ${message}`,
    )
  })

  it('refuses what is no object', () => {
    expect(errorOf(() => parseInjectionSettings(null))).toBe(
      'bad-setting: injection settings: settings must be an object',
    )
  })
})
