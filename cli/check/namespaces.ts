import type { V1ConfigMap, V1Namespace, V1Pod, V1RoleBinding } from '@kubernetes/client-node'
import { CONFIGMAP_CA, CONFIGMAP_MODE } from '../../api/names.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { ApiError } from '../../kubernetes/errors.ts'
import type { InjectionSettings } from '../../webhook/admission/settings.ts'
import { POLICY_READER } from '../../webhook/namespaces/objects.ts'
import { type Admission, type NamespaceFacts, type Seen, seen, unseen } from './facts.ts'
import { describeFailure, eachOf, look, lookAt, lookThrough } from './look.ts'

const RBAC = '/apis/rbac.authorization.k8s.io/v1'
/** Namespaces that are looked at side by side, with a few requests each. */
const WIDTH = 6

/** The labelled namespaces with what is in them: their Pods alone are read, so that it works with rights in few. */
export async function gatherNamespaces(
  client: ApiClient,
  label: InjectionSettings['namespaceLabel'],
  image: string | undefined,
): Promise<Seen<readonly NamespaceFacts[]>> {
  const labelSelector = label.value === undefined ? label.key : `${label.key}=${label.value}`
  const namespaces = await lookThrough<V1Namespace>(client, '/api/v1/namespaces', { labelSelector })
  if (!namespaces.seen) return namespaces
  const live = namespaces.value.filter(({ metadata }) => metadata?.deletionTimestamp === undefined)
  return seen(await eachOf(live, WIDTH, (namespace) => gatherNamespace(client, namespace, image)))
}

async function gatherNamespace(
  client: ApiClient,
  namespace: V1Namespace,
  image: string | undefined,
): Promise<NamespaceFacts> {
  const name = namespace.metadata?.name ?? ''
  const [pods, ca, mode, binding, admission] = await Promise.all([
    lookThrough<V1Pod>(client, `/api/v1/namespaces/${name}/pods`),
    lookAt<V1ConfigMap>(client, `/api/v1/namespaces/${name}/configmaps/${CONFIGMAP_CA}`),
    lookAt<V1ConfigMap>(client, `/api/v1/namespaces/${name}/configmaps/${CONFIGMAP_MODE}`),
    lookAt<V1RoleBinding>(client, `${RBAC}/namespaces/${name}/rolebindings/${POLICY_READER}`),
    tryAdmission(client, name, image),
  ])
  return { namespace, pods, ca, mode, binding, admission }
}

/** A Pod that every level of Pod Security and any quota takes: what refuses it then refuses what was put into it. */
const harmlessPod = (image: string): V1Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'synguard-check' },
  spec: {
    automountServiceAccountToken: false,
    securityContext: { runAsNonRoot: true, runAsUser: 65534, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        name: 'check',
        image,
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        resources: { requests: { cpu: '1m', memory: '1Mi' }, limits: { cpu: '1m', memory: '1Mi' } },
      },
    ],
  },
})

/** Asks the API server to admit a Pod there, in a dry run: webhooks are called, nothing is stored. */
async function tryAdmission(
  client: ApiClient,
  namespace: string,
  // One that policies on images let in, where it is known.
  image = 'synguard.invalid/never-run',
): Promise<Seen<Admission>> {
  const request = { method: 'POST', path: `/api/v1/namespaces/${namespace}/pods`, query: { dryRun: 'All' } } as const
  const answer = await look(async (): Promise<Admission> => {
    try {
      return { kind: 'admitted', pod: await client.send<V1Pod>({ ...request, body: harmlessPod(image) }) }
    } catch (error) {
      // Some webhook may keep the API server busy for longer than anybody waits, while it answers everything else.
      const isLate = error instanceof ApiError && error.code === 'api-unreachable'
      if (isLate) return { kind: 'refused', status: 504, message: `no answer for a Pod: ${error.message}` }
      if (!(error instanceof ApiError) || error.status === undefined || error.status === 401) throw error
      return { kind: 'refused', status: error.status, message: messageOf(error) }
    }
  })
  if (!answer.seen || answer.value.kind === 'admitted') return answer
  const { message } = answer.value
  if (message.startsWith('you may not create pods')) return unseen(message)
  if (/error looking up service account/.test(message))
    return unseen(`namespace ${namespace} has no service account yet`)
  return answer
}

/** Without method, path and status. */
function messageOf(error: ApiError): string {
  return describeFailure(error).replace(/^POST \S+: \d+ \w* ?/, '')
}
