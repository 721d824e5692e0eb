/** The environment variables that the injected containers get. The webhook writes them, the sidecar parses them. */
export const ENVIRONMENT = {
  /** Downward API: metadata.namespace, metadata.name, metadata.uid, spec.nodeName. */
  podNamespace: 'SYNGUARD_POD_NAMESPACE',
  podName: 'SYNGUARD_POD_NAME',
  podUid: 'SYNGUARD_POD_UID',
  nodeName: 'SYNGUARD_NODE_NAME',
  /** Downward API: status.podIPs and status.hostIPs, comma separated. */
  podIps: 'SYNGUARD_POD_IPS',
  hostIps: 'SYNGUARD_HOST_IPS',
  /** `https://ADDRESS:PORT`; an address, so that no DNS is needed. */
  issuerUrl: 'SYNGUARD_ISSUER_URL',
  /** The name that the issuer's certificate must carry. */
  issuerName: 'SYNGUARD_ISSUER_NAME',
  trustDomain: 'SYNGUARD_TRUST_DOMAIN',
  /** `api` (the API server, as every cluster has it), or `directory:/path` with YAML files of NetworkPolicies. */
  policySource: 'SYNGUARD_POLICY_SOURCE',
  /** Comma separated CIDRs of Pods and Services: frames go only there. */
  clusterNetworks: 'SYNGUARD_CLUSTER_NETWORKS',
  /** Comma separated addresses that count as this Pod's node, beyond hostIPs and the default gateway. */
  nodeAddresses: 'SYNGUARD_NODE_ADDRESSES',
  /** enforce | audit | off */
  mode: 'SYNGUARD_MODE',
  /** resolve | deny */
  peersWithoutIdentity: 'SYNGUARD_PEERS_WITHOUT_IDENTITY',
  /** probes | all */
  nodeAccess: 'SYNGUARD_NODE_ACCESS',
  /** reset | drop */
  refusal: 'SYNGUARD_REFUSAL',
  /** Comma separated ports of the Pod's declared probes and lifecycle hooks: `TCP/8080,TCP/8081`. */
  probePorts: 'SYNGUARD_PROBE_PORTS',
  /** Port of /healthz, /readyz and /metrics. */
  healthPort: 'SYNGUARD_HEALTH_PORT',
  /** trace | debug | info | warn | error */
  logLevel: 'SYNGUARD_LOG_LEVEL',
} as const

/** Where the API server is: the kubelet gives every container the Service `kubernetes` in these, and nobody writes them. */
export const API_SERVER_ENVIRONMENT = {
  apiServerAddress: 'KUBERNETES_SERVICE_HOST',
  apiServerPort: 'KUBERNETES_SERVICE_PORT',
} as const
