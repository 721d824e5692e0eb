import { randomBytes, randomUUID } from 'node:crypto'
import type { Cluster, ClusterChange, ClusterKind, ClusterKinds } from './cluster.ts'

/** A cluster in memory, for the lab and for tests: objects are put and deleted by whoever plays the API server. */
export interface MemoryCluster extends Cluster {
  /** Creates or replaces an object (by kind, namespace and name); without a uid it keeps the one it had, or gets a new one. */
  put<Kind extends ClusterKind>(kind: Kind, object: ClusterKinds[Kind]): void
  delete(kind: ClusterKind, name: string, namespace?: string): void
  /** A token as the kubelet projects it, bound to the Pod as it is now. */
  mintToken(options: TokenOptions): string
  /** False makes reviewToken reject and synced false, as while an API server is away. */
  setAvailable(available: boolean): void
}

export interface TokenOptions {
  readonly namespace: string
  readonly podName: string
  readonly audience: string
  readonly lifetimeSeconds?: number
}

interface MintedToken {
  readonly namespace: string
  readonly podName: string
  readonly podUid: string
  readonly nodeName: string
  readonly serviceAccount: string
  readonly audience: string
  readonly expiresAt: number
}

const DEFAULT_TOKEN_LIFETIME_SECONDS = 3_600

/** An empty cluster. `now` gives seconds since the epoch. */
export function createMemoryCluster(options: { now: () => number }): MemoryCluster {
  const objects: { [Kind in ClusterKind]: Map<string, ClusterKinds[Kind]> } = {
    Pod: new Map(),
    Namespace: new Map(),
    Service: new Map(),
    EndpointSlice: new Map(),
    Node: new Map(),
  }
  const tokens = new Map<string, MintedToken>()
  const listeners = new Set<(change: ClusterChange) => void>()
  let available = true

  function change<Kind extends ClusterKind>(kind: Kind, key: string, after: ClusterKinds[Kind] | undefined): void {
    const before: ClusterKinds[Kind] | undefined = objects[kind].get(key)
    if (after === undefined) objects[kind].delete(key)
    else objects[kind].set(key, after)
    if (before === undefined && after === undefined) return
    // The three belong to one kind by construction; the union cannot be told so for a generic one.
    const event = { kind, before, after } as unknown as ClusterChange
    for (const listener of [...listeners]) listener(event)
  }

  return {
    put(kind, object) {
      const { name, namespace, uid } = object.metadata ?? {}
      if (name === undefined) throw new TypeError(`${kind}: metadata.name is missing`)
      const known = objects[kind].get(keyOf(name, namespace))?.metadata?.uid
      // A copy: what callers do to their object later is no change of the cluster.
      const copy = structuredClone(object)
      copy.metadata = { ...copy.metadata, uid: uid ?? known ?? randomUUID() }
      change(kind, keyOf(name, namespace), copy)
    },
    delete(kind, name, namespace) {
      change(kind, keyOf(name, namespace), undefined)
    },
    get(kind, name, namespace) {
      return objects[kind].get(keyOf(name, namespace))
    },
    async read(kind, name, namespace) {
      if (!available) throw new Error('the cluster in memory is set unavailable')
      return objects[kind].get(keyOf(name, namespace))
    },
    list(kind) {
      return objects[kind].values()
    },
    synced: () => available,
    setAvailable(value) {
      available = value
    },
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    mintToken({ namespace, podName, audience, lifetimeSeconds = DEFAULT_TOKEN_LIFETIME_SECONDS }) {
      const pod = objects.Pod.get(keyOf(podName, namespace))
      if (pod === undefined) throw new TypeError(`Pod ${namespace}/${podName} does not exist`)
      const token = `memory.${randomBytes(32).toString('base64url')}`
      tokens.set(token, {
        namespace,
        podName,
        podUid: pod.metadata?.uid ?? '',
        nodeName: pod.spec?.nodeName ?? '',
        serviceAccount: pod.spec?.serviceAccountName ?? 'default',
        audience,
        expiresAt: options.now() + lifetimeSeconds,
      })
      return token
    },
    async reviewToken(token, audience) {
      if (!available) throw new Error('the cluster in memory is set unavailable')
      const minted = tokens.get(token)
      if (minted === undefined) return { authenticated: false, reason: 'unknown token' }
      if (minted.expiresAt <= options.now()) return { authenticated: false, reason: 'token expired' }
      if (minted.audience !== audience) return { authenticated: false, reason: 'token has another audience' }
      // As the API server does: a bound token dies with its Pod.
      const pod = objects.Pod.get(keyOf(minted.podName, minted.namespace))
      if (pod?.metadata?.uid !== minted.podUid) return { authenticated: false, reason: 'the bound Pod is gone' }
      const { namespace, serviceAccount, podName, podUid, nodeName } = minted
      return { authenticated: true, audiences: [audience], namespace, serviceAccount, podName, podUid, nodeName }
    },
  }
}

function keyOf(name: string, namespace = ''): string {
  return `${namespace}/${name}`
}
