/** A guarded Pod as its own sidecar has it: settings, mode, policies, and the judge over them. */
import type { V1Container, V1Pod } from '@kubernetes/client-node'
import { API_SERVER_ENVIRONMENT } from '../../api/environment.ts'
import type { Mode, PodIdentity } from '../../api/identity.ts'
import { ANNOTATION_MODE, CONTAINER_SIDECAR } from '../../api/names.ts'
import { compile } from '../../policy/compile.ts'
import type { NetworkPolicy } from '../../policy/types.ts'
import type { NamespaceMode } from '../../sidecar/control/namespace-mode.ts'
import { quarantine } from '../../sidecar/control/quarantine.ts'
import { parseSettings, type SidecarSettings } from '../../sidecar/control/settings.ts'
import { createGatePolicy } from '../../sidecar/datapath/gate.ts'
import type { Judge } from '../../sidecar/datapath/judge.ts'
import { isGuarded } from '../../webhook/admission/pod.ts'
import type { Directory } from '../../webhook/directory/directory.ts'
import { isLive, podIdentity } from '../../webhook/directory/pod-identity.ts'
import { isBlocked } from '../../webhook/issuer/void-record.ts'
import { breakGlassOf, stricterMode } from '../../webhook/mode.ts'
import type { Objects } from './gather.ts'
import type { Rules } from './rules.ts'

export interface Guard {
  readonly identity: PodIdentity
  readonly settings: SidecarSettings
  readonly mode: Mode
  /** What the mode comes from, where it is no default. */
  readonly modeBy?: string
  /** Whether its sidecar is ready. */
  readonly ready: boolean
  /** An operator revoked the Pod: no other guarded Pod accepts its identity, and its own sidecar lets nothing pass. */
  readonly revoked: boolean
  /** Of its namespace, or that of a revoked Pod. */
  readonly policies: readonly NetworkPolicy[]
  readonly judge: Judge
}

/** The live Pod of that uid that has a network of its own. */
export function findPod({ cluster }: Pick<Objects, 'cluster'>, uid: string): V1Pod | undefined {
  for (const pod of cluster.list('Pod')) {
    if (pod.metadata?.uid === uid && isLive(pod) && pod.spec?.hostNetwork !== true) return pod
  }
  return undefined
}

/** The guard of a Pod; undefined where nobody guards it. Throws ControlError where its sidecar could not start either. */
export function guardOf(objects: Objects, rules: Rules, pod: V1Pod): Guard | undefined {
  const namespace = objects.cluster.get('Namespace', pod.metadata?.namespace ?? '')
  if (pod.spec === undefined || namespace === undefined || !isGuarded(pod.spec)) return undefined
  const identity = podIdentity(pod, namespace, true)
  const sidecar = pod.spec.initContainers?.find(({ name }) => name === CONTAINER_SIDECAR)
  const settings = parseSettings(environmentOf(sidecar, pod))
  const revoked = isBlocked(rules.voids.get(identity.uid) ?? {})
  const ofNamespace = rules.policies.filter((policy) => policy.namespace === identity.namespace)
  const policies = revoked ? [quarantine(identity.namespace)] : ofNamespace
  const state = pod.status?.initContainerStatuses?.find(({ name }) => name === CONTAINER_SIDECAR)
  return {
    identity,
    settings,
    ...modeOf(pod, namespace.metadata?.annotations, rules.modes.get(identity.namespace)),
    ready: state?.ready === true,
    revoked,
    policies,
    judge: judgeOf(settings, createGatePolicy(compile(policies, identity)), objects.directory),
  }
}

function judgeOf(settings: SidecarSettings, policy: Judge['policy'], directory: Pick<Directory, 'lookup'>): Judge {
  return {
    settings,
    clusterNetworks: settings.clusterNetworks,
    // The sidecar's own list has the Pod's gateways too, which only the Pod can see.
    nodeAddresses: new Set([...settings.hostAddresses, ...settings.nodeAddresses]),
    directory: { get: (address) => directory.lookup(address) },
    policy,
  }
}

/** The variables that the kubelet gives to the container, as far as the Pod tells them. */
function environmentOf(container: V1Container | undefined, pod: V1Pod): Record<string, string> {
  const { metadata, spec, status } = pod
  const fields: Readonly<Record<string, string>> = {
    'metadata.namespace': metadata?.namespace ?? '',
    'metadata.name': metadata?.name ?? '',
    'metadata.uid': metadata?.uid ?? '',
    'spec.nodeName': spec?.nodeName ?? '',
    'status.podIPs': (status?.podIPs ?? []).map(({ ip }) => ip).join(','),
    'status.hostIPs': (status?.hostIPs ?? []).map(({ ip }) => ip).join(',') || (status?.hostIP ?? ''),
  }
  const variables = (container?.env ?? []).map(({ name, value, valueFrom }) => {
    return [name, value ?? fields[valueFrom?.fieldRef?.fieldPath ?? ''] ?? ''] as const
  })
  // Not told by the Pod, and nothing that is decided here depends on it.
  return { [API_SERVER_ENVIRONMENT.apiServerAddress]: '0.0.0.0', ...Object.fromEntries(variables) }
}

type Annotations = Readonly<Record<string, string>> | undefined

/** As the Pod's sidecar works it out, by the ConfigMap that it watches where that can be seen. */
function modeOf(
  { metadata }: V1Pod,
  ofNamespace: Annotations,
  watched: NamespaceMode | undefined,
): Pick<Guard, 'mode' | 'modeBy'> {
  const said = breakGlassOf(ofNamespace)
  const breakGlass = watched === undefined ? said?.mode : watched.breakGlass
  if (breakGlass !== undefined) {
    return { mode: breakGlass, modeBy: `the glass is broken: ${said?.reason ?? 'no reason is known'}` }
  }
  const ofPod = metadata?.annotations
  const mode = stricterMode(ofPod, watched === undefined ? ofNamespace : { [ANNOTATION_MODE]: watched.mode })
  if (ofPod?.[ANNOTATION_MODE] === undefined && ofNamespace?.[ANNOTATION_MODE] === undefined) return { mode }
  return { mode, modeBy: `${ANNOTATION_MODE} of its ${ofPod?.[ANNOTATION_MODE] === mode ? 'own' : 'namespace'}` }
}
