import type { V1Lease } from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
import { FIELD_MANAGER } from '../bootstrap/ca-bundle.ts'
import type { LeaseStore } from './store.ts'

export interface ApiLeaseOptions {
  readonly client: ApiClient
  readonly namespace: string
  readonly name: string
  /** After how long another replica takes it; for people, who find it in the Lease. */
  readonly seconds: number
  readonly signal: AbortSignal
}

/** Clocks of two replicas are not compared, so renewals are counted; the time beside them is for people. */
const ANNOTATION_BEAT = 'synguard.io/beat'

/** The Lease as the API server has it; it is made where there is none. */
export function createApiLease({ client, namespace, name, seconds, signal }: ApiLeaseOptions): LeaseStore {
  const path = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${name}`

  const read = () => client.send<V1Lease>({ method: 'GET', path, signal })

  /** By an apply, which names its object, so that its creation can be allowed by name. */
  const make = () =>
    client.send<V1Lease>({
      method: 'PATCH',
      path,
      query: { fieldManager: FIELD_MANAGER, force: 'true' },
      contentType: 'application/apply-patch+yaml',
      body: { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name } },
      signal,
    })

  return {
    async readLease() {
      const lease = await read().catch((error: unknown) => {
        if (hasStatus(error, 404)) return make()
        throw error
      })
      const { resourceVersion: version = '', annotations = {} } = lease.metadata ?? {}
      const holder = lease.spec?.holderIdentity
      if (!holder) return { value: undefined, version }
      // One that somebody else wrote has none: it then counts from when it was seen.
      const beat = Number.parseInt(annotations[ANNOTATION_BEAT] ?? '0', 10)
      return { value: { holder, beat: Number.isSafeInteger(beat) ? beat : 0 }, version }
    },
    async writeLease({ holder, beat }, resourceVersion) {
      const renewTime = new Date().toISOString().replace('Z', '000Z')
      const metadata = { resourceVersion, annotations: { [ANNOTATION_BEAT]: String(beat) } }
      const spec = { holderIdentity: holder, leaseDurationSeconds: seconds, renewTime }
      const contentType = 'application/merge-patch+json'
      try {
        await client.send({ method: 'PATCH', path, contentType, body: { metadata, spec }, signal })
        return true
      } catch (error) {
        if (hasStatus(error, 409) || hasStatus(error, 404)) return false
        throw error
      }
    },
  }
}
