import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { V1Namespace, V1Pod, V1Service } from '@kubernetes/client-node'
import { parseAllDocuments, type Tags } from 'yaml'
import { parseNetworkPolicy } from '../policy/parse.ts'
import type { NetworkPolicy } from '../policy/types.ts'
import { LabError } from './errors.ts'
import {
  type Field,
  fieldError,
  isAbsent,
  member,
  readInteger,
  readItems,
  readLabels,
  readName,
  readOneOf,
  readOptionalText,
  readText,
  readTextMap,
  requireObject,
} from './field.ts'
import { readPod } from './pod-manifest.ts'

export interface PolicyManifest {
  readonly policy: NetworkPolicy
  /** As it stood in the file, namespace filled in. */
  readonly object: unknown
}

/** What a directory of manifests asks for. */
export interface Manifests {
  /** Declared ones, and those that other objects name. */
  readonly namespaces: readonly V1Namespace[]
  readonly pods: readonly V1Pod[]
  readonly services: readonly V1Service[]
  readonly policies: readonly PolicyManifest[]
}

const WORKLOADS = ['Deployment', 'ReplicaSet', 'StatefulSet', 'DaemonSet'] as const
type Workload = (typeof WORKLOADS)[number]

const API_VERSIONS: Readonly<Record<string, string>> = {
  Namespace: 'v1',
  Pod: 'v1',
  Service: 'v1',
  List: 'v1',
  NetworkPolicy: 'networking.k8s.io/v1',
  Deployment: 'apps/v1',
  ReplicaSet: 'apps/v1',
  StatefulSet: 'apps/v1',
  DaemonSet: 'apps/v1',
}

/** More Pods than this are taken for a slip of the pen. */
const MAX_REPLICAS = 200

/**
 * YAML 1.1, as kubectl reads it (0644 is octal), without timestamps and sexagesimal numbers. Kinder in one thing: only
 * `true` and `false` are booleans, so that a namespace may be called y.
 */
function chooseTags(tags: Tags): Tags {
  const kept = tags.filter(
    (tag) => typeof tag === 'string' || (tag.format !== 'TIME' && !/:(timestamp|bool)$/.test(tag.tag)),
  )
  return [...kept, 'bool']
}

/** The documents of a file, a List's items each as one. Throws `lab-manifest` for text that is not YAML. */
export function readDocuments(text: string, fileName: string): Field[] {
  const documents = parseAllDocuments(text, { version: '1.1', customTags: chooseTags })
  return documents.flatMap((document, index) => {
    const where = documents.length > 1 ? `${fileName} document ${index + 1}` : fileName
    const [error] = document.errors
    if (error !== undefined) {
      throw new LabError('lab-manifest', `${where}: is not YAML: ${error.message.split('\n')[0]}`)
    }
    const field: Field = { value: document.toJS({ maxAliasCount: 100 }) as unknown, path: '', where }
    if (isAbsent(field)) return []
    requireObject(field)
    return member(field, 'kind').value === 'List' ? readItems(member(field, 'items')) : [field]
  })
}

interface Collected {
  namespaces: Map<string, V1Namespace>
  pods: Map<string, V1Pod>
  services: Map<string, V1Service>
  policies: Map<string, PolicyManifest>
}

function namespaceOf(object: Field): string {
  const field = member(member(object, 'metadata'), 'namespace')
  return isAbsent(field) ? 'default' : readName(field, 'label')
}

function add<T>(map: Map<string, T>, object: Field, key: string, value: T): void {
  if (map.has(key)) throw fieldError(member(object, 'metadata.name'), `${key} is there twice; rename one`)
  map.set(key, value)
}

function readService(object: Field, namespace: string, name: string): V1Service {
  const spec = requireObject(member(object, 'spec'))
  const selector = readLabels(member(spec, 'selector'))
  const type = readOneOf(member(spec, 'type'), ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'], 'ClusterIP')
  const clusterIp = readOptionalText(member(spec, 'clusterIP'))
  const externalTrafficPolicy = readOneOf(member(spec, 'externalTrafficPolicy'), ['Cluster', 'Local'], 'Cluster')
  const ports = readItems(member(spec, 'ports')).map((port) => {
    requireObject(port)
    const targetPort = member(port, 'targetPort')
    const nodePort = member(port, 'nodePort')
    if (!isAbsent(targetPort) && typeof targetPort.value !== 'string') readInteger(targetPort, 1, 65535)
    const portName = readOptionalText(member(port, 'name'))
    return {
      ...(portName !== undefined && { name: portName }),
      port: readInteger(member(port, 'port'), 1, 65535),
      protocol: readOneOf(member(port, 'protocol'), ['TCP', 'UDP', 'SCTP'], 'TCP'),
      ...(!isAbsent(targetPort) && { targetPort: targetPort.value as number | string }),
      ...(!isAbsent(nodePort) && { nodePort: readInteger(nodePort, 1, 65535) }),
    }
  })
  if (ports.length === 0 && type !== 'ExternalName' && clusterIp !== 'None') {
    throw fieldError(member(spec, 'ports'), 'is empty; a Service needs a port')
  }
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels: readLabels(member(member(object, 'metadata'), 'labels')) },
    spec: {
      type,
      selector,
      ports,
      ...(type !== 'ClusterIP' && { externalTrafficPolicy }),
      ...(clusterIp !== undefined && { clusterIP: clusterIp }),
    },
  }
}

function addWorkload(collected: Collected, object: Field, kind: Workload, namespace: string, name: string): void {
  const spec = requireObject(member(object, 'spec'))
  const replicas = member(spec, 'replicas')
  const count = kind === 'DaemonSet' || isAbsent(replicas) ? 1 : readInteger(replicas, 0, MAX_REPLICAS)
  const template = requireObject(member(spec, 'template'))
  for (let index = 0; index < count; index++) {
    const podName = `${name}-${index}`
    add(collected.pods, object, `${namespace}/${podName}`, readPod(template, { namespace, name: podName }))
  }
}

function addObject(collected: Collected, object: Field): void {
  const kind = readText(member(requireObject(object), 'kind'))
  const apiVersion = API_VERSIONS[kind]
  if (apiVersion === undefined) {
    const known = Object.keys(API_VERSIONS).join(', ')
    throw fieldError(member(object, 'kind'), `${kind} is not one that the lab runs; use ${known}, or move it elsewhere`)
  }
  if (member(object, 'apiVersion').value !== apiVersion) {
    throw fieldError(member(object, 'apiVersion'), `must be ${apiVersion} for kind ${kind}`)
  }
  const metadata = requireObject(member(object, 'metadata'))
  const name = readName(member(metadata, 'name'), kind === 'Namespace' || kind === 'Service' ? 'label' : 'subdomain')
  if (kind === 'Namespace') {
    const labels = { ...readLabels(member(metadata, 'labels')), 'kubernetes.io/metadata.name': name }
    const annotations = readTextMap(member(metadata, 'annotations'))
    add(collected.namespaces, object, name, { apiVersion, kind, metadata: { name, labels, annotations } })
    return
  }
  const namespace = namespaceOf(object)
  const key = `${namespace}/${name}`
  if (kind === 'Pod') add(collected.pods, object, key, readPod(object, { namespace, name }))
  else if (kind === 'Service') add(collected.services, object, key, readService(object, namespace, name))
  else if (kind === 'NetworkPolicy') {
    const value = { ...(object.value as object), metadata: { ...(metadata.value as object), namespace } }
    add(collected.policies, object, key, { policy: parseNetworkPolicy(value, object.where), object: value })
  } else addWorkload(collected, object, kind as Workload, namespace, name)
}

/** A namespace that no file declares has no label but the one that every namespace gets. */
function addUndeclaredNamespaces({ namespaces, pods, services, policies }: Collected): void {
  const objects = [...pods.keys(), ...services.keys(), ...policies.keys()]
  for (const name of objects.map((key) => key.slice(0, key.indexOf('/')))) {
    if (namespaces.has(name)) continue
    const labels = { 'kubernetes.io/metadata.name': name }
    namespaces.set(name, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels, annotations: {} } })
  }
}

/** The objects in texts of YAML, by file name. Throws LabError or PolicyError, which name file, document and field. */
export function parseManifests(files: ReadonlyMap<string, string>): Manifests {
  const collected: Collected = { namespaces: new Map(), pods: new Map(), services: new Map(), policies: new Map() }
  for (const [fileName, text] of files) {
    for (const object of readDocuments(text, fileName)) addObject(collected, object)
  }
  addUndeclaredNamespaces(collected)
  const { namespaces, pods, services, policies } = collected
  return {
    namespaces: [...namespaces.values()],
    pods: [...pods.values()],
    services: [...services.values()],
    policies: [...policies.values()],
  }
}

/** The manifests of a directory's `.yaml` and `.yml` files, in the order of their names, without its subdirectories. */
export function readManifests(directory: string): Manifests {
  let names: string[]
  try {
    names = readdirSync(directory)
      .filter((name) => /\.ya?ml$/.test(name))
      .sort()
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code === 'ENOTDIR' ? 'is no directory' : 'cannot be read'
    throw new LabError('lab-manifest', `${directory} ${reason}`, { cause })
  }
  const paths = names.map((name) => join(directory, name)).filter((path) => statSync(path).isFile())
  if (paths.length === 0) throw new LabError('lab-manifest', `${directory} holds no .yaml or .yml file`)
  const manifests = parseManifests(new Map(paths.map((path) => [path, readFileSync(path, 'utf8')])))
  if (manifests.pods.length === 0) throw new LabError('lab-manifest', `${directory} declares no Pod`)
  return manifests
}
