import type { V1Namespace, V1Pod, V1PodSpec } from '@kubernetes/client-node'
import { TOKEN_AUDIENCE } from '../../api/names.ts'
import { isSelected } from '../admission/inject.ts'
import type { Cluster, TokenReview } from '../cluster.ts'
import { isLive, podAddresses } from '../directory/pod-identity.ts'
import { WebhookError } from '../errors.ts'
import { POD_WAIT_MS } from '../limits.ts'
import type { WebhookSettings } from '../settings.ts'

/** A Pod that a token speaks for. */
export interface BoundToken {
  readonly namespace: string
  readonly serviceAccount: string
  readonly podName: string
  readonly podUid: string
  readonly nodeName: string
}

export interface AttestedPod {
  readonly pod: V1Pod
  readonly namespace: V1Namespace
  /** Seconds since the epoch; absent unless the Pod is being deleted. */
  readonly deletedAt?: number
}

export interface AttestOptions {
  readonly cluster: Cluster
  readonly namespaceLabel: WebhookSettings['namespaceLabel']
  readonly isGuarded: (spec: V1PodSpec) => boolean
  /** Seconds since the epoch. */
  readonly now: () => number
  readonly waitMs?: number
}

/**
 * The Pod that the API server binds a token to. Rejects with WebhookError: `token-refused`, `token-unbound`,
 * `cluster-unavailable`.
 */
export async function reviewBoundToken(cluster: Cluster, token: string): Promise<BoundToken> {
  let review: TokenReview
  try {
    review = await cluster.reviewToken(token, TOKEN_AUDIENCE)
  } catch (error) {
    throw new WebhookError('cluster-unavailable', 'The API server could not review the token.', { cause: error })
  }
  // An API server that knows no audiences leaves the list empty (authentication.k8s.io/v1): refused.
  if (!review.authenticated || !review.audiences.includes(TOKEN_AUDIENCE)) {
    throw new WebhookError('token-refused', `The token is not valid for the audience ${TOKEN_AUDIENCE}.`)
  }
  const { namespace, serviceAccount, podName, podUid, nodeName } = review
  if (!podName || !podUid || !nodeName) {
    throw new WebhookError('token-unbound', 'The token is not bound to a Pod and its node; use the projected token.')
  }
  return { namespace, serviceAccount, podName, podUid, nodeName }
}

/**
 * The live, guarded Pod of a token, asked for from one of the Pod's own addresses. Waits a few seconds for a Pod or an
 * address that the watch has not shown yet; then reads Pod and namespace from the cluster itself. A void of another
 * replica may be younger than what our watch has shown, and would not reach a WIT with labels of before that is signed
 * after it. Rejects with WebhookError.
 */
export async function attestPod(
  options: AttestOptions,
  token: BoundToken,
  remoteAddress: string,
): Promise<AttestedPod> {
  await awaitPod(options, token)
  const { pod, namespace } = await readPod(options.cluster, token)
  const { metadata, spec } = pod
  if (spec?.nodeName !== token.nodeName || (spec.serviceAccountName ?? 'default') !== token.serviceAccount) {
    throw new WebhookError('pod-mismatch', 'The Pod has another node or service account than its token.')
  }
  if (!isLive(pod)) throw new WebhookError('pod-deleted', 'The Pod is finished.')
  const deletedAt = toSeconds(metadata?.deletionTimestamp)
  if (deletedAt !== undefined && deletedAt <= options.now()) {
    throw new WebhookError('pod-deleted', 'The Pod is past its deletion time.')
  }
  if (namespace === undefined || !isSelected(namespace.metadata?.labels ?? {}, options.namespaceLabel)) {
    throw new WebhookError('namespace-not-guarded', `Namespace ${token.namespace} is not selected for injection.`)
  }
  if (spec.hostNetwork === true || !options.isGuarded(spec)) {
    throw new WebhookError('pod-not-guarded', 'The Pod spec does not hold the sidecar; make the Pod again.')
  }
  if (!podAddresses(pod).includes(remoteAddress)) {
    throw new WebhookError(
      'address-mismatch',
      `The request comes from ${remoteAddress}, the Pod has ${podAddresses(pod).join(' and ')}.`,
    )
  }
  return { pod, namespace, ...(deletedAt === undefined ? {} : { deletedAt }) }
}

/** Pod and namespace as they stand at the cluster. */
async function readPod(
  cluster: Cluster,
  token: BoundToken,
): Promise<{ pod: V1Pod; namespace: V1Namespace | undefined }> {
  let found: [V1Pod | undefined, V1Namespace | undefined]
  try {
    found = await Promise.all([
      cluster.read('Pod', token.podName, token.namespace),
      cluster.read('Namespace', token.namespace),
    ])
  } catch (error) {
    throw new WebhookError('cluster-unavailable', 'The API server could not be asked for the Pod.', { cause: error })
  }
  const [pod, namespace] = found
  if (pod?.metadata?.uid !== token.podUid) throw new WebhookError('pod-unknown', 'The Pod of the token is gone.')
  return { pod, namespace }
}

/** The Pod of the token's name and uid, once it has an address; the watch may be behind the token and the kubelet. */
function awaitPod({ cluster, waitMs = POD_WAIT_MS }: AttestOptions, token: BoundToken): Promise<V1Pod> {
  const find = (): V1Pod | undefined => {
    const pod = cluster.get('Pod', token.podName, token.namespace)
    return pod?.metadata?.uid === token.podUid ? pod : undefined
  }
  const isReady = (pod: V1Pod | undefined): pod is V1Pod => pod !== undefined && podAddresses(pod).length > 0
  const found = find()
  if (isReady(found)) return Promise.resolve(found)
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      unsubscribe()
      const known = find() !== undefined
      reject(
        known
          ? new WebhookError('pod-without-address', 'The Pod has no address in its status yet.')
          : new WebhookError('pod-unknown', 'There is no Pod with the name and uid of the token.'),
      )
    }, waitMs)
    const unsubscribe = cluster.subscribe(({ kind }) => {
      const pod = kind === 'Pod' ? find() : undefined
      if (!isReady(pod)) return
      clearTimeout(timer)
      unsubscribe()
      resolve(pod)
    })
  })
}

/** A Kubernetes time as clients give it: a Date, or its text where an object came as JSON. */
function toSeconds(time: Date | string | undefined): number | undefined {
  if (time === undefined) return undefined
  const milliseconds = new Date(time).getTime()
  // A time that nobody can read is taken as past: the Pod is being deleted for certain.
  return Number.isNaN(milliseconds) ? 0 : Math.floor(milliseconds / 1_000)
}
