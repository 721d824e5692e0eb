import type {
  V1Container,
  V1EndpointSlice,
  V1Namespace,
  V1Node,
  V1NodeStatus,
  V1ObjectMeta,
  V1Pod,
  V1PodSpec,
  V1PodStatus,
  V1Service,
} from '@kubernetes/client-node'
import type { ClusterKind, ClusterKinds } from '../cluster.ts'

const GROUPS: Readonly<Record<ClusterKind, readonly [version: string, resource: string]>> = {
  Pod: ['/api/v1', 'pods'],
  Namespace: ['/api/v1', 'namespaces'],
  Service: ['/api/v1', 'services'],
  EndpointSlice: ['/apis/discovery.k8s.io/v1', 'endpointslices'],
  Node: ['/api/v1', 'nodes'],
}

/** Where the API server has all objects of a kind. */
export function pathOfKind(kind: ClusterKind): string {
  return GROUPS[kind].join('/')
}

/** Where the API server has one object; Namespaces and Nodes have no namespace. */
export function pathOfObject(kind: ClusterKind, name: string, namespace?: string): string {
  const [version, resource] = GROUPS[kind]
  const place = namespace === undefined ? [] : ['namespaces', namespace]
  return [version, ...place, resource, name].join('/')
}

const OUR_ANNOTATIONS = 'synguard.io/'
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration'

/** The fields of `object` that have a value, of those named. */
function pick<Value extends object, Name extends keyof Value>(
  object: Value,
  names: readonly Name[],
): Pick<Value, Name> {
  return Object.fromEntries(
    names.flatMap((name) => (object[name] === undefined || object[name] === null ? [] : [[name, object[name]]])),
  ) as Pick<Value, Name>
}

function metadata(from: V1ObjectMeta | undefined, isKept: (annotation: string) => boolean): V1ObjectMeta {
  const names = ['name', 'namespace', 'uid', 'resourceVersion', 'labels', 'deletionTimestamp'] as const
  const annotations = Object.entries(from?.annotations ?? {}).filter(([name]) => isKept(name))
  return {
    ...pick<V1ObjectMeta, (typeof names)[number]>(from ?? {}, names),
    ...(annotations.length > 0 && { annotations: Object.fromEntries(annotations) }),
  }
}

const isOurs = (annotation: string): boolean => annotation.startsWith(OUR_ANNOTATIONS)
const none = (): boolean => false

/** Of a container: its name, ports, powers, and whether it is a native sidecar. */
function container(from: V1Container): V1Container {
  const { name, securityContext } = from
  return {
    name,
    ...pick(from, ['ports', 'restartPolicy']),
    ...(securityContext && { securityContext: pick(securityContext, ['privileged', 'capabilities', 'runAsUser']) }),
  } as V1Container
}

function podSpec(from: V1PodSpec): V1PodSpec {
  const { containers, initContainers, ephemeralContainers } = from
  const names = ['nodeName', 'serviceAccountName', 'hostNetwork', 'hostPID', 'shareProcessNamespace'] as const
  return {
    ...pick<V1PodSpec, (typeof names)[number]>(from, names),
    containers: containers.map(container),
    ...(initContainers && { initContainers: initContainers.map(container) }),
    ...(ephemeralContainers && {
      ephemeralContainers: ephemeralContainers.map((one) => container(one as V1Container)),
    }),
  }
}

function podStatus(from: V1PodStatus): V1PodStatus {
  return { ...pick(from, ['phase', 'podIP', 'podIPs']), ...readiness(from) }
}

/** Of a status' conditions whether it is ready, without times, which change all the while. */
function readiness(from: V1PodStatus | V1NodeStatus) {
  const conditions = (from.conditions ?? []).filter(({ type }) => type === 'Ready')
  return { conditions: conditions.map(({ type, status }) => ({ type, status })) }
}

function stripPod(from: V1Pod): V1Pod {
  return {
    metadata: metadata(from.metadata, isOurs),
    ...(from.spec && { spec: podSpec(from.spec) }),
    ...(from.status && { status: podStatus(from.status) }),
  }
}

function stripNamespace(from: V1Namespace): V1Namespace {
  // Meshes are recognised by annotations of theirs.
  return {
    metadata: metadata(from.metadata, (name) => name !== LAST_APPLIED),
    ...(from.status && { status: pick(from.status, ['phase']) }),
  }
}

function stripService(from: V1Service): V1Service {
  return {
    metadata: metadata(from.metadata, none),
    ...(from.spec && {
      spec: pick(from.spec, [
        'ports',
        'selector',
        'clusterIP',
        'clusterIPs',
        'externalIPs',
        'type',
        'publishNotReadyAddresses',
      ]),
    }),
    ...(from.status && { status: pick(from.status, ['loadBalancer']) }),
  }
}

function stripEndpointSlice(from: V1EndpointSlice): V1EndpointSlice {
  return {
    metadata: metadata(from.metadata, none),
    addressType: from.addressType,
    ...(from.ports && { ports: from.ports }),
    endpoints: (from.endpoints ?? []).map((endpoint) => pick(endpoint, ['addresses', 'conditions'])),
  }
}

function stripNode(from: V1Node): V1Node {
  return {
    metadata: metadata(from.metadata, none),
    ...(from.spec && { spec: pick(from.spec, ['podCIDR', 'podCIDRs']) }),
    // The rest, the list of images above all, is several KB and changes every few seconds.
    ...(from.status && { status: { ...pick(from.status, ['addresses']), ...readiness(from.status) } }),
  }
}

/**
 * What is kept of an object: the fields that directory, issuer and admission read. A Pod as the API server sends it
 * takes some 10 KiB, most of it managedFields; of it stays about one.
 */
export const STRIP: { readonly [Kind in ClusterKind]: (object: ClusterKinds[Kind]) => ClusterKinds[Kind] } = {
  Pod: stripPod,
  Namespace: stripNamespace,
  Service: stripService,
  EndpointSlice: stripEndpointSlice,
  Node: stripNode,
}
