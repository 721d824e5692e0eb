import { type Facts, known } from '../facts.ts'
import { type Check, count, type Found, listNames, mend, note, notSeen, ofSeen, ok } from '../finding.ts'
import { injectionOf } from '../installation.ts'
import { type JudgedPod, judgePods } from '../sidecar-pods.ts'

interface NamespacePods {
  readonly name: string
  readonly pods: readonly JudgedPod[]
}

/** `found` of each labelled namespace whose Pods could be seen. */
function ofEach({ namespaces, installation }: Facts, found: (namespace: NamespacePods) => readonly Found[]): Found[] {
  const injection = injectionOf(installation)
  return (known(namespaces) ?? []).flatMap((facts) => {
    const name = facts.namespace.metadata?.name ?? ''
    // The webhook does not wait for itself, nor guard itself.
    if (!facts.pods.seen || name === installation.namespace) return []
    return found({ name, pods: judgePods(facts, injection) }).map((one) => ({ ...one, namespace: name }))
  })
}

const ownersOf = (pods: readonly JudgedPod[]): string[] => [...new Set(pods.map(({ owner }) => owner))]

/** `2 at synguard/sidecar:0.1.0, 1 at synguard/sidecar:0.0.9` */
function countImages(pods: readonly JudgedPod[]): string {
  const counts = new Map<string, number>()
  for (const { image = 'no image' } of pods) counts.set(image, (counts.get(image) ?? 0) + 1)
  return [...counts].map(([image, number]) => `${number} at ${image}`).join(', ')
}

function describeSidecars({ name, pods }: NamespacePods): readonly Found[] {
  const guarded = pods.filter(({ kind }) => kind === 'guarded')
  if (pods.length === 0) return [note(`${name}: no Pods`)]
  const alone = pods.filter(({ kind }) => kind === 'left-alone')
  const reasons = [...new Set(alone.map(({ reason = '' }) => reason))].join(', ')
  const aside = alone.length === 0 ? '' : `; ${count(alone.length, 'Pod')} left alone: ${reasons}`
  const images = guarded.length === 0 ? '' : `: ${countImages(guarded)}`
  const message = `${name}: ${guarded.length} of ${count(pods.length, 'Pod')} guarded${images}${aside}`
  const unready = guarded.filter(({ ready }) => ready === false)
  if (unready.length === 0) return [ok(message)]
  const [first] = unready
  const names = listNames(unready.map((pod) => pod.name))
  return [
    mend(
      `${message}; not ready: the sidecar of ${names}`,
      `kubectl -n ${name} logs ${first?.name} -c synguard-sidecar`,
    ),
  ]
}

function checkSidecars(facts: Facts): readonly Found[] {
  return ofSeen('the labelled namespaces', facts.namespaces, (all) => {
    const blind = all.flatMap(({ namespace, pods }) =>
      pods.seen ? [] : [{ ...notSeen(`${namespace.metadata?.name}: the Pods`, pods.reason) }],
    )
    return [...ofEach(facts, describeSidecars), ...blind]
  })
}

const restart = (namespace: string, owners: readonly string[]): string => {
  const [bare, kept] = [owners.filter((one) => one.startsWith('pod/')), owners.filter((one) => !one.startsWith('pod/'))]
  const [first] = kept
  if (first === undefined) return `make ${listNames(bare)} again`
  return `kubectl -n ${namespace} rollout restart ${kept.slice(0, 5).join(' ')}`
}

function describeUnguarded({ name, pods }: NamespacePods): readonly Found[] {
  const unguarded = pods.filter(({ kind }) => kind === 'unguarded')
  const refused = pods.filter(({ kind }) => kind === 'refused')
  const findings = refused.map(({ name: pod, reason = '' }) =>
    mend(`${name}: Pod ${pod} is not guarded, and would be refused if it were made again`, reason),
  )
  if (unguarded.length === 0) return findings
  const owners = ownersOf(unguarded)
  const message = `${name}: ${count(unguarded.length, 'Pod')} of ${listNames(owners)} without sidecar, older than the label`
  return [mend(message, restart(name, owners)), ...findings]
}

function checkUnguarded(facts: Facts): readonly Found[] {
  const findings = ofEach(facts, describeUnguarded)
  if (findings.length > 0) return findings
  const seen = (known(facts.namespaces) ?? []).filter(({ pods }) => (known(pods)?.length ?? 0) > 0)
  return seen.length === 0 ? [] : [ok('no Pod of a labelled namespace is without sidecar that should have one')]
}

function describeOutdated({ name, pods }: NamespacePods): readonly Found[] {
  const outdated = pods.filter((pod) => pod.outdated.length > 0)
  const doomed = pods.filter(({ kind, reason }) => kind === 'guarded' && reason !== undefined)
  const findings = doomed.map(({ name: pod, reason = '' }) =>
    mend(`${name}: Pod ${pod} would be refused if it were made again`, reason),
  )
  if (outdated.length === 0) return findings
  const what = [...new Set(outdated.flatMap((pod) => pod.outdated))].join(', ')
  const owners = ownersOf(outdated)
  const message = `${name}: ${count(outdated.length, 'Pod')} of ${listNames(owners)} older than the settings (${what})`
  return [mend(message, restart(name, owners)), ...findings]
}

function checkOutdated(facts: Facts): readonly Found[] {
  if (injectionOf(facts.installation) === undefined) {
    const { settings: fact } = facts.installation
    return [notSeen('which Pods are older than the settings', fact.seen ? 'they cannot be read' : fact.reason)]
  }
  const findings = ofEach(facts, describeOutdated)
  if (findings.length > 0) return findings
  const guarded = ofEach(facts, ({ pods }) => (pods.some(({ kind }) => kind === 'guarded') ? [ok('')] : []))
  return guarded.length === 0 ? [] : [ok('all sidecars are as the settings have them')]
}

export const SIDECAR_CHECKS: readonly Check[] = [
  { name: 'sidecars', needsInstallation: true, run: checkSidecars },
  { name: 'unguarded-pods', needsInstallation: true, run: checkUnguarded },
  { name: 'older-pods', needsInstallation: true, run: checkOutdated },
]
