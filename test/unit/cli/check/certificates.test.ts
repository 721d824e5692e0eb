import { describe, expect, it } from '@jest/globals'
import { judge } from '../../../../cli/check/checks.ts'
import { seen, unseen } from '../../../../cli/check/facts.ts'
import { AT, AUTHORITY, configuration, facts, lines, namespace, OTHER_AUTHORITY, served } from './facts.ts'

const encode = (pem: string) => Buffer.from(pem).toString('base64')
const withBundle = (pem: string | undefined) => {
  const caBundle = pem === undefined ? {} : { caBundle: encode(pem) }
  return seen([
    configuration((webhook) => {
      const { caBundle: _, ...clientConfig } = webhook.clientConfig
      return { ...webhook, clientConfig: { ...clientConfig, ...caBundle } }
    }),
  ])
}
const at = (check: string, atMs: number) =>
  judge({ ...facts(), atMs })
    .filter((finding) => finding.check === check)
    .map(({ status, message }) => `${status} ${message}`)
const DAY_MS = 86_400_000

describe('ca-bundle', () => {
  const bundle = (pem: string | undefined) => lines('ca-bundle', { installation: { configurations: withBundle(pem) } })

  it('tells its age, and counts both while one CA replaces the other', () => {
    expect(lines('ca-bundle')).toEqual(['ok 1 CA in caBundle, 10 days old, 1815 days left'])
    expect(bundle(AUTHORITY.certificatePem + OTHER_AUTHORITY.certificatePem)[0]).toMatch(/^ok 2 CAs in caBundle/)
  })

  it('must be there and hold certificates', () => {
    expect(bundle(undefined)).toEqual(['fix caBundle is empty, so the API server trusts no webhook'])
    const damaged = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'
    expect(bundle(damaged)).toEqual(['fix caBundle holds no certificates'])
  })

  it('must be valid, and not end soon', () => {
    expect(at('ca-bundle', AT + 1_760 * DAY_MS)[0]).toMatch(/^fix 1 CA in caBundle, .* 55 days left$/)
    expect(at('ca-bundle', AT + 1_816 * DAY_MS)[0]).toMatch(/^fix no CA in caBundle is valid now/)
    expect(at('ca-bundle', AT - 11 * DAY_MS)[0]).toMatch(/^fix no CA in caBundle is valid now/)
  })
})

describe('serving-certificate', () => {
  const serving = (certificates: ReturnType<typeof served>[]) =>
    lines('serving-certificate', { installation: { certificates: seen(certificates) } })

  it('tells the age of the oldest', () => {
    expect(serving([served(), served({ ageDays: 9 })])).toEqual([
      'ok 2 replicas with a certificate by caBundle, the oldest 9 days old, 21 days left',
    ])
  })

  it.each([
    ['is not signed by a CA in caBundle', { authority: OTHER_AUTHORITY }],
    ['is not for synguard-webhook.synguard.svc', { names: ['other.svc'] }],
    ['should have been renewed', { ageDays: 24 }],
    ['ended ', { ageDays: 31 }],
    ['is valid only from ', { ageDays: -1 }],
  ])('says that one %s', (words, options) => {
    const found = serving([served(), { ...served(options), replica: 'webhook-2' }])
    expect(found).toEqual([expect.stringContaining(`fix the certificate of webhook-2 ${words}`)])
  })

  it('says why none could be seen, and judges those that could', () => {
    const hidden = { ...served(), certificatePem: unseen('you may not create pods/portforward') }
    expect(serving([hidden])).toEqual([
      "unseen the replicas' certificates could not be seen: you may not create pods/portforward",
    ])
    expect(serving([hidden, served()])[0]).toMatch(/^ok 1 replica with/)
  })
})

describe('namespace-ca', () => {
  const ca = (found: Parameters<typeof namespace>[1]) =>
    lines('namespace-ca', { namespaces: seen([namespace([], found)]) })
  const holding = (pem: string) => ({ ca: seen({ data: { 'ca.crt': pem } }) })

  it('must be there and be what caBundle is', () => {
    expect(ca({})).toEqual(['ok 1 labelled namespace with the CA that is in caBundle'])
    expect(ca({ ca: seen(undefined) })[0]).toMatch(/^fix shop: no ConfigMap synguard-ca/)
    expect(ca(holding(OTHER_AUTHORITY.certificatePem))).toEqual([
      'fix shop: ConfigMap synguard-ca is not what caBundle is',
    ])
    expect(ca(holding('no certificate'))[0]).toMatch(/^fix shop: ConfigMap synguard-ca is not what/)
  })

  it('may have its CAs in any order', () => {
    const [one, other] = [AUTHORITY.certificatePem, OTHER_AUTHORITY.certificatePem]
    const found = lines('namespace-ca', {
      installation: { configurations: withBundle(one + other) },
      namespaces: seen([namespace([], holding(other + one))]),
    })
    expect(found[0]).toMatch(/^ok/)
  })

  it('is said not to be seen, rather than to differ, without the right to read either side', () => {
    expect(ca({ ca: unseen('you may not get configmaps') })).toEqual([
      'unseen ConfigMap synguard-ca could not be seen: you may not get configmaps',
    ])
    const configurations = unseen('you may not list mutatingwebhookconfigurations')
    expect(lines('namespace-ca', { installation: { configurations } })[0]).toMatch(/^unseen caBundle/)
    expect(lines('serving-certificate', { installation: { configurations } })[0]).toMatch(/^unseen caBundle/)
  })
})
