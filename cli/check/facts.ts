/** What `synguard check` gathered of a cluster: the checks are functions of this and nothing else. */
import type {
  V1ConfigMap,
  V1Deployment,
  V1EndpointSlice,
  V1MutatingWebhookConfiguration,
  V1Namespace,
  V1Node,
  V1Pod,
  V1RoleBinding,
  V1Service,
  V1ValidatingAdmissionPolicy,
  V1ValidatingAdmissionPolicyBinding,
} from '@kubernetes/client-node'
import type { InjectionSettings } from '../../webhook/admission/settings.ts'
import type { RotationViews } from '../certs/rotation.ts'

/** A value, or why it could not be seen, as the end of a sentence. */
export type Seen<Value> =
  | { readonly seen: true; readonly value: Value }
  | { readonly seen: false; readonly reason: string }

export interface Facts {
  /** When, in milliseconds since the epoch. */
  readonly atMs: number
  readonly cluster: ClusterFacts
  readonly installation: InstallationFacts
  /** The namespaces with the label. */
  readonly namespaces: Seen<readonly NamespaceFacts[]>
  readonly pods: PodFacts
}

export interface ClusterFacts {
  /** `v1.37.2` */
  readonly version: Seen<string>
  /** The resources of admissionregistration.k8s.io/v1. */
  readonly admissionResources: Seen<readonly string[]>
  readonly nodes: Seen<readonly V1Node[]>
  readonly kubeProxy: Seen<KubeProxyFacts>
}

/** How kube-proxy translates, as far as its configuration says. */
export interface KubeProxyFacts {
  /** `ConfigMap kube-system/kube-proxy` */
  readonly source: string
  readonly masqueradeAll: boolean
  /** Traffic to Services from outside of these is masqueraded; empty where kube-proxy goes by something else. */
  readonly clusterCidrs: readonly string[]
}

export interface InstallationFacts {
  /** Where Synguard is, or would be. */
  readonly namespace: string
  readonly service: string
  /** Those with a webhook of our name. */
  readonly configurations: Seen<readonly V1MutatingWebhookConfiguration[]>
  readonly deployment: Seen<V1Deployment | undefined>
  readonly webhookService: Seen<V1Service | undefined>
  readonly endpoints: Seen<readonly V1EndpointSlice[]>
  readonly settings: Seen<SettingsFacts>
  readonly certificates: Seen<readonly ServedCertificate[]>
  readonly rotation: Seen<RotationViews>
  readonly policies: Seen<readonly V1ValidatingAdmissionPolicy[]>
  readonly policyBindings: Seen<readonly V1ValidatingAdmissionPolicyBinding[]>
}

export type SettingsFacts =
  | {
      readonly kind: 'read'
      readonly label: InjectionSettings['namespaceLabel']
      /** Absent while the Service has no address. */
      readonly injection?: InjectionSettings
    }
  | { readonly kind: 'wrong'; readonly problem: string }

/** What a replica shows in a TLS handshake, or why there was none. */
export interface ServedCertificate {
  /** The Pod's name, or the address of a webhook outside of the cluster. */
  readonly replica: string
  /** The names and addresses of which one must be in it. */
  readonly names: readonly string[]
  readonly certificatePem: Seen<string>
}

export interface NamespaceFacts {
  readonly namespace: V1Namespace
  readonly pods: Seen<readonly V1Pod[]>
  readonly ca: Seen<V1ConfigMap | undefined>
  readonly mode: Seen<V1ConfigMap | undefined>
  readonly binding: Seen<V1RoleBinding | undefined>
  /** What the API server says to a Pod, in a dry run. */
  readonly admission: Seen<Admission>
}

export type Admission =
  | { readonly kind: 'admitted'; readonly pod: V1Pod }
  | { readonly kind: 'refused'; readonly status: number; readonly message: string }

/** What Pods found out that were run for it. */
export interface PodFacts {
  readonly kernels: Seen<readonly KernelFacts[]>
  readonly guarded: Seen<RunPod>
  readonly paths: Seen<readonly PathFacts[]>
}

/** How a Pod that was run came out. */
export type RunPod =
  | { readonly kind: 'succeeded'; readonly seconds: number; readonly log?: string }
  | { readonly kind: 'failed'; readonly reason: string }

export interface KernelFacts {
  /** `6.18.5 amd64` */
  readonly kernel: string
  /** Where the Pod ran; others with the same kernel are taken to be the same. */
  readonly node: string
  readonly nodes: number
  readonly run: RunPod
}

/** Who a server Pod saw when a client Pod connected to it. */
export interface PathFacts {
  /** `node-1 to node-2` */
  readonly path: string
  readonly through: 'its address' | 'a Service'
  /** The client Pod's own addresses. */
  readonly from: readonly string[]
  readonly seenAs: Seen<string>
}

export const seen = <Value>(value: Value): Seen<Value> => ({ seen: true, value })
export const unseen = (reason: string): { readonly seen: false; readonly reason: string } => ({ seen: false, reason })
/** The value, or undefined where it could not be seen. */
export const known = <Value>(fact: Seen<Value>): Value | undefined => (fact.seen ? fact.value : undefined)
