import { setTimeout as sleep } from 'node:timers/promises'
import type { V1ConfigMap } from '@kubernetes/client-node'
import {
  CONFIGMAP_ROTATION,
  CONFIGMAP_ROTATION_STATUS,
  parseRotationRequest,
  ROTATION_KINDS,
  type RotationKind,
  type RotationRequest,
  type RotationStatus,
} from '../../api/rotation.ts'
import { parseRotationStatus } from '../../api/rotation-status.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { ApiError, hasStatus } from '../../kubernetes/errors.ts'
import { describeFailure } from '../check/look.ts'

/** Where the ConfigMaps are. */
export interface RotationPlace {
  readonly client: ApiClient
  /** Synguard's. */
  readonly namespace: string
}

/** What both ConfigMaps say of one kind of keys. */
export interface RotationView {
  /** undefined where it is missing or spoilt, and `problems` says so. */
  readonly status?: RotationStatus
  /** The request that stands there, answered or not. */
  readonly request?: RotationRequest
  /** What is wrong with either, as sentences. */
  readonly problems: readonly string[]
}

export type RotationViews = Readonly<Record<RotationKind, RotationView>>

/** Reads both ConfigMaps. Rejects with ApiError where the caller may not, or the API server cannot be asked. */
export async function readRotation(place: RotationPlace): Promise<RotationViews> {
  const [requests, statuses] = await Promise.all([
    readData(place, CONFIGMAP_ROTATION),
    readData(place, CONFIGMAP_ROTATION_STATUS),
  ])
  const view = (kind: RotationKind): RotationView => {
    const { request, problems } = parseRotationRequest(kind, requests)
    const status = parseRotationStatus(kind, statuses)
    const ofRequest = problems.map((problem) => `${place.namespace}/${CONFIGMAP_ROTATION}, ${problem}`)
    const asked = { ...(request !== undefined && { request }) }
    if (status !== undefined && !('problem' in status)) return { ...asked, status, problems: ofRequest }
    const missing = `${kind}: is missing: no replica of the webhook has written it.`
    const problem = `${place.namespace}/${CONFIGMAP_ROTATION_STATUS}, ${status?.problem ?? missing}`
    return { ...asked, problems: [...ofRequest, problem] }
  }
  const [identity, serving] = ROTATION_KINDS.map(view) as [RotationView, RotationView]
  return { identity, serving }
}

/** The request that stands and was not answered. */
export function pendingRequest({ request, status }: RotationView): RotationRequest | undefined {
  return request?.id === status?.answered?.request ? undefined : request
}

const pathOf = ({ namespace }: RotationPlace, name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`

async function readData(place: RotationPlace, name: string): Promise<Readonly<Record<string, string>> | undefined> {
  try {
    const { data } = await place.client.send<V1ConfigMap>({ method: 'GET', path: pathOf(place, name) })
    return data
  } catch (error) {
    if (hasStatus(error, 404)) return undefined
    throw withRole(error, place)
  }
}

/** Writes one entry and leaves the rest. Rejects as readRotation() does. */
export async function writeRequest(place: RotationPlace, kind: RotationKind, text: string): Promise<void> {
  const send = (contentType: string, body: object) =>
    place.client.send({
      method: 'PATCH',
      path: pathOf(place, CONFIGMAP_ROTATION),
      query: { fieldManager: 'synguard-certs' },
      contentType,
      body,
    })
  const data = { [kind]: text }
  try {
    await send('application/merge-patch+json', { data }).catch((error: unknown) => {
      if (!hasStatus(error, 404)) throw error
      // Deleted: an apply names its object, so that the right to make it can be restricted to that name.
      const metadata = { name: CONFIGMAP_ROTATION }
      return send('application/apply-patch+yaml', { apiVersion: 'v1', kind: 'ConfigMap', metadata, data })
    })
  } catch (error) {
    throw withRole(error, place)
  }
}

const RETRY_MS = 1_000

/** What `read` resolves with, as soon as the API server can be reached; `note` hears once that it cannot. */
export async function patiently<Result>(
  read: () => Promise<Result>,
  note: (line: string) => void,
  signal?: AbortSignal,
): Promise<Result> {
  for (let failures = 0; ; failures++) {
    try {
      return await read()
    } catch (error) {
      const isAway = error instanceof ApiError && error.code === 'api-unreachable'
      if (!isAway || signal?.aborted) throw error
      if (failures === 0) note(`${error.message} Trying again.`)
      await sleep(RETRY_MS)
    }
  }
}

function withRole(error: unknown, { namespace }: RotationPlace): unknown {
  if (!(error instanceof ApiError) || error.status !== 403) return error
  const role = `the ClusterRole synguard-operator, bound in namespace ${namespace}, gives the right`
  return new ApiError('api-refused', `${describeFailure(error)}; ${role}`, { status: 403 }, { cause: error })
}
