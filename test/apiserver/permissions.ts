/** Everything that the webhook may do at the API server; its tests run with this and nothing more. */
import { CONFIGMAP_CA, CONFIGMAP_MODE } from '../../api/names.ts'
import { CONFIGMAP_ROTATION, CONFIGMAP_ROTATION_STATUS } from '../../api/rotation.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { POLICY_READER } from '../../webhook/namespaces/objects.ts'
import { createNamespace, unless } from './stage.ts'

export const SYSTEM = 'synguard-system'
export const ACCOUNT = { namespace: SYSTEM, name: 'web' }

const WATCH = ['list', 'watch']
const RBAC = 'rbac.authorization.k8s.io'

/** In the whole cluster; what has a name can be restricted to it, since lists, watches and applies name their object. */
export const CLUSTER_RULES = (webhookConfiguration: string) => [
  { apiGroups: [''], resources: ['pods', 'namespaces', 'services', 'nodes'], verbs: WATCH },
  { apiGroups: [''], resources: ['pods', 'namespaces'], verbs: ['get'] },
  { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: WATCH },
  { apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'] },
  {
    apiGroups: ['admissionregistration.k8s.io'],
    resources: ['mutatingwebhookconfigurations'],
    resourceNames: [webhookConfiguration],
    verbs: [...WATCH, 'patch'],
  },
  { apiGroups: [RBAC], resources: ['clusterroles'], resourceNames: [POLICY_READER], verbs: [...WATCH, 'bind'] },
  {
    apiGroups: [RBAC],
    resources: ['rolebindings'],
    resourceNames: [POLICY_READER],
    verbs: [...WATCH, 'create', 'patch', 'delete'],
  },
  {
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: [CONFIGMAP_CA, CONFIGMAP_MODE],
    verbs: [...WATCH, 'create', 'patch', 'delete'],
  },
  { apiGroups: ['synguard.io'], resources: ['issuers'], verbs: ['publish'] },
  { apiGroups: [''], resources: ['events'], verbs: ['create', 'patch'] },
]

/** In its own namespace. Creating a Secret cannot be restricted to a name: where it is installed empty it need not be. */
export const OWN_RULES = (secret: string, mayCreate: boolean) => [
  { apiGroups: [''], resources: ['secrets'], resourceNames: [secret], verbs: ['get', 'patch'] },
  ...(mayCreate ? [{ apiGroups: [''], resources: ['secrets'], verbs: ['create'] }] : []),
  {
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: ['synguard-voids'],
    verbs: [...WATCH, 'create', 'patch'],
  },
  {
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: [...'0123456789abcdef'].map((digit) => `synguard-issued-${digit}`),
    verbs: ['get', 'create', 'patch'],
  },
  { apiGroups: [''], resources: ['configmaps'], resourceNames: [CONFIGMAP_ROTATION], verbs: ['get'] },
  {
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: [CONFIGMAP_ROTATION_STATUS, `${secret}-replicas`, `${secret}-acknowledged`],
    verbs: ['get', 'create', 'patch'],
  },
  {
    apiGroups: ['coordination.k8s.io'],
    resources: ['leases'],
    resourceNames: [secret],
    verbs: ['get', 'create', 'patch'],
  },
]

/** Of a Pod's token in its own labelled namespace. */
export const POLICY_READER_RULES = [
  { apiGroups: ['networking.k8s.io'], resources: ['networkpolicies'], verbs: ['get', ...WATCH] },
  { apiGroups: [''], resources: ['configmaps'], resourceNames: [CONFIGMAP_MODE], verbs: ['get', ...WATCH] },
]

export interface InstalledNames {
  readonly secret: string
  readonly webhookConfiguration: string
}

/** Installs what stands before a webhook starts: namespace, account, permissions, the policy readers' role, Service. */
export async function install(admin: ApiClient, names: InstalledNames, mayCreateSecret = false): Promise<void> {
  const post = async (path: string, body: { metadata: { name: string }; [field: string]: unknown }) => {
    const existing = await unless(404, admin.send({ method: 'GET', path: `${path}/${body.metadata.name}` }))
    if (existing === undefined) await admin.send({ method: 'POST', path, body })
  }
  const rbac = `/apis/${RBAC}/v1`
  const role = names.secret
  const subjects = [{ kind: 'ServiceAccount', ...ACCOUNT }]
  await createNamespace(admin, SYSTEM)
  await post(`${rbac}/clusterroles`, { metadata: { name: role }, rules: CLUSTER_RULES(names.webhookConfiguration) })
  await post(`${rbac}/clusterrolebindings`, {
    metadata: { name: role },
    roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: role },
    subjects,
  })
  const own = `${rbac}/namespaces/${SYSTEM}`
  await post(`${own}/roles`, { metadata: { name: role }, rules: OWN_RULES(names.secret, mayCreateSecret) })
  await post(`${own}/rolebindings`, {
    metadata: { name: role },
    roleRef: { apiGroup: RBAC, kind: 'Role', name: role },
    subjects,
  })
  await post(`${rbac}/clusterroles`, {
    metadata: { name: POLICY_READER },
    rules: POLICY_READER_RULES,
  })
  await post(`/api/v1/namespaces/${SYSTEM}/services`, {
    metadata: { name: 'synguard-webhook' },
    spec: { clusterIP: '10.96.7.7', ports: [{ name: 'https', port: 443, targetPort: 8443 }] },
  })
}

/** The rules as manifests have them; the API server is at a URL, as no Service leads to a process of this machine. */
export function webhookConfiguration(name: string, port: number) {
  return {
    metadata: { name },
    webhooks: [
      {
        name: 'pods.synguard.io',
        admissionReviewVersions: ['v1'],
        sideEffects: 'NoneOnDryRun',
        failurePolicy: 'Fail',
        reinvocationPolicy: 'IfNeeded',
        timeoutSeconds: 10,
        namespaceSelector: { matchLabels: { 'synguard.io/inject': 'enabled' } },
        clientConfig: { url: `https://127.0.0.1:${port}/mutate` },
        rules: [
          { apiGroups: [''], apiVersions: ['v1'], resources: ['pods'], operations: ['CREATE'], scope: 'Namespaced' },
          {
            apiGroups: [''],
            apiVersions: ['v1'],
            resources: ['pods/ephemeralcontainers'],
            operations: ['UPDATE'],
            scope: 'Namespaced',
          },
        ],
      },
    ],
  }
}
