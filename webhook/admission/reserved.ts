import type { V1PodSpec } from '@kubernetes/client-node'
import { SIDECAR_UID, TOKEN_AUDIENCE } from '../../api/names.ts'
import type { AdmissionErrorCode } from './errors.ts'
import type { NamespaceFacts } from './namespace.ts'
import type { PlacedContainer, SpecifiedPod } from './pod.ts'
import { OUR_CONTAINERS, OUR_VOLUMES, workloadContainers } from './pod.ts'

/** A reason to refuse; no annotation admits those of this file. */
export interface Refusal {
  readonly code: AdmissionErrorCode
  /** Names container and field, and says what to do. */
  readonly message: string
  readonly field: string
}

/** What a container of the workload uses that belongs to the sidecar: its volumes, user id, port, process namespace. */
export function findReservedUses(placed: PlacedContainer, spec: V1PodSpec, healthPort: number): Refusal[] {
  const { container, field } = placed
  const who = `container "${container.name}"`
  const refusals: Refusal[] = []
  const refuse = (code: AdmissionErrorCode, at: string, rule: string) =>
    refusals.push({ code, field: at, message: `${who} (${at}) ${rule}` })

  for (const kind of ['volumeMounts', 'volumeDevices'] as const) {
    for (const [index, { name }] of (container[kind] ?? []).entries()) {
      if (OUR_VOLUMES.includes(name)) {
        refuse('reserved-volume', `${field}.${kind}[${index}]`, `mounts ${name}, which is the sidecar's: remove it`)
      }
    }
  }
  const ownUser = container.securityContext?.runAsUser
  if ((ownUser ?? spec.securityContext?.runAsUser) === SIDECAR_UID) {
    const at = (ownUser ?? undefined) === undefined ? 'spec' : field
    const rule = `runs as user ${SIDECAR_UID}, which is the sidecar's: take another`
    refuse('reserved-user', `${at}.securityContext.runAsUser`, rule)
  }
  for (const [index, { containerPort, protocol }] of (container.ports ?? []).entries()) {
    if (containerPort === healthPort && (protocol ?? 'TCP') === 'TCP') {
      const rule = `is ${healthPort}, the sidecar's health port: take another`
      refuse('reserved-port', `${field}.ports[${index}].containerPort`, rule)
    }
  }
  const target = 'targetContainerName' in container ? container.targetContainerName : undefined
  if (target && OUR_CONTAINERS.includes(target)) {
    const rule = `joins the processes of ${target}: target another container`
    refuse('sidecar-targeted', `${field}.targetContainerName`, rule)
  }
  return refusals
}

/** A token with our audience would let the workload ask the issuer for its own identity and key. */
function findReservedAudiences(spec: V1PodSpec): Refusal[] {
  return (spec.volumes ?? []).flatMap(({ name, projected }, volume) =>
    (projected?.sources ?? []).flatMap(({ serviceAccountToken }, source) => {
      if (serviceAccountToken?.audience !== TOKEN_AUDIENCE) return []
      const field = `spec.volumes[${volume}].projected.sources[${source}].serviceAccountToken.audience`
      const message = `volume "${name}" (${field}) projects a token for "${TOKEN_AUDIENCE}", which is the sidecar's: remove it`
      return [{ code: 'reserved-audience' as const, field, message }]
    }),
  )
}

const MESH_CONTAINERS: Readonly<Record<string, string>> = {
  'istio-proxy': 'Istio',
  'istio-init': 'Istio',
  'istio-validation': 'Istio',
  'linkerd-proxy': 'Linkerd',
  'linkerd-init': 'Linkerd',
}

/** Labels and annotations by which a Pod, or its namespace, asks for a mesh. */
const MESH_REQUESTS: readonly { mesh: string; key: string; values?: readonly string[] }[] = [
  { mesh: 'Istio', key: 'sidecar.istio.io/status' },
  { mesh: 'Istio', key: 'sidecar.istio.io/inject', values: ['true'] },
  { mesh: 'Istio', key: 'istio.io/dataplane-mode', values: ['ambient'] },
  { mesh: 'Linkerd', key: 'linkerd.io/proxy-version' },
  { mesh: 'Linkerd', key: 'linkerd.io/inject', values: ['enabled', 'ingress'] },
]

/** Signs of a mesh whose redirection would fight with ours. A namespace's request counts unless the Pod says otherwise. */
function findMeshes(pod: SpecifiedPod, namespace: NamespaceFacts): Refusal[] {
  const refusals: Refusal[] = []
  const refuse = (mesh: string, field: string, what: string) =>
    refusals.push({
      code: 'mesh-sidecar',
      field,
      message: `${what} ${mesh}, which redirects the Pod's traffic itself: use one of the two`,
    })
  for (const { container, field } of workloadContainers(pod.spec)) {
    const mesh = Object.hasOwn(MESH_CONTAINERS, container.name) ? MESH_CONTAINERS[container.name] : undefined
    if (mesh !== undefined) refuse(mesh, field, `container "${container.name}" (${field}) belongs to`)
  }
  for (const { mesh, key, values } of MESH_REQUESTS) {
    // In the order in which the meshes themselves look.
    const places = [
      { field: `metadata.labels[${key}]`, value: pod.metadata?.labels?.[key] },
      { field: `metadata.annotations[${key}]`, value: pod.metadata?.annotations?.[key] },
      { field: `namespace metadata.labels[${key}]`, value: namespace.labels[key] },
      { field: `namespace metadata.annotations[${key}]`, value: namespace.annotations[key] },
    ]
    const found = places.find(({ value }) => value !== undefined)
    if (found?.value !== undefined && (values === undefined || values.includes(found.value))) {
      refuse(mesh, found.field, `${found.field} asks for`)
    }
  }
  return refusals
}

/** Everything in the Pod that collides with the sidecar and that no annotation admits. */
export function findCollisions(pod: SpecifiedPod, namespace: NamespaceFacts, healthPort: number): Refusal[] {
  return [
    ...findMeshes(pod, namespace),
    ...workloadContainers(pod.spec).flatMap((placed) => findReservedUses(placed, pod.spec, healthPort)),
    ...findReservedAudiences(pod.spec),
  ]
}
