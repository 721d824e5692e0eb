/** What Synguard knows of a Pod, and the bodies of the issuer's HTTP interface. */

export type Labels = Readonly<Record<string, string>>
export type Protocol = 'TCP' | 'UDP' | 'SCTP'

/** A container port with a name, as NetworkPolicy refers to it. */
export interface NamedPort {
  readonly name: string
  readonly port: number
  readonly protocol: Protocol
}

/** A Pod as policies see it: what a WIT claims, and what the directory says of a Pod without a sidecar. */
export interface PodIdentity {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly serviceAccount: string
  readonly labels: Labels
  readonly namespaceLabels: Labels
  /** Canonical text (RFC 5952 for IPv6), at most one of each family. */
  readonly addresses: readonly string[]
  readonly ports: readonly NamedPort[]
  /** Set where the Pod keeps powers that let it bypass its own sidecar: the reasons. */
  readonly degraded?: readonly string[]
}

/** What the directory (`/v1/peers?ip=`) says of one address. */
export type DirectoryEntry =
  | { readonly kind: 'pod'; readonly guarded: boolean; readonly pod: PodIdentity }
  | {
      readonly kind: 'service'
      readonly namespace: string
      readonly name: string
      readonly ports: readonly ServicePort[]
    }
  /** Its ports that lead to Services; whatever answers on another one, policies see as the node. */
  | { readonly kind: 'node'; readonly name: string; readonly ports: readonly NodePort[] }
  /** Two live Pods claim the address, or its Pod is not a peer by label: only ipBlock rules match. */
  | { readonly kind: 'unmatched'; readonly reason: string }
  /** No object of the cluster has this address. */
  | { readonly kind: 'external' }

/** A node port, of Services of the types NodePort and LoadBalancer: every node has the same ones. */
export interface NodePort {
  readonly protocol: Protocol
  readonly port: number
  /** The Service at its cluster address of the same family: that address's entry says who is behind the port. */
  readonly serviceAddress: string
  readonly servicePort: number
}

export interface ServicePort {
  readonly protocol: Protocol
  readonly port: number
  readonly backends: readonly ServiceBackend[]
}

export interface ServiceBackend {
  readonly address: string
  /** The real port (targetPort resolved for this backend). */
  readonly port: number
  readonly guarded: boolean
  /** Absent where the endpoint is no Pod. */
  readonly pod?: PodIdentity
}

/** A public key set (RFC 7517) of ES256 keys, each with a kid. */
export interface TrustBundle {
  readonly keys: readonly BundleKey[]
  /** Grows with each write of the keys: of two bundles the later one holds. An issuer that rotates nothing says none. */
  readonly generation?: number
  /** In an emergency, the kid by which an identity must be: all others are about to be refused. */
  readonly signer?: string
}

export interface BundleKey {
  readonly kty: 'EC'
  readonly crv: 'P-256'
  readonly x: string
  readonly y: string
  readonly kid: string
}

export type Mode = 'enforce' | 'audit' | 'off'

/** `POST /v1/identity`. */
export interface IdentityRequest {
  /** The Pod's projected service account token with audience `synguard`. */
  readonly token: string
  /** JWS by the new key, header `jwk`; claims: aud `synguard`, `tkh` = base64url(SHA-256(token)), iat, jti. */
  readonly proof: string
}

export interface IdentityResponse {
  /** The WIT in compact form. */
  readonly wit: string
  readonly bundle: TrustBundle
}

/** A refusal by the webhook's HTTP interface; `code` is in docs/errors.md. */
export interface ErrorResponse {
  readonly error: { readonly code: string; readonly message: string }
}

/** WITs of this Pod issued at or before `iatBefore` (seconds) are void, or stand with other labels where these are given. */
export interface VoidEntry {
  readonly uid: string
  readonly iatBefore: number
  readonly labels?: Labels
  readonly namespaceLabels?: Labels
}

/**
 * `POST /v1/stream`: what a sidecar says when it connects or resumes. The reply is NDJSON, one StreamMessage a line,
 * until the server ends it (30 min +-20 %).
 */
export interface StreamRequest {
  /** kids of the bundle that the sidecar holds. */
  readonly bundle: readonly string[]
  /** Addresses whose directory entries the sidecar caches and wants to hear of. */
  readonly addresses: readonly string[]
  /** As `POST /v1/acknowledge` would say it; a sidecar from before rotation says nothing. */
  readonly acknowledge?: AcknowledgeRequest
}

/** `POST /v1/acknowledge`: which keys a sidecar holds; the answer is an empty object. */
export interface AcknowledgeRequest {
  /** Of its bundle; absent where that names a signer and the sidecar's identity is not by it yet. */
  readonly generation?: number
  /** The serving CAs by which it trusts the issuer: of each the SHA-256 of its certificate's PEM, in hex. */
  readonly authorities: readonly string[]
}

export type StreamMessage =
  | { readonly type: 'hello'; readonly bundle: TrustBundle; readonly voids: readonly VoidEntry[]; readonly mode: Mode }
  | { readonly type: 'ping' }
  /** Your labels changed: fetch a new WIT. */
  | { readonly type: 'renew' }
  | { readonly type: 'bundle'; readonly bundle: TrustBundle }
  | { readonly type: 'void'; readonly void: VoidEntry }
  | { readonly type: 'directory'; readonly address: string; readonly entry: DirectoryEntry }
  | { readonly type: 'mode'; readonly mode: Mode }

/**
 * `/v1/peers`, `/v1/stream` and `/v1/acknowledge` authenticate by WIT and proof of possession of its cnf key: a JWS (typ `wpt+jwt`,
 * ES256) with the claims aud `synguard`, htu (path and query), iat, jti.
 */
export const HEADER_WIT = 'workload-identity-token'
export const HEADER_PROOF = 'workload-proof-token'
