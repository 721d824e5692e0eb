/** What the contract suites need of a cluster: whoever plays its users, kubelets and controllers. */
import type { Cluster, ClusterKind, ClusterKinds } from '../../webhook/cluster.ts'
import { createMemoryCluster } from '../../webhook/memory-cluster.ts'

export interface Stage {
  readonly cluster: Cluster
  /** Creates an object or changes it (labels, annotations, status; a spec stays); resolves once it is accepted. */
  put<Kind extends ClusterKind>(kind: Kind, object: ClusterKinds[Kind]): Promise<void>
  /** At once, without a grace period. */
  remove(kind: ClusterKind, name: string, namespace?: string): Promise<void>
  /** A token as the kubelet projects it, bound to the Pod. */
  mintToken(options: { namespace: string; podName: string; audience: string }): Promise<string>
  /** Removes what was put. */
  close(): Promise<void>
}

export function createMemoryStage(): Stage {
  const cluster = createMemoryCluster({ now: () => Math.floor(Date.now() / 1_000) })
  return {
    cluster,
    put: async (kind, object) => cluster.put(kind, object),
    remove: async (kind, name, namespace) => cluster.delete(kind, name, namespace),
    mintToken: async (options) => cluster.mintToken(options),
    close: async () => {},
  }
}

const UNTIL_MS = 30_000

/** Resolves with what `find` finds, once it finds something. */
export async function until<Found>(
  what: string,
  find: () => Found | undefined | false | Promise<Found | undefined | false>,
): Promise<Found> {
  const end = Date.now() + UNTIL_MS
  for (;;) {
    const found = await find()
    if (found !== undefined && found !== false) return found
    if (Date.now() > end) throw new Error(`not within ${UNTIL_MS / 1_000} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
