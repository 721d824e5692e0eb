/** The part of a cluster that a connection's explanation needs, as the webhook's own directory sees it. */
import type { ApiClient } from '../../kubernetes/client.ts'
import { isGuarded } from '../../webhook/admission/pod.ts'
import type { ClusterKind, ClusterKinds } from '../../webhook/cluster.ts'
import { createDirectory, type Directory } from '../../webhook/directory/directory.ts'
import { pathOfKind, pathOfObject } from '../../webhook/kubernetes/objects.ts'
import { createMemoryCluster, type MemoryCluster } from '../../webhook/memory-cluster.ts'
import type { Seen } from '../check/facts.ts'
import { lookAt, lookThrough } from '../check/look.ts'
import { CliError } from '../errors.ts'

export interface Objects {
  readonly cluster: Pick<MemoryCluster, 'get' | 'list'>
  readonly directory: Pick<Directory, 'lookup'>
  /** What could not be seen, each as a sentence. */
  readonly unseen: readonly string[]
}

const KINDS: readonly Exclude<ClusterKind, 'Namespace'>[] = ['Pod', 'Service', 'EndpointSlice', 'Node']

/**
 * Pods, Services, endpoints, nodes and namespaces: of the whole cluster, as the webhook knows them, or where the rights
 * do not reach that far of those namespaces. Throws CliError `explain-unseen` where a Pod cannot be seen at all, or where
 * `needsAll` (somebody is named by address) and not every Pod can.
 */
export async function gatherObjects(
  client: ApiClient,
  namespaces: readonly string[],
  needsAll: boolean,
): Promise<Objects> {
  const cluster = createMemoryCluster({ now: () => 0 })
  const unseen: string[] = []
  await Promise.all(
    KINDS.map(async (kind) => {
      const all = await lookThrough<ClusterKinds[typeof kind]>(client, pathOfKind(kind))
      const found = all.seen || kind === 'Node' ? [all] : await lookInto(client, kind, namespaces)
      for (const part of found) if (part.seen) for (const object of part.value) cluster.put(kind, object)
      if (all.seen) return
      const failed = found.find((part) => !part.seen)
      const isVital = kind === 'Pod' && (needsAll || failed !== undefined)
      const reason = failed?.seen === false ? failed.reason : all.reason
      if (isVital) throw new CliError('explain-unseen', `Pods could not be seen: ${reason}`)
      unseen.push(`${NAMES[kind]} ${failed === undefined ? 'of other namespaces ' : ''}could not be seen: ${reason}`)
    }),
  )
  const needed = new Set([...namespaces, ...[...cluster.list('Pod')].map(({ metadata }) => metadata?.namespace ?? '')])
  await gatherNamespaces(client, cluster, needed, namespaces)
  return { cluster, directory: createDirectory({ cluster, isGuarded }), unseen }
}

const NAMES: Readonly<Record<ClusterKind, string>> = {
  Pod: 'Pods',
  Service: 'Services',
  EndpointSlice: 'EndpointSlices',
  Node: 'nodes',
  Namespace: 'namespaces',
}

type ListedKind = (typeof KINDS)[number]

function lookInto<Kind extends ListedKind>(
  client: ApiClient,
  kind: Kind,
  namespaces: readonly string[],
): Promise<Seen<readonly ClusterKinds[Kind][]>[]> {
  const [version, resource] = splitPath(pathOfKind(kind))
  return Promise.all(
    namespaces.map((namespace) =>
      lookThrough<ClusterKinds[Kind]>(client, `${version}/namespaces/${namespace}/${resource}`),
    ),
  )
}

function splitPath(path: string): [version: string, resource: string] {
  const slash = path.lastIndexOf('/')
  return [path.slice(0, slash), path.slice(slash + 1)]
}

/** A Pod is a peer by the labels of its namespace: without those nothing can be said of it. */
async function gatherNamespaces(
  client: ApiClient,
  cluster: MemoryCluster,
  needed: ReadonlySet<string>,
  named: readonly string[],
): Promise<void> {
  const all = await lookThrough<ClusterKinds['Namespace']>(client, pathOfKind('Namespace'))
  if (all.seen) {
    for (const namespace of all.value) cluster.put('Namespace', namespace)
    return
  }
  for (const name of needed) {
    const found = await lookAt<ClusterKinds['Namespace']>(client, pathOfObject('Namespace', name))
    if (found.seen && found.value !== undefined) cluster.put('Namespace', found.value)
    else if (!found.seen && named.includes(name)) {
      throw new CliError('explain-unseen', `Namespace ${name} could not be seen: ${found.reason}`)
    }
  }
}
