import { isDeepStrictEqual } from 'node:util'
import type {
  KubernetesObject,
  V1ConfigMap,
  V1Namespace,
  V1OwnerReference,
  V1RoleBinding,
} from '@kubernetes/client-node'
import type { Mode } from '../../api/identity.ts'
import { CONFIGMAP_CA, CONFIGMAP_MODE, KEY_BREAK_GLASS, KEY_MODE } from '../../api/names.ts'
import type { BreakGlass } from '../mode.ts'

/** The ClusterRole with which Pods of a labelled namespace read its policies, and the RoleBinding that gives it. */
export const POLICY_READER = 'synguard-policy-reader'
const MANAGED_BY = { 'app.kubernetes.io/managed-by': 'synguard' }

/** The ClusterRole as owner: what is in namespaces goes with it, also where no webhook is left to remove it. */
export function ownerOf(role: KubernetesObject): V1OwnerReference {
  const { name = '', uid = '' } = role.metadata ?? {}
  return { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', name, uid }
}

/** The sidecars of a namespace read its policies with their own Pods' tokens. */
export function policyReaderBinding(namespace: string, owner: V1OwnerReference): V1RoleBinding {
  const apiGroup = 'rbac.authorization.k8s.io'
  return {
    apiVersion: `${apiGroup}/v1`,
    kind: 'RoleBinding',
    metadata: { name: POLICY_READER, namespace, labels: MANAGED_BY, ownerReferences: [owner] },
    roleRef: { apiGroup, kind: 'ClusterRole', name: owner.name },
    subjects: [{ apiGroup, kind: 'Group', name: `system:serviceaccounts:${namespace}` }],
  }
}

/** What sidecars trust the issuer by. */
export function caConfigMap(namespace: string, owner: V1OwnerReference, bundle: string): V1ConfigMap {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: CONFIGMAP_CA, namespace, labels: MANAGED_BY, ownerReferences: [owner] },
    data: { 'ca.crt': bundle },
  }
}

/** What sidecars read of the namespace's mode. Both keys are always there: what others add to the data stays. */
export function modeConfigMap(
  namespace: string,
  owner: V1OwnerReference,
  mode: Mode,
  breakGlass: BreakGlass | undefined,
): V1ConfigMap {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: CONFIGMAP_MODE, namespace, labels: MANAGED_BY, ownerReferences: [owner] },
    data: { [KEY_MODE]: mode, [KEY_BREAK_GLASS]: breakGlass?.mode ?? '' },
  }
}

/** Whether `found` is what we made of `wanted`, whatever others added to its metadata and data. */
export function isAsWanted<Kind extends V1RoleBinding | V1ConfigMap>(found: Kind | undefined, wanted: Kind): boolean {
  if (found === undefined) return false
  const { metadata, ...fields } = wanted
  const owners = found.metadata?.ownerReferences ?? []
  return (
    isManaged(found) &&
    (metadata?.ownerReferences ?? []).every(({ uid }) => owners.some((owner) => owner.uid === uid)) &&
    Object.entries(fields).every(([name, value]) => isKept(found[name as keyof Kind], value, name))
  )
}

function isKept(found: unknown, wanted: unknown, name: string): boolean {
  // A list leaves out what each of its items is.
  if (name === 'apiVersion' || name === 'kind') return true
  if (name !== 'data') return isDeepStrictEqual(found, wanted)
  const data = (found ?? {}) as Record<string, string>
  return Object.entries(wanted as Record<string, string>).every(([key, value]) => data[key] === value)
}

/** Whether our label says that the object is ours to remove. */
export function isManaged(object: KubernetesObject): boolean {
  return Object.entries(MANAGED_BY).every(([key, value]) => object.metadata?.labels?.[key] === value)
}

/** The level of Pod Security that the namespace enforces by its label, where it refuses our containers' NET_ADMIN. */
export function refusingPodSecurity(namespace: V1Namespace): string | undefined {
  const level = namespace.metadata?.labels?.['pod-security.kubernetes.io/enforce']
  return level === 'baseline' || level === 'restricted' ? level : undefined
}

/** A warning that everybody sees who looks at the events of the namespace. */
export function podSecurityEvent(namespace: V1Namespace, level: string, at: Date) {
  // One name: replicas do not repeat each other, and the API server forgets it after an hour.
  return namespaceEvent(namespace, at, {
    name: `synguard-pod-security-${level}`,
    type: 'Warning',
    reason: 'PodSecurityRefusesSidecar',
    message:
      `Pod Security "${level}" refuses the NET_ADMIN that Synguard's containers need, so no Pod can be made here: ` +
      `label the namespace pod-security.kubernetes.io/enforce=privileged, or take Synguard's label away.`,
  })
}

interface NamespaceEvent {
  readonly name: string
  readonly type: 'Normal' | 'Warning'
  /** CamelCase, of a fixed set. */
  readonly reason: string
  readonly message: string
}

/** An Event about a namespace, in it. The API server refuses a second one of its name, as long as it keeps the first. */
export function namespaceEvent({ metadata = {} }: V1Namespace, at: Date, event: NamespaceEvent) {
  const { name: namespace = '', uid } = metadata
  const { name, ...said } = event
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Namespace', name: namespace, namespace, uid },
    ...said,
    source: { component: 'synguard-webhook' },
    reportingComponent: 'synguard-webhook',
    reportingInstance: 'synguard-webhook',
    firstTimestamp: at.toISOString(),
    lastTimestamp: at.toISOString(),
    count: 1,
  }
}
