import type { SigningKey } from '../../certs/authority.ts'
import { rotationTiming } from '../../certs/rotation/facts.ts'
import { scheduledAt } from '../../certs/rotation/progress.ts'
import {
  parseIdentityKeyring,
  parseServingKeyring,
  serializeIdentityKeyring,
  serializeServingKeyring,
} from '../../certs/rotation/record.ts'
import type { ServingAuthority } from '../../certs/serving.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { createIdentityMaterial, createServingMaterial } from '../bootstrap/trust.ts'
import type { Cluster } from '../cluster.ts'
import type { Installation } from '../installation.ts'
import { createApiStore } from './api-store.ts'
import { createKeyRotation, type KeyRotation } from './rotation.ts'
import type { RotationStore } from './store.ts'

export interface KeyRotations {
  readonly identity: KeyRotation<SigningKey>
  readonly serving: KeyRotation<ServingAuthority>
}

export interface KeyRotationsOptions {
  readonly installation: Installation
  readonly client: ApiClient
  readonly cluster: Pick<Cluster, 'get' | 'list'>
  /** Seconds since the epoch. */
  readonly now: () => number
  readonly signal: AbortSignal
}

/** Both keyrings of an installation, over the API server. */
export function createKeyRotations({ installation, client, cluster, now, signal }: KeyRotationsOptions): KeyRotations {
  const { namespace, names, webhook, replica, rotateEverySeconds } = installation
  const { witLifetimeSeconds, skewSeconds, namespaceLabel } = webhook
  const shared = { client, namespace, secret: names.secret, cluster, namespaceLabel, signal }
  const timing = rotationTiming(witLifetimeSeconds, skewSeconds)
  const clocks = { name: replica, timing, now, elapsed }
  const dueAt = (every: number | undefined) => ({
    ...(every !== undefined && { dueAt: (ring: Parameters<typeof scheduledAt>[0]) => scheduledAt(ring, every) }),
  })

  return {
    identity: createKeyRotation<SigningKey>({
      ...clocks,
      kind: 'identity',
      store: createApiStore({
        ...shared,
        kind: 'identity',
        format: { parse: parseIdentityKeyring, serialize: serializeIdentityKeyring },
        // Sidecars get them from the issuer alone.
        readPublished: async () => true,
      }),
      lifetimeSeconds: witLifetimeSeconds,
      createMaterial: createIdentityMaterial,
      ...dueAt(rotateEverySeconds.identity),
    }),
    serving: createKeyRotation<ServingAuthority>({
      ...clocks,
      kind: 'serving',
      store: withoutRequests(
        createApiStore({
          ...shared,
          kind: 'serving',
          format: { parse: parseServingKeyring, serialize: serializeServingKeyring },
          readPublished: async () => true,
        }),
      ),
      // Replicas replace their certificates at once.
      lifetimeSeconds: 0,
      createMaterial: () => createServingMaterial(now()),
      ...dueAt(rotateEverySeconds.serving),
    }),
  }
}

/** Seconds on a clock that only runs. */
const elapsed = () => performance.now() / 1_000

/** Sidecars do not acknowledge serving CAs yet. */
function withoutRequests<Material>(store: RotationStore<Material>): RotationStore<Material> {
  return {
    ...store,
    async readRequest() {
      const { request } = await store.readRequest()
      return { problems: request === undefined ? [] : ['serving: cannot be rotated yet.'] }
    },
  }
}
