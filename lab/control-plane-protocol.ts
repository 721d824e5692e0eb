/** What the lab says to the process that plays the control plane: the webhook, with a cluster in memory. */
import type { V1Pod } from '@kubernetes/client-node'
import type { VoidEntry } from '../api/identity.ts'
import type { RotationRequest, RotationStatus } from '../api/rotation.ts'
import type { InjectionSettings } from '../webhook/admission/settings.ts'
import type { ClusterKind, ClusterKinds } from '../webhook/cluster.ts'
import type { VoidRequest } from '../webhook/issuer/void-entries.ts'

export type ControlPlaneRequest =
  /** Starts the webhook; answers once it listens. */
  | {
      readonly do: 'start'
      readonly address: string
      readonly port: number
      readonly serverName: string
      readonly injection: InjectionSettings
      readonly witLifetimeSeconds?: number
    }
  /** Creates or replaces an object of the cluster. */
  | { readonly do: 'put'; readonly kind: ClusterKind; readonly object: ClusterKinds[ClusterKind] }
  | { readonly do: 'delete'; readonly kind: ClusterKind; readonly name: string; readonly namespace?: string }
  | {
      readonly do: 'mintToken'
      readonly namespace: string
      readonly podName: string
      readonly audience: string
      readonly lifetimeSeconds: number
    }
  /** Sends a Pod through the webhook's /mutate, as the API server does; answers the Pod to store. */
  | { readonly do: 'admit'; readonly pod: V1Pod }
  /** Declares WITs void, as an operator does. */
  | { readonly do: 'revoke'; readonly entry: VoidEntry }
  /** Asks for a Pod what an operator asks in the void list, and answers it as a replica does. */
  | { readonly do: 'requestVoid'; readonly uid: string; readonly request: VoidRequest }
  /** Asks for a rotation of the identity keys, as an operator does; its status is what operators see. */
  | { readonly do: 'requestRotation'; readonly request: RotationRequest }
  | { readonly do: 'rotationStatus' }

export type ControlPlaneAnswers = {
  readonly start: { readonly caCertificatePem: string }
  readonly put: null
  readonly delete: null
  readonly mintToken: string
  readonly admit: V1Pod
  readonly revoke: null
  readonly requestVoid: null
  readonly requestRotation: null
  readonly rotationStatus: RotationStatus | null
}
