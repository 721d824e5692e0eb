import type { V1Container, V1Pod, V1PodSpec } from '@kubernetes/client-node'
import { ENVIRONMENT } from '../../api/environment.ts'
import { CONTAINER_SIDECAR } from '../../api/names.ts'
import { inject } from '../../webhook/admission/inject.ts'
import type { NamespaceFacts as InjectedNamespace } from '../../webhook/admission/namespace.ts'
import { isGuarded, type SpecifiedPod } from '../../webhook/admission/pod.ts'
import { type InjectionSettings, parseInjectionSettings } from '../../webhook/admission/settings.ts'
import type { NamespaceFacts } from './facts.ts'

/** A live Pod of a labelled namespace, as Synguard sees it. */
export interface JudgedPod {
  /** `deployment/web`, or `pod/web` where nothing owns it: what is to be restarted. */
  readonly owner: string
  readonly name: string
  readonly kind: 'guarded' | 'unguarded' | 'left-alone' | 'refused'
  /** Of its sidecar. */
  readonly image?: string
  /** Whether the sidecar's container is ready; undefined while the Pod has not started. */
  readonly ready?: boolean
  /** Why it is left alone, or would be refused if it were made again. */
  readonly reason?: string
  /** What of its sidecar is not as the settings have it now. */
  readonly outdated: readonly string[]
}

/** What the installation decides; the rest follows the Pod's and its namespace's annotations. */
const SETTING_VARIABLES = [
  ENVIRONMENT.issuerUrl,
  ENVIRONMENT.issuerName,
  ENVIRONMENT.trustDomain,
  ENVIRONMENT.policySource,
  ENVIRONMENT.clusterNetworks,
  ENVIRONMENT.nodeAddresses,
  ENVIRONMENT.healthPort,
] as const

/** Where the settings could not be seen: whether a Pod is taken or refused hardly depends on them. */
const PLACEHOLDER = { image: 'unknown', issuerUrl: 'https://192.0.2.1:443', issuerName: 'unknown.svc' }

/** The live Pods of a namespace, by what became of them and what would become of them now. */
export function judgePods(facts: NamespaceFacts, settings: InjectionSettings | undefined): JudgedPod[] {
  const pods = facts.pods.seen ? facts.pods.value : []
  const { name = '', labels = {}, annotations = {} } = facts.namespace.metadata ?? {}
  const wanted = settings ?? parseInjectionSettings(PLACEHOLDER)
  // The placeholder's label may not be this namespace's; it was selected by the label that was seen.
  const { key, value = '' } = wanted.namespaceLabel
  const namespace = { name, labels: { ...labels, [key]: labels[key] ?? value }, annotations }
  return pods.filter(isLive).map((pod) => judgePod(pod, namespace, wanted, settings !== undefined))
}

function isLive({ metadata, spec, status }: V1Pod): boolean {
  const isOver = status?.phase === 'Succeeded' || status?.phase === 'Failed'
  return spec !== undefined && !isOver && metadata?.deletionTimestamp === undefined
}

function judgePod(pod: V1Pod, namespace: InjectedNamespace, settings: InjectionSettings, isKnown: boolean): JudgedPod {
  const { spec = { containers: [] }, status } = pod
  const specified: SpecifiedPod = { ...pod, spec }
  const common = { owner: ownerOf(pod), name: pod.metadata?.name ?? '' }
  const again = inject(specified, namespace, settings)
  if (!isGuarded(spec)) {
    if (again.kind === 'skipped') return { ...common, kind: 'left-alone', reason: again.code, outdated: [] }
    if (again.kind === 'refused') return { ...common, kind: 'refused', reason: again.reason, outdated: [] }
    return { ...common, kind: 'unguarded', outdated: [] }
  }
  const container = sidecarOf(spec)
  const state = status?.initContainerStatuses?.find(({ name }) => name === CONTAINER_SIDECAR)
  const current = again.kind === 'injected' && isKnown ? sidecarOf(again.pod.spec) : undefined
  return {
    ...common,
    kind: 'guarded',
    ...(container?.image !== undefined && { image: container.image }),
    ...(state !== undefined && { ready: state.ready }),
    ...(again.kind === 'refused' && { reason: again.reason }),
    outdated: current === undefined ? [] : findOutdated(container, current),
  }
}

function sidecarOf(spec: V1PodSpec): V1Container | undefined {
  return spec.initContainers?.find(({ name }) => name === CONTAINER_SIDECAR)
}

function findOutdated(container: V1Container | undefined, current: V1Container): string[] {
  const variableOf = (one: V1Container | undefined, variable: string) =>
    one?.env?.find(({ name }) => name === variable)?.value ?? ''
  const variables = SETTING_VARIABLES.filter((name) => variableOf(container, name) !== variableOf(current, name))
  return [
    ...(container?.image === current.image ? [] : ['image']),
    ...(container?.command?.join(' ') === current.command?.join(' ') ? [] : ['command']),
    ...variables,
  ]
}

function ownerOf({ metadata }: V1Pod): string {
  const [owner] = metadata?.ownerReferences ?? []
  if (owner === undefined) return `pod/${metadata?.name}`
  // The ReplicaSet of a Deployment is named for it and the hash of the Pods' template.
  const hash = metadata?.labels?.['pod-template-hash']
  if (owner.kind === 'ReplicaSet' && hash !== undefined && owner.name.endsWith(`-${hash}`)) {
    return `deployment/${owner.name.slice(0, -hash.length - 1)}`
  }
  return `${owner.kind.toLowerCase()}/${owner.name}`
}
