import type { V1ConfigMap } from '@kubernetes/client-node'
import {
  ANNOTATION_BREAK_GLASS,
  ANNOTATION_STATUS,
  CONFIGMAP_MODE,
  KEY_BREAK_GLASS,
  KEY_MODE,
} from '../../../api/names.ts'
import { breakGlassOf, namespaceMode } from '../../../webhook/mode.ts'
import { POLICY_READER, refusingPodSecurity } from '../../../webhook/namespaces/objects.ts'
import { type Facts, known, type NamespaceFacts } from '../facts.ts'
import { type Check, count, type Found, firstUnseen, listNames, mend, note, notSeen, ofSeen, ok } from '../finding.ts'
import { injectionOf } from '../installation.ts'

const nameOf = ({ namespace }: NamespaceFacts): string => namespace.metadata?.name ?? ''
const VIOLATION = /violates PodSecurity "(?<level>[a-z]+)/

type Verdict =
  | { readonly kind: 'passes' }
  | { readonly kind: 'refuses'; readonly level: string }
  /** The label says so, and a Pod with a sidecar passed all the same. */
  | { readonly kind: 'lets-you'; readonly level: string }

/** What Pod Security says to the sidecar there: the API server's own words go before the label. */
function judgeLevel({ namespace, admission }: NamespaceFacts): Verdict {
  const tried = known(admission)
  const labelled = refusingPodSecurity(namespace)
  const level = tried?.kind === 'refused' ? VIOLATION.exec(tried.message)?.groups?.level : undefined
  if (level !== undefined) return { kind: 'refuses', level }
  if (labelled === undefined) return { kind: 'passes' }
  const isInjected = tried?.kind === 'admitted' && tried.pod.metadata?.annotations?.[ANNOTATION_STATUS] !== undefined
  return { kind: isInjected ? 'lets-you' : 'refuses', level: labelled }
}

function checkPodSecurity({ namespaces }: Facts): readonly Found[] {
  return ofSeen('the labelled namespaces', namespaces, (all) => {
    if (all.length === 0) return [note('no namespace is labelled yet')]
    const judged = all.map((facts) => ({ name: nameOf(facts), verdict: judgeLevel(facts) }))
    const findings = judged.flatMap(({ name, verdict }): Found[] => {
      if (verdict.kind === 'passes') return []
      const fix = `kubectl label namespace ${name} --overwrite pod-security.kubernetes.io/enforce=privileged`
      if (verdict.kind === 'refuses') {
        const message = `Pod Security "${verdict.level}" of ${name} refuses the sidecar's NET_ADMIN`
        return [{ ...mend(message, fix), namespace: name }]
      }
      const message = `${name} says Pod Security "${verdict.level}", but a Pod with a sidecar passes: it is off, or you are exempt`
      return [{ ...note(message), namespace: name }]
    })
    return findings.length > 0 ? findings : [ok(`${count(all.length, 'labelled namespace')} may have the sidecar`)]
  })
}

/** What else refuses Pods: quotas, other webhooks and policies. */
function checkAdmission({ namespaces }: Facts): readonly Found[] {
  return (known(namespaces) ?? []).flatMap((facts): Found[] => {
    const tried = known(facts.admission)
    if (tried?.kind !== 'refused' || tried.status === 504 || VIOLATION.test(tried.message)) return []
    if (/^Internal error occurred: failed calling webhook "pods\.synguard\.io"/.test(tried.message)) return []
    const message = `${nameOf(facts)}: a Pod is refused in a dry run: ${tried.message}`
    // A quota that is used up refuses everybody, and nobody has made a mistake.
    const found = /exceeded quota/.test(tried.message) ? note(message) : mend(message, 'change what refuses it')
    return [{ ...found, namespace: nameOf(facts) }]
  })
}

function isBound({ binding, namespace }: NamespaceFacts): boolean {
  const found = known(binding)
  const group = `system:serviceaccounts:${namespace.metadata?.name}`
  return found?.roleRef.name === POLICY_READER && found.subjects?.some(({ name }) => name === group) === true
}

function checkBindings({ namespaces, installation }: Facts): readonly Found[] {
  return ofSeen('the labelled namespaces', namespaces, (all) => {
    if (all.length === 0) return []
    const findings: Found[] = []
    const missing = all.filter((facts) => facts.binding.seen && !isBound(facts)).map(nameOf)
    if (missing.length > 0) {
      const message = `${listNames(missing)}: no RoleBinding ${POLICY_READER}, so sidecars read no policies`
      findings.push(mend(message, `kubectl -n ${installation.namespace} logs deployment/synguard-webhook`))
    }
    const blind = firstUnseen(all.map(({ binding }) => binding))
    if (blind !== undefined) findings.push(notSeen(`RoleBinding ${POLICY_READER}`, blind.reason))
    return findings.length > 0
      ? findings
      : [ok(`sidecars of ${count(all.length, 'labelled namespace')} may read its policies`)]
  })
}

/** Whether the ConfigMap that sidecars follow says what the namespace's annotations do; undefined where it is not known. */
function saysMode(found: V1ConfigMap, { namespace }: NamespaceFacts, facts: Facts): boolean | undefined {
  const annotations = namespace.metadata?.annotations
  if ((found.data?.[KEY_BREAK_GLASS] ?? '') !== (breakGlassOf(annotations)?.mode ?? '')) return false
  // A namespace that says nothing has the mode that the settings say, which may not be seen.
  const defaultMode = injectionOf(facts.installation)?.defaults.mode
  const [strict, lax] = (['enforce', 'off'] as const).map((mode) => namespaceMode(annotations, defaultMode ?? mode))
  return strict === lax ? found.data?.[KEY_MODE] === strict : undefined
}

function checkModes(facts: Facts): readonly Found[] {
  const { namespaces, installation } = facts
  return ofSeen('the labelled namespaces', namespaces, (all) => {
    if (all.length === 0) return []
    const logs = `kubectl -n ${installation.namespace} logs deployment/synguard-webhook`
    const found = all.flatMap((one) => (one.mode.seen ? [{ one, configMap: one.mode.value }] : []))
    const missing = found.filter(({ configMap }) => configMap === undefined).map(({ one }) => nameOf(one))
    const differing = found.filter(({ one, configMap }) => configMap && saysMode(configMap, one, facts) === false)
    const broken = all.flatMap((one): Found[] => {
      const glass = breakGlassOf(one.namespace.metadata?.annotations)
      if (glass === undefined) return []
      const message = `${nameOf(one)}: the glass is broken, nothing is refused there (${glass.mode}): ${glass.reason}`
      return [
        {
          ...note(message, `kubectl annotate namespace ${nameOf(one)} ${ANNOTATION_BREAK_GLASS}-`),
          namespace: nameOf(one),
        },
      ]
    })
    const blind = firstUnseen(all.map(({ mode }) => mode))
    const findings = [
      ...(missing.length === 0
        ? []
        : [mend(`${listNames(missing)}: no ConfigMap ${CONFIGMAP_MODE}, so sidecars hear of no mode`, logs)]),
      ...(differing.length === 0
        ? []
        : [
            mend(
              `${listNames(differing.map(({ one }) => nameOf(one)))}: ConfigMap ${CONFIGMAP_MODE} is not what the annotations say`,
              logs,
            ),
          ]),
      ...broken,
      ...(blind === undefined ? [] : [notSeen(`ConfigMap ${CONFIGMAP_MODE}`, blind.reason)]),
    ]
    return findings.length > 0
      ? findings
      : [ok(`${count(all.length, 'labelled namespace')} with the mode of its annotations`)]
  })
}

export const NAMESPACE_CHECKS: readonly Check[] = [
  { name: 'pod-security', run: checkPodSecurity },
  { name: 'pod-admission', needsInstallation: true, run: checkAdmission },
  { name: 'policy-access', needsInstallation: true, run: checkBindings },
  { name: 'namespace-mode', needsInstallation: true, run: checkModes },
]
