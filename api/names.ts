/** Names that users and other processes see: labels, annotations, containers, volumes, ports. */

/** Namespace label: `enabled` guards every new Pod in it. Pod label: `disabled` opts out where the namespace allows it. */
export const LABEL_INJECT = 'synguard.io/inject'
/** Namespace annotation: `"true"` lets Pods opt out with `synguard.io/inject: disabled`. */
export const ANNOTATION_ALLOW_OPT_OUT = 'synguard.io/allow-opt-out'
/** Namespace or Pod annotation: `enforce` (default), `audit` or `off`; the stricter of the two holds. */
export const ANNOTATION_MODE = 'synguard.io/mode'
/** Namespace annotation: the reason for which all its Pods audit at once, whatever else says; `off: REASON` is off. */
export const ANNOTATION_BREAK_GLASS = 'synguard.io/break-glass'
/** Namespace or Pod annotation: `resolve` (default) or `deny`: what peers without a WIT may match. */
export const ANNOTATION_PEERS = 'synguard.io/peers-without-identity'
/** Namespace or Pod annotation: `probes` (default) or `all`: what the Pod's own node may reach. */
export const ANNOTATION_NODE = 'synguard.io/node-access'
/** Namespace or Pod annotation: `reset` (default) or `drop`: what a refused TCP client sees. */
export const ANNOTATION_REFUSAL = 'synguard.io/refusal'
/** Pod annotation: `"true"` keeps NET_RAW in application containers; the Pod is then reported as degraded. */
export const ANNOTATION_KEEP_NET_RAW = 'synguard.io/keep-net-raw'
/** Pod annotation: `"true"` admits NET_ADMIN, SYS_ADMIN and privileged containers; the Pod is then reported as degraded. */
export const ANNOTATION_ALLOW_PRIVILEGED = 'synguard.io/allow-privileged'
/** Pod annotation that the webhook writes: `injected`, `injected; degraded: ...` or `skipped: ...`. Never trusted. */
export const ANNOTATION_STATUS = 'synguard.io/status'

export const CONTAINER_INIT = 'synguard-init'
export const CONTAINER_SIDECAR = 'synguard-sidecar'
/** Our projected volume (API token, synguard token, CA), in our containers only. */
export const VOLUME_CREDENTIALS = 'synguard-credentials'
/** Memory emptyDir with the identity table that outlives a restart of the sidecar. */
export const VOLUME_STATE = 'synguard-state'

/** The audience of the token that a sidecar shows to the issuer. */
export const TOKEN_AUDIENCE = 'synguard'
/** The ConfigMap in each labelled namespace with the CA of the issuer's certificate; key `ca.crt`. */
export const CONFIGMAP_CA = 'synguard-ca'
/** The ConfigMap in each labelled namespace with its mode, which sidecars watch; its keys are below. */
export const CONFIGMAP_MODE = 'synguard-mode'
/** The namespace's mode; a Pod's stricter one goes before it. */
export const KEY_MODE = 'mode'
/** `audit` or `off` while an operator has the glass broken, and goes before everything else; empty otherwise. */
export const KEY_BREAK_GLASS = 'break-glass'

/** Files of the projected volume: the token for the API server, and the CA of its certificate. */
export const FILE_API_TOKEN = 'api-token'
export const FILE_API_CA = 'api-ca.crt'
/** The ConfigMap that Kubernetes itself keeps in every namespace with that CA; key `ca.crt`. */
export const CONFIGMAP_API_CA = 'kube-root-ca.crt'

/** Where our containers find their volumes. */
export const PATH_CREDENTIALS = '/var/run/synguard/credentials'
export const PATH_STATE = '/var/run/synguard/state'

/**
 * The user that both our containers run as; the rules recognise the sidecar's raw packets by it, so no other container
 * of the Pod may run as it. Not 65532: that is "nonroot" of many images.
 */
export const SIDECAR_UID = 15900
/** Default port of the sidecar's health, readiness and metrics server. */
export const SIDECAR_HEALTH_PORT = 15900
/** NFQUEUE numbers in a Pod's network namespace: TCP, and everything else. */
export const QUEUE_TCP = 0
export const QUEUE_OTHER = 1
