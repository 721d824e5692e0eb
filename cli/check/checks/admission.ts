import type {
  V1LabelSelector,
  V1MutatingWebhook,
  V1MutatingWebhookConfiguration,
  V1RuleWithOperations,
} from '@kubernetes/client-node'
import type { Labels } from '../../../api/identity.ts'
import { CONTAINER_SIDECAR } from '../../../api/names.ts'
import { matchesSelector } from '../../../policy/selector.ts'
import type { LabelOperator, LabelSelector } from '../../../policy/types.ts'
import { type Admission, type Facts, type InstallationFacts, known } from '../facts.ts'
import { type Check, count, type Found, firstUnseen, listNames, mend, note, notSeen, ofSeen, ok } from '../finding.ts'
import { labelOf, WEBHOOK } from '../installation.ts'

const APPLY = 'apply the manifests again'

function webhooksOf(configurations: readonly V1MutatingWebhookConfiguration[]): V1MutatingWebhook[] {
  return configurations.flatMap(({ webhooks = [] }) => webhooks).filter(({ name }) => name === WEBHOOK)
}

function covers(rules: readonly V1RuleWithOperations[], resource: string, operation: string): boolean {
  const has = (list: readonly string[] | undefined, wanted: string) =>
    list?.some((one) => one === wanted || one === '*')
  return rules.some(
    ({ apiGroups, apiVersions, resources, operations, scope = '*' }) =>
      (scope === '*' || scope === 'Namespaced') &&
      has(apiGroups, '') === true &&
      has(apiVersions, 'v1') === true &&
      has(operations, operation) === true &&
      resources?.some((one) => one === resource || one === '*/*' || (one === '*' && !resource.includes('/'))) === true,
  )
}

/** What of the webhook's fields would let Pods by, or stop those that are not ours. */
function findFieldFaults(webhook: V1MutatingWebhook): string[] {
  const { rules = [], objectSelector, matchConditions = [] } = webhook
  const isSelective = Object.values(objectSelector ?? {}).some((part) => Object.keys(part ?? {}).length > 0)
  return [
    ...(webhook.failurePolicy === 'Fail' ? [] : ['failurePolicy is not Fail, so Pods get by while it is down']),
    ...(covers(rules, 'pods', 'CREATE') ? [] : ['rules lack CREATE of pods']),
    ...(covers(rules, 'pods/ephemeralcontainers', 'UPDATE') ? [] : ['rules lack UPDATE of pods/ephemeralcontainers']),
    ...(webhook.reinvocationPolicy === 'IfNeeded' ? [] : ['reinvocationPolicy is not IfNeeded']),
    ...(webhook.sideEffects?.startsWith('None') ? [] : ['sideEffects keeps it out of dry runs']),
    ...(isSelective ? ['objectSelector leaves out Pods by their own labels'] : []),
    ...(matchConditions.length === 0 ? [] : ['matchConditions leave out Pods']),
  ]
}

/** As the API server takes it: without a selector everything. */
function selectorOf({ matchLabels = {}, matchExpressions = [] }: V1LabelSelector = {}): LabelSelector {
  return [
    ...Object.entries(matchLabels).map(([key, value]) => ({ key, operator: 'In' as const, values: [value] })),
    ...matchExpressions.map(({ key, operator, values = [] }) => ({ key, operator: operator as LabelOperator, values })),
  ]
}

function findSelectorFaults(webhook: V1MutatingWebhook, { installation, namespaces }: Facts): string[] {
  const selector = selectorOf(webhook.namespaceSelector)
  const { key, value } = labelOf(installation)
  const name = (text: string): Labels => ({ 'kubernetes.io/metadata.name': text })
  const isFar = matchesSelector(selector, name('a-namespace-without-the-label'))
  const labelled = { ...name('a-namespace-with-the-label'), [key]: value ?? '' }
  const leftOut = (known(namespaces) ?? [])
    .map(({ namespace }) => namespace.metadata ?? {})
    .filter(({ name: own }) => own !== installation.namespace)
    .filter(({ name: own = '', labels = {} }) => !matchesSelector(selector, { ...name(own), ...labels }))
  return [
    ...(isFar ? ['namespaceSelector takes namespaces without the label, which then depend on it'] : []),
    ...(matchesSelector(selector, labelled) ? [] : [`namespaceSelector does not go by ${key}, as the settings do`]),
    ...(leftOut.length > 0 && matchesSelector(selector, labelled)
      ? [`namespaceSelector leaves out ${listNames(leftOut.map((one) => one.name ?? ''))}`]
      : []),
  ]
}

function findTargetFaults({ clientConfig }: V1MutatingWebhook, installation: InstallationFacts): string[] {
  const { service } = clientConfig
  if (service === undefined) return []
  const faults: string[] = []
  if (service.namespace !== installation.namespace || service.name !== installation.service) {
    faults.push(`clientConfig names Service ${service.namespace}/${service.name}`)
  }
  if (service.path !== '/mutate') faults.push('clientConfig has not the path /mutate')
  const ports = known(installation.webhookService)?.spec?.ports
  const port = service.port ?? 443
  if (ports !== undefined && !ports.some((one) => one.port === port)) faults.push(`the Service has no port ${port}`)
  return faults
}

function checkRules(facts: Facts): readonly Found[] {
  return ofSeen('the webhook configuration', facts.installation.configurations, (configurations) => {
    const webhooks = webhooksOf(configurations)
    if (webhooks.length === 0) return []
    const faults = webhooks.flatMap((webhook) => [
      ...findFieldFaults(webhook),
      ...findSelectorFaults(webhook, facts),
      ...findTargetFaults(webhook, facts.installation),
    ])
    if (faults.length > 0) return [mend(`the webhook configuration differs: ${faults.join('; ')}`, APPLY)]
    return [ok('Pods of labelled namespaces, and none else, are for the webhook; without it they are refused')]
  })
}

/** Whether the sidecar of our webhook is in an admitted Pod, as a native one. */
function sidecarOf(admission: Admission): 'native' | 'plain' | 'none' | undefined {
  if (admission.kind === 'refused') return undefined
  const sidecar = admission.pod.spec?.initContainers?.find(({ name }) => name === CONTAINER_SIDECAR)
  if (sidecar === undefined) return 'none'
  return sidecar.restartPolicy === 'Always' ? 'native' : 'plain'
}

/** The API server's words for a webhook that it could not ask. */
const UNREACHED = `failed calling webhook "${WEBHOOK}"`

function checkReachable({ installation, namespaces }: Facts): readonly Found[] {
  return ofSeen('the labelled namespaces', namespaces, (all) => {
    const others = all.filter(({ namespace }) => namespace.metadata?.name !== installation.namespace)
    const tried = others.flatMap(({ namespace, admission }) =>
      admission.seen ? [{ name: namespace.metadata?.name ?? '', admission: admission.value }] : [],
    )
    if (others.length === 0) return [note('no namespace is labelled, so nothing was asked of the webhook')]
    const reason = firstUnseen(others.map(({ admission }) => admission))
    if (tried.length === 0) return [notSeen('whether the webhook is reached', reason?.reason ?? '')]
    for (const { name, admission } of tried) {
      if (admission.kind === 'refused' && (admission.status === 504 || admission.message.includes(UNREACHED))) {
        const fix = `kubectl -n ${installation.namespace} logs deployment/synguard-webhook`
        return [mend(`a dry run in ${name}: ${admission.message}`, fix)]
      }
    }
    const without = tried.filter(({ admission }) => sidecarOf(admission) === 'none').map(({ name }) => name)
    if (without.length > 0) return [mend(`a Pod in ${listNames(without)} gets no sidecar in a dry run`, APPLY)]
    if (tried.some(({ admission }) => sidecarOf(admission) === 'plain')) {
      const fix = 'turn the feature gate SidecarContainers on again'
      return [mend('the API server drops restartPolicy of init containers, so there are no native sidecars', fix)]
    }
    return [ok(`the API server reaches the webhook: ${count(tried.length, 'dry run')}`)]
  })
}

/** What the API server itself holds in labelled namespaces, by the names that the manifests give it. */
export const POLICIES: readonly string[] = [
  'synguard-baseline',
  'synguard-ca',
  'synguard-containers',
  'synguard-powers',
]

function checkPolicies({ installation }: Facts): readonly Found[] {
  return ofSeen('ValidatingAdmissionPolicies', installation.policies, (policies) =>
    ofSeen('ValidatingAdmissionPolicyBindings', installation.policyBindings, (bindings) => {
      const faults = POLICIES.flatMap((name) => {
        const policy = policies.find(({ metadata }) => metadata?.name === name)
        if (policy === undefined) return [`${name} is missing`]
        const actions = bindings
          .filter(({ spec }) => spec?.policyName === name)
          .map(({ spec }) => spec?.validationActions)
        if (!actions.some((list) => list?.includes('Deny'))) return [`${name} is bound to deny nothing`]
        const warnings = policy.status?.typeChecking?.expressionWarnings ?? []
        return warnings.slice(0, 1).map(({ fieldRef }) => `${name} does not fit this API server: ${fieldRef}`)
      })
      if (faults.length > 0) return [mend(`ValidatingAdmissionPolicies: ${faults.join('; ')}`, APPLY)]
      return [ok(`${POLICIES.length} ValidatingAdmissionPolicies hold what the webhook made`)]
    }),
  )
}

export const ADMISSION_CHECKS: readonly Check[] = [
  { name: 'webhook-rules', needsInstallation: true, run: checkRules },
  { name: 'webhook-reached', needsInstallation: true, run: checkReachable },
  { name: 'admission-policies', needsInstallation: true, run: checkPolicies },
]
