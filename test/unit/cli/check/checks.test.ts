import { describe, expect, it } from '@jest/globals'
import { POLICIES } from '../../../../cli/check/checks/admission.ts'
import { seen, unseen } from '../../../../cli/check/facts.ts'
import { formatFindings, resultOf } from '../../../../cli/check/report.ts'
import {
  ABSENT,
  type Changes,
  configuration,
  deployment,
  facts,
  findings,
  lines,
  namespace,
  node,
  policies,
  policyBindings,
} from './facts.ts'

const blind = unseen('you may not list nodes')

describe('where everything is as the manifests install it', () => {
  it('every check says so once, and the result is fine', () => {
    const found = findings()
    expect(found.filter(({ status }) => status !== 'ok')).toEqual([])
    expect(found.map(({ check }) => check)).toEqual([
      'kubernetes',
      'nodes',
      'admission-api',
      'installed',
      'settings',
      'replicas',
      'service',
      'webhook-rules',
      'webhook-reached',
      'admission-policies',
      'ca-bundle',
      'serving-certificate',
      'namespace-ca',
      'key-rotation',
      'key-rotation',
      'pod-security',
      'policy-access',
      'namespace-mode',
      'sidecars',
      'unguarded-pods',
      'older-pods',
      'source-translation',
      'kernel',
      'guarded-pod',
    ])
    expect(resultOf(facts(), found)).toBe('fine')
  })
})

describe('the result', () => {
  const result = (changes: Changes) => resultOf(facts(changes), findings(changes))

  it('before an installation is its own, unless something is to be mended first', () => {
    const before = { installation: ABSENT, namespaces: seen([]) }
    expect(result(before)).toBe('not-installed')
    expect(result({ ...before, cluster: { version: seen('v1.29.1') } })).toBe('fix')
  })

  it('is fine where something could not be seen, but not where nothing of Synguard could', () => {
    expect(result({ cluster: { nodes: blind } })).toBe('fine')
    const unknown = { configurations: blind, deployment: blind, settings: blind, certificates: blind }
    expect(result({ installation: unknown, namespaces: blind })).toBe('blind')
  })

  it('has before an installation no line of what only an installation has', () => {
    const found = findings({ installation: ABSENT, namespaces: seen([]) })
    expect(found.map(({ check, status }) => `${status} ${check}`)).toEqual([
      'ok kubernetes',
      'ok nodes',
      'ok admission-api',
      'note installed',
      'note pod-security',
      'ok source-translation',
      'ok kernel',
    ])
  })
})

describe('the report', () => {
  it('is one line a finding, with what mends it, whatever the API server says', () => {
    const found = [
      { check: 'a', status: 'ok', message: 'well' },
      { check: 'long', status: 'fix', message: 'two\n  lines', fix: 'do this' },
    ] as const
    expect(formatFindings(found, 'fix')).toBe(
      ['ok      a     well', 'fix     long  two lines; do this', '', 'To mend: 1 ok, 1 to mend, 0 not seen'].join('\n'),
    )
  })
})

describe('kubernetes', () => {
  it('must be 1.30, whatever a distribution adds to its version', () => {
    expect(lines('kubernetes', { cluster: { version: seen('v1.30.4-eks-036c24b') } })).toEqual([
      'ok the API server is v1.30.4-eks-036c24b',
    ])
    expect(lines('kubernetes', { cluster: { version: seen('v1.29.14') } })).toEqual([
      'fix the API server is v1.29.14: native sidecars need 1.30',
    ])
    expect(lines('kubernetes', { cluster: { version: seen('') } })[0]).toMatch(/^fix/)
  })
})

describe('nodes', () => {
  it('are named where their kubelet is too old', () => {
    const nodes = seen([node('new'), node('old', { kubelet: 'v1.28.2' })])
    expect(lines('nodes', { cluster: { nodes } })).toEqual(['fix old: kubelet v1.28.2, and native sidecars need 1.30'])
  })

  it('are counted with their kernels, Windows apart', () => {
    const nodes = seen([node('a'), node('b', { kernel: '5.15.0' }), node('w', { os: 'windows', kubelet: 'v1.20.0' })])
    expect(lines('nodes', { cluster: { nodes } })).toEqual([
      'ok 2 nodes, kernel 6.18.5 amd64, 5.15.0 amd64',
      'note 1 Windows node: Pods there are not guarded',
    ])
  })

  it('that may not be seen are said to be so', () => {
    expect(lines('nodes', { cluster: { nodes: blind } })).toEqual([
      'unseen the nodes could not be seen: you may not list nodes',
    ])
  })
})

describe('admission-api', () => {
  it('must serve policies', () => {
    const admissionResources = seen(['mutatingwebhookconfigurations'])
    expect(lines('admission-api', { cluster: { admissionResources } })).toEqual([
      'fix admissionregistration.k8s.io/v1 does not serve validatingadmissionpolicies',
    ])
  })
})

describe('installed', () => {
  it.each([
    ['nothing', ABSENT, 'note Synguard is not installed'],
    [
      'rules alone',
      { deployment: seen(undefined) },
      'fix a webhook configuration is there, but no Deployment in synguard',
    ],
    ['a Deployment alone', { configurations: seen([]) }, 'fix no webhook configuration is there, so no Pod is guarded'],
    [
      'two sets of rules',
      { configurations: seen([configuration(), { ...configuration(), metadata: { name: 'second' } }]) },
      'fix synguard and second are webhook configurations of Synguard both',
    ],
    [
      'rules that may not be seen',
      { configurations: blind },
      'ok in namespace synguard, webhook synguard/webhook:0.1.0',
    ],
    ['nothing that may be seen', { configurations: blind, deployment: blind }, 'unseen whether Synguard is installed'],
  ])('tells %s', (_, installation, start) => {
    const found = lines('installed', { installation })
    expect([found.length, found[0]?.slice(0, start.length)]).toEqual([1, start])
  })

  it('knows a webhook outside of the cluster', () => {
    const configurations = seen([
      configuration((webhook) => ({ ...webhook, clientConfig: { url: 'https://192.0.2.7/mutate' } })),
    ])
    const installation = { configurations, deployment: seen(undefined), webhookService: seen(undefined) }
    expect(lines('installed', { installation })).toEqual(['ok the webhook runs outside of the cluster'])
    expect(lines('service', { installation })).toEqual([])
  })
})

describe('settings', () => {
  it('that the webhook would not start with are told as it tells them', () => {
    const settings = seen({ kind: 'wrong', problem: 'webhook.port must be a number.' } as const)
    expect(lines('settings', { installation: { settings } })).toEqual([
      'fix the settings are wrong: webhook.port must be a number.',
    ])
  })
})

describe('replicas and service', () => {
  it('count what is ready', () => {
    expect(lines('replicas')).toEqual(['ok 2 of 2 replicas ready'])
    expect(lines('replicas', { installation: { deployment: seen(deployment(1)) } })).toEqual([
      'fix 1 of 2 replicas ready',
    ])
    const none = [{ addressType: 'IPv4', endpoints: [{ addresses: ['10.244.0.2'], conditions: { ready: false } }] }]
    expect(lines('service', { installation: { endpoints: seen(none) } })).toEqual([
      'fix Service 10.96.7.7 leads nowhere',
    ])
    // As the API server writes a slice that has none.
    const empty = JSON.parse('[{"addressType":"IPv4","endpoints":null}]') as typeof none
    expect(lines('service', { installation: { endpoints: seen(empty) } })).toEqual([
      'fix Service 10.96.7.7 leads nowhere',
    ])
    expect(lines('service', { installation: { webhookService: seen(undefined) } })).toEqual([
      'fix there is no Service synguard/synguard-webhook',
    ])
  })
})

describe('webhook-rules', () => {
  const fault = (change: Parameters<typeof configuration>[0], namespaces = seen([namespace()])) =>
    lines('webhook-rules', { installation: { configurations: seen([configuration(change)]) }, namespaces })

  it.each([
    ['failurePolicy is not Fail', { failurePolicy: 'Ignore' }],
    ['rules lack CREATE of pods', { rules: [] }],
    ['rules lack UPDATE of pods/ephemeralcontainers', { rules: configuration().webhooks?.[0]?.rules?.slice(0, 1) }],
    ['reinvocationPolicy is not IfNeeded', { reinvocationPolicy: 'Never' }],
    ['sideEffects keeps it out of dry runs', { sideEffects: 'Some' }],
    ['objectSelector leaves out Pods', { objectSelector: { matchLabels: { a: 'b' } } }],
    ['matchConditions leave out Pods', { matchConditions: [{ name: 'a', expression: 'false' }] }],
    ['takes namespaces without the label', { namespaceSelector: {} }],
    ['does not go by synguard.io/inject', { namespaceSelector: { matchLabels: { other: 'yes' } } }],
    ['path /mutate', { clientConfig: { service: { namespace: 'synguard', name: 'synguard-webhook', path: '/' } } }],
    [
      'no port 9',
      { clientConfig: { service: { namespace: 'synguard', name: 'synguard-webhook', path: '/mutate', port: 9 } } },
    ],
  ])('say that %s', (words, change) => {
    const found = fault((webhook) => ({ ...webhook, ...change }) as typeof webhook)
    expect(found).toEqual([expect.stringContaining('fix the webhook configuration differs: ')])
    expect(found[0]).toContain(words)
  })

  it('name a labelled namespace that the selector leaves out, and the own one never', () => {
    const own = { 'kubernetes.io/metadata.name': 'synguard' }
    const labels = { ...own, 'synguard.io/inject': 'enabled' }
    const ours = namespace([], {}, { name: 'synguard', labels })
    const same = (webhook: NonNullable<ReturnType<typeof configuration>['webhooks']>[number]) => webhook
    expect(fault(same, seen([namespace(), ours]))[0]).toMatch(/^ok/)
    const left = fault((webhook) => ({
      ...webhook,
      namespaceSelector: {
        ...webhook.namespaceSelector,
        matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['shop'] }],
      },
    }))
    expect(left[0]).toContain('namespaceSelector leaves out shop')
  })
})

describe('webhook-reached', () => {
  const reached = (admission: Parameters<typeof namespace>[1]) =>
    lines('webhook-reached', { namespaces: seen([namespace([], admission)]) })
  const refused = (message: string) => ({ admission: seen({ kind: 'refused' as const, status: 500, message }) })

  it('has the words of an API server that could not call', () => {
    const message = 'Internal error occurred: failed calling webhook "pods.synguard.io": connection refused'
    expect(reached(refused(message))).toEqual([`fix a dry run in shop: ${message}`])
  })

  it('is not, where the API server gave no answer', () => {
    const admission = seen({ kind: 'refused' as const, status: 504, message: 'no answer for a Pod' })
    expect(reached({ admission })).toEqual(['fix a dry run in shop: no answer for a Pod'])
  })

  it('takes a refusal for other reasons as an answer', () => {
    expect(reached(refused('exceeded quota: pods'))).toEqual(['ok the API server reaches the webhook: 1 dry run'])
  })

  it('sees a Pod without sidecar, and a sidecar that is none to the kubelet', () => {
    const plain = { metadata: {}, spec: { containers: [] } }
    const old = { metadata: {}, spec: { containers: [], initContainers: [{ name: 'synguard-sidecar' }] } }
    expect(reached({ admission: seen({ kind: 'admitted', pod: plain }) })).toEqual([
      'fix a Pod in shop gets no sidecar in a dry run',
    ])
    expect(reached({ admission: seen({ kind: 'admitted', pod: old }) })[0]).toMatch(/^fix .* drops restartPolicy/)
  })

  it('cannot be told without a labelled namespace or the right to make Pods', () => {
    expect(lines('webhook-reached', { namespaces: seen([]) })[0]).toMatch(/^note no namespace is labelled/)
    expect(reached({ admission: unseen('you may not create pods in namespace shop') })).toEqual([
      'unseen whether the webhook is reached could not be seen: you may not create pods in namespace shop',
    ])
  })
})

describe('admission-policies', () => {
  const found = (installation: NonNullable<Changes['installation']>) => lines('admission-policies', { installation })

  it('are those of the manifests', () => {
    expect(
      policies()
        .map(({ metadata }) => metadata?.name)
        .toSorted(),
    ).toEqual(POLICIES)
  })

  it('must be there, bound to deny, and fit the API server', () => {
    expect(found({ policies: seen(policies().slice(1)) })[0]).toContain('synguard-containers is missing')
    const audited = policyBindings().map((one) => ({ ...one, spec: { ...one.spec, validationActions: ['Audit'] } }))
    expect(found({ policyBindings: seen(audited) })[0]).toContain('synguard-powers is bound to deny nothing')
    const expressionWarnings = [{ fieldRef: 'spec.validations[0].expression', warning: 'no such field' }]
    const warned = policies().map((one) => ({ ...one, status: { typeChecking: { expressionWarnings } } }))
    expect(found({ policies: seen(warned) })[0]).toContain('does not fit this API server: spec.validations[0]')
    expect(found({ policies: blind })[0]).toMatch(/^unseen ValidatingAdmissionPolicies/)
  })
})
