import type { V1Container, V1EphemeralContainer, V1Pod, V1PodSpec } from '@kubernetes/client-node'
import { CONTAINER_INIT, CONTAINER_SIDECAR, VOLUME_CREDENTIALS, VOLUME_STATE } from '../../api/names.ts'
import { flag, list, map, number, numberOrText, object, required, text } from './shape.ts'

/** The node's directory of policies, where the policy source is a directory. */
export const VOLUME_POLICIES = 'synguard-policies'
/** Where the sidecar finds that directory. */
export const PATH_POLICIES = '/var/run/synguard/policies'

export const OUR_CONTAINERS: readonly string[] = [CONTAINER_INIT, CONTAINER_SIDECAR]
export const OUR_VOLUMES: readonly string[] = [VOLUME_CREDENTIALS, VOLUME_STATE, VOLUME_POLICIES]

/** A workload's container with its path in the Pod, for messages. */
export interface PlacedContainer {
  readonly container: V1Container | V1EphemeralContainer
  /** `spec.containers[0]` */
  readonly field: string
}

const socketAction = object({ port: required(numberOrText), host: text })
const handlers = { httpGet: socketAction, tcpSocket: socketAction }
const probe = object({ ...handlers, grpc: object({ port: required(number) }) })
const mounts = list(object({ name: required(text) }))
const resources = object({ limits: map(numberOrText), requests: map(numberOrText) })

const container = object({
  name: required(text),
  restartPolicy: text,
  targetContainerName: text,
  ports: list(object({ name: text, containerPort: required(number), protocol: text })),
  volumeMounts: mounts,
  volumeDevices: mounts,
  livenessProbe: probe,
  readinessProbe: probe,
  startupProbe: probe,
  lifecycle: object({ postStart: object(handlers), preStop: object(handlers) }),
  resources,
  securityContext: object({
    privileged: flag,
    runAsUser: number,
    capabilities: object({ add: list(text), drop: list(text) }),
  }),
})

const podSpec = object({
  containers: required(list(container)),
  initContainers: list(container),
  ephemeralContainers: list(container),
  hostNetwork: flag,
  hostPID: flag,
  shareProcessNamespace: flag,
  os: object({ name: text }),
  resources,
  securityContext: object({ runAsUser: number, appArmorProfile: object({ type: text }) }),
  volumes: list(
    object({
      name: required(text),
      projected: object({ sources: list(object({ serviceAccountToken: object({ audience: text }) })) }),
    }),
  ),
})

const pod = object({
  metadata: object({ name: text, generateName: text, labels: map(text), annotations: map(text) }),
  spec: required(podSpec),
})

/** A Pod whose spec is there. */
export type SpecifiedPod = V1Pod & { spec: V1PodSpec }

/**
 * Returns the value itself, typed, once every field that injection reads has the right type.
 * Throws AdmissionError `malformed-object` that names the field, below `at`.
 */
export function parsePod(value: unknown, at = ''): SpecifiedPod {
  required(pod)(value, at, 'malformed-object')
  // The check above covers what is read; the rest is carried over untouched.
  return value as SpecifiedPod
}

/** The workload's containers (without ours): init containers, containers, ephemeral containers. */
export function workloadContainers(spec: V1PodSpec): PlacedContainer[] {
  const lists = {
    initContainers: spec.initContainers ?? [],
    containers: spec.containers ?? [],
    ephemeralContainers: spec.ephemeralContainers ?? [],
  }
  return Object.entries(lists).flatMap(([name, containers]) =>
    containers
      .map((container, index) => ({ container, field: `spec.${name}[${index}]` }))
      .filter(({ container }) => !OUR_CONTAINERS.includes(container.name)),
  )
}

/** The Pod without containers and volumes of our names, and without AppArmor annotations for them. */
export function withoutOurs(pod: SpecifiedPod): SpecifiedPod {
  const { spec, metadata } = pod
  const foreign = <T extends { name: string }>(items: readonly T[]) =>
    items.filter(({ name }) => !OUR_CONTAINERS.includes(name))
  const annotations = Object.entries(metadata?.annotations ?? {}).filter(
    ([key]) => !OUR_CONTAINERS.some((name) => key === `container.apparmor.security.beta.kubernetes.io/${name}`),
  )
  return {
    ...pod,
    ...(metadata?.annotations && { metadata: { ...metadata, annotations: Object.fromEntries(annotations) } }),
    spec: {
      ...spec,
      containers: foreign(spec.containers),
      ...(spec.initContainers && { initContainers: foreign(spec.initContainers) }),
      ...(spec.volumes && { volumes: spec.volumes.filter(({ name }) => !OUR_VOLUMES.includes(name)) }),
    },
  }
}

/**
 * Whether the Pod's spec holds our sidecar (as a native sidecar) and our init step, in a network namespace of its own.
 * The directory and the issuer go by this and never by a label or annotation.
 */
export function isGuarded(spec: V1PodSpec): boolean {
  const init = spec.initContainers ?? []
  return (
    spec.hostNetwork !== true &&
    init.some(({ name, restartPolicy }) => name === CONTAINER_SIDECAR && restartPolicy === 'Always') &&
    init.some(({ name, restartPolicy }) => name === CONTAINER_INIT && restartPolicy !== 'Always')
  )
}
