import { describe, expect, it } from '@jest/globals'
import { DEFAULT_INJECTION_SETTINGS } from '../../../webhook/admission/settings.ts'
import { parseInstallation } from '../../../webhook/installation.ts'
import { DEFAULT_WEBHOOK_SETTINGS } from '../../../webhook/settings.ts'

const ENVIRONMENT = { SYNGUARD_NAMESPACE: 'synguard-system', SYNGUARD_POD_NAME: 'webhook-1' }
const LEAST = 'injection: {image: "synguard/sidecar:1"}'
const URL = 'https://10.96.0.20:443'

describe('parseInstallation', () => {
  it('needs the image and the namespace, and has a default for all else', () => {
    const { injection, ...rest } = parseInstallation(LEAST, ENVIRONMENT)
    expect(rest).toEqual({
      namespace: 'synguard-system',
      replica: 'webhook-1',
      logLevel: 'info',
      names: {
        service: 'synguard-webhook',
        secret: 'synguard-authority',
        webhookConfiguration: 'synguard',
        voids: 'synguard-voids',
        register: 'synguard-issued',
      },
      webhook: { ...DEFAULT_WEBHOOK_SETTINGS, issuer: 'https://synguard-webhook.synguard-system.svc' },
      certificateNames: [],
      certificateAddresses: [],
      drainMs: 5_000,
      rotateEverySeconds: {},
    })
    expect(injection(URL)).toEqual({
      ...DEFAULT_INJECTION_SETTINGS,
      image: 'synguard/sidecar:1',
      issuerUrl: URL,
      issuerName: 'synguard-webhook.synguard-system.svc',
    })
  })

  it('gives trust domain and namespace label to issuer and injection alike', () => {
    const text = `${LEAST}\ntrustDomain: example.org\nnamespaceLabel: {key: guard, value: "yes"}`
    const { webhook, injection } = parseInstallation(text, ENVIRONMENT)
    const expected = { trustDomain: 'example.org', namespaceLabel: { key: 'guard', value: 'yes' } }
    expect([webhook, injection(URL)]).toEqual([expect.objectContaining(expected), expect.objectContaining(expected)])
  })

  it('takes what an installation chooses', () => {
    const text = [
      'webhook: {host: 0.0.0.0, port: 9443, healthPort: 9080, witLifetimeSeconds: 60, skewSeconds: 5}',
      'injection: {image: "i:1", imagePullPolicy: Never, healthPort: 16000}',
      'names: {service: hook, secret: keys, webhookConfiguration: own}',
      'issuerUrl: https://[fd00::1]:8443',
      'certificateNames: [hook.example.org]',
      'certificateAddresses: [192.0.2.7]',
      'drainMs: 0',
      'rotateEvery: { identity: 30d, serving: 8760h }',
    ].join('\n')
    const environment = { ...ENVIRONMENT, KUBECONFIG: '/etc/kubeconfig', SYNGUARD_LOG_LEVEL: 'debug' }
    const { injection, ...rest } = parseInstallation(text, environment)
    expect(rest).toMatchObject({
      kubeconfigPath: '/etc/kubeconfig',
      logLevel: 'debug',
      names: {
        service: 'hook',
        secret: 'keys',
        webhookConfiguration: 'own',
        voids: 'synguard-voids',
        register: 'synguard-issued',
      },
      webhook: { host: '0.0.0.0', port: 9443, witLifetimeSeconds: 60, issuer: 'https://hook.synguard-system.svc' },
      issuerUrl: 'https://[fd00::1]:8443',
      certificateNames: ['hook.example.org'],
      certificateAddresses: ['192.0.2.7'],
      drainMs: 0,
      rotateEverySeconds: { identity: 30 * 86_400, serving: 8_760 * 3_600 },
    })
    expect(injection(URL)).toMatchObject({
      imagePullPolicy: 'Never',
      healthPort: 16000,
      issuerName: 'hook.synguard-system.svc',
    })
  })

  it.each([
    ['', 'bad-setting', 'image'],
    ['injection: [', 'setting-invalid', 'The settings file is no YAML'],
    ['- a', 'setting-invalid', 'settings must be an object'],
    [`${LEAST}\nimage: x`, 'setting-invalid', 'settings.image is unknown'],
    ['injection: {image: x, trustDomain: y}', 'setting-invalid', 'injection.trustDomain is unknown'],
    ['injection: {image: x, healthPort: 80}', 'bad-setting', 'healthPort'],
    [`${LEAST}\nwebhook: {port: "9443"}`, 'setting-invalid', 'webhook.port must be a number'],
    [`${LEAST}\nwebhook: {port: 70000}`, 'setting-invalid', 'port must be an integer'],
    [`${LEAST}\nwebhook: {trustDomain: x}`, 'setting-invalid', 'webhook.trustDomain is unknown'],
    [`${LEAST}\nnames: {secret: "a/b"}`, 'setting-invalid', 'names.secret must be the name'],
    [`${LEAST}\nissuerUrl: https://webhook.svc:443`, 'bad-setting', 'issuerUrl'],
    [`${LEAST}\ncertificateNames: [UPPER]`, 'setting-invalid', 'certificateNames[0] must be a DNS name'],
    [`${LEAST}\ncertificateAddresses: 10.0.0.1`, 'setting-invalid', 'certificateAddresses must be a list'],
    [`${LEAST}\nrotateEvery: 30d`, 'setting-invalid', 'rotateEvery must be an object'],
    [`${LEAST}\nrotateEvery: { identity: 30 }`, 'setting-invalid', 'rotateEvery.identity must be hours or days'],
    [`${LEAST}\nrotateEvery: { identity: 2h }`, 'setting-invalid', 'rotateEvery.identity is too short'],
    [`${LEAST}\ndrainMs: 26000`, 'setting-invalid', 'drainMs must be a whole number from 0 to 25000'],
  ])('refuses %j and names what is wrong', (text, code, message) => {
    expect(() => parseInstallation(text, ENVIRONMENT)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    )
  })

  it.each([
    ['SYNGUARD_NAMESPACE', {}],
    ['SYNGUARD_LOG_LEVEL', { ...ENVIRONMENT, SYNGUARD_LOG_LEVEL: 'loud' }],
  ])('refuses a bad %s and names it', (name, environment) => {
    expect(() => parseInstallation(LEAST, environment)).toThrow(
      expect.objectContaining({ message: expect.stringContaining(name) }),
    )
  })
})
