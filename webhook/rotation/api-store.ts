import type { V1Secret } from '@kubernetes/client-node'
import {
  CONFIGMAP_ROTATION,
  CONFIGMAP_ROTATION_STATUS,
  formatRotationStatus,
  parseRotationRequest,
  ROTATION_STATUS_SECONDS,
  type RotationKind,
  type RotationStatus,
} from '../../api/rotation.ts'
import { parseRotationStatus } from '../../api/rotation-status.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { ApiError, hasStatus } from '../../kubernetes/errors.ts'
import type { Cluster } from '../cluster.ts'
import { putEntries, readEntries } from '../issuer/config-map.ts'
import type { WebhookSettings } from '../settings.ts'
import { expectedPods, listPods } from './expected-pods.ts'
import { createReplicaRecords } from './replica-records.ts'
import type { RotationStore } from './store.ts'

export interface ApiStoreOptions<Material> {
  readonly client: ApiClient
  /** The webhook's own. */
  readonly namespace: string
  /** The Secret's name; the ConfigMaps of the replicas' records are named after it. */
  readonly secret: string
  readonly kind: RotationKind
  /** The text of the Secret's entry; parse throws AuthorityError. */
  readonly format: {
    parse(text: string | undefined): Keyring<Material>
    serialize(ring: Keyring<Material>): string
  }
  readonly cluster: Pick<Cluster, 'get' | 'list'>
  readonly namespaceLabel: WebhookSettings['namespaceLabel']
  readonly readPublished: RotationStore<Material>['readPublished']
  readonly signal: AbortSignal
}

const MERGE = 'application/merge-patch+json'

/** What a replica's ConfigMaps and its Lease are called, by the Secret's name. */
export function rotationNames(secret: string) {
  return { replicas: `${secret}-replicas`, acknowledged: `${secret}-acknowledged`, lease: secret }
}

/** A keyring in a Secret, and what belongs to it in ConfigMaps. Reads are GETs without a version, which etcd answers. */
export function createApiStore<Material>(options: ApiStoreOptions<Material>): RotationStore<Material> {
  const { client, namespace, secret, kind, format, cluster, namespaceLabel, readPublished, signal } = options
  const secrets = `/api/v1/namespaces/${namespace}/secrets`
  const entry = `${kind}.json`
  const records = createReplicaRecords({
    ...{ client, namespace, names: rotationNames(secret), signal },
    prefix: kind,
  })
  let told: { readonly text: string; readonly at: number } | undefined

  async function readKeyring() {
    try {
      const { data = {}, metadata } = await client.send<V1Secret>({
        method: 'GET',
        path: `${secrets}/${secret}`,
        signal,
      })
      const text = data[entry] === undefined ? undefined : Buffer.from(data[entry], 'base64').toString('utf8')
      return { value: format.parse(text), version: metadata?.resourceVersion ?? '' }
    } catch (error) {
      if (hasStatus(error, 404)) return { value: format.parse(undefined), version: '' }
      throw error
    }
  }

  /** Another entry of the Secret stays as it is. */
  async function writeKeyring(ring: Keyring<Material>, version: string): Promise<boolean> {
    const stringData = { [entry]: format.serialize(ring) }
    try {
      if (version === '') {
        const body = { apiVersion: 'v1', kind: 'Secret', type: 'Opaque', metadata: { name: secret }, stringData }
        await client.send({ method: 'POST', path: secrets, body, signal })
      } else {
        const body = { metadata: { resourceVersion: version }, stringData }
        await client.send({ method: 'PATCH', path: `${secrets}/${secret}`, contentType: MERGE, body, signal })
      }
      return true
    } catch (error) {
      // Somebody else wrote, made or deleted it.
      if (hasStatus(error, 409) || (version !== '' && hasStatus(error, 404))) return false
      throw withoutAnswer(error, `Secret ${namespace}/${secret}`)
    }
  }

  return {
    readKeyring,
    writeKeyring,
    ...records,
    async readRequest() {
      const data = await readEntries(client, { namespace, name: CONFIGMAP_ROTATION, signal })
      return parseRotationRequest(kind, data)
    },
    async listExpected() {
      return expectedPods(await listPods(client, signal), cluster, namespaceLabel)
    },
    seenExpected: () => expectedPods(cluster.list('Pod'), cluster, namespaceLabel),
    readPublished,
    async readStatus() {
      const data = await readEntries(client, { namespace, name: CONFIGMAP_ROTATION_STATUS, signal })
      const status = parseRotationStatus(kind, data)
      return status === undefined || 'problem' in status ? undefined : status
    },
    async writeStatus(status: RotationStatus) {
      const text = JSON.stringify({ ...status, at: 0 })
      const isKnown = told?.text === text && status.at < told.at + ROTATION_STATUS_SECONDS
      if (isKnown) return
      const data = formatRotationStatus(kind, status)
      await putEntries(client, { namespace, name: CONFIGMAP_ROTATION_STATUS, data, signal })
      told = { text, at: status.at }
    },
  }
}

/** An admission webhook or a proxy may quote what it refuses, and that is a private key. */
function withoutAnswer(error: unknown, what: string): unknown {
  if (!(error instanceof ApiError)) return error
  const { code, status, reason, retryAfterMs } = error
  return new ApiError(code, `${what} was not written (${[status, reason].filter(Boolean).join(' ') || 'no answer'}).`, {
    ...(status !== undefined && { status }),
    ...(reason !== undefined && { reason }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  })
}
