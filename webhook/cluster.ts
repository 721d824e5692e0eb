/** What the webhook needs of a cluster: live snapshots of its objects, their changes, and reviews of tokens. */

import type { V1EndpointSlice, V1Namespace, V1Node, V1Pod, V1Service } from '@kubernetes/client-node'

export interface ClusterKinds {
  readonly Pod: V1Pod
  readonly Namespace: V1Namespace
  readonly Service: V1Service
  readonly EndpointSlice: V1EndpointSlice
  readonly Node: V1Node
}
export type ClusterKind = keyof ClusterKinds

/** One object's change; without `before` it is new, without `after` it is gone. */
export type ClusterChange = {
  readonly [Kind in ClusterKind]: {
    readonly kind: Kind
    readonly before: ClusterKinds[Kind] | undefined
    readonly after: ClusterKinds[Kind] | undefined
  }
}[ClusterKind]

/** What a TokenReview says (authentication.k8s.io/v1), with the extras of a token that is bound to a Pod. */
export type TokenReview =
  | {
      readonly authenticated: true
      readonly audiences: readonly string[]
      readonly namespace: string
      readonly serviceAccount: string
      /** Absent where the token is bound to no Pod. */
      readonly podName?: string
      readonly podUid?: string
      readonly nodeName?: string
    }
  | { readonly authenticated: false; readonly reason: string }

export interface Cluster {
  /** Asks the cluster who a token stands for. Rejects only where the cluster cannot be asked. */
  reviewToken(token: string, audience: string): Promise<TokenReview>
  /** The object of that name, as last seen; Namespaces and Nodes have no namespace. */
  get<Kind extends ClusterKind>(kind: Kind, name: string, namespace?: string): ClusterKinds[Kind] | undefined
  /** Asks the cluster itself for an object: what was last seen may be behind. Rejects where it cannot be asked. */
  read<Kind extends ClusterKind>(kind: Kind, name: string, namespace?: string): Promise<ClusterKinds[Kind] | undefined>
  /** All objects of a kind as last seen. */
  list<Kind extends ClusterKind>(kind: Kind): Iterable<ClusterKinds[Kind]>
  /**
   * True once every kind was listed in full, and while the cluster is heard of: before and after that, nothing may be
   * concluded from what is missing.
   */
  synced(): boolean
  /** Calls `listener` after each change, in order, once get() shows it; the result ends that. */
  subscribe(listener: (change: ClusterChange) => void): () => void
}
