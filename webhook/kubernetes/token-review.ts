import type { V1TokenReview } from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'
import type { TokenReview } from '../cluster.ts'

const PATH = '/apis/authentication.k8s.io/v1/tokenreviews'
const SERVICE_ACCOUNT = /^system:serviceaccount:([^:]+):([^:]+)$/
/** KEP-4193 and its forerunner: what a bound token's claims become. */
const EXTRA_POD_NAME = 'authentication.kubernetes.io/pod-name'
const EXTRA_POD_UID = 'authentication.kubernetes.io/pod-uid'
const EXTRA_NODE_NAME = 'authentication.kubernetes.io/node-name'

/** Asks the API server whom a token stands for, for one audience. Rejects with ApiError where it cannot be asked. */
export async function reviewToken(client: ApiClient, token: string, audience: string): Promise<TokenReview> {
  const { status } = await client.send<V1TokenReview>({
    method: 'POST',
    path: PATH,
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token, audiences: [audience] } },
  })
  if (status?.authenticated !== true) {
    return { authenticated: false, reason: status?.error ?? 'the API server does not know the token' }
  }
  const [, namespace, serviceAccount] = SERVICE_ACCOUNT.exec(status.user?.username ?? '') ?? []
  if (namespace === undefined || serviceAccount === undefined) {
    return { authenticated: false, reason: 'the token is no service account' }
  }
  const extra = status.user?.extra ?? {}
  const podName = extra[EXTRA_POD_NAME]?.[0]
  const podUid = extra[EXTRA_POD_UID]?.[0]
  const nodeName = extra[EXTRA_NODE_NAME]?.[0]
  return {
    authenticated: true,
    audiences: status.audiences ?? [],
    namespace,
    serviceAccount,
    ...(podName !== undefined && { podName }),
    ...(podUid !== undefined && { podUid }),
    ...(nodeName !== undefined && { nodeName }),
  }
}
