import type { SigningKey } from '../../certs/authority.ts'
import { rotationTiming } from '../../certs/rotation/facts.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'
import { scheduledAt } from '../../certs/rotation/progress.ts'
import {
  parseIdentityKeyring,
  parseServingKeyring,
  serializeIdentityKeyring,
  serializeServingKeyring,
} from '../../certs/rotation/record.ts'
import type { ServingAuthority } from '../../certs/serving.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import {
  caEnd,
  createIdentityMaterial,
  createServingMaterial,
  SERVING_CA_LIFETIME_SECONDS,
} from '../bootstrap/trust.ts'
import type { Cluster } from '../cluster.ts'
import type { Installation } from '../installation.ts'
import { createApiStore } from './api-store.ts'
import { createPublished } from './published.ts'
import { createKeyRotation, type KeyRotation } from './rotation.ts'

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
  const identityEvery = rotateEverySeconds.identity

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
      ...(identityEvery !== undefined && { dueAt: (ring) => scheduledAt(ring, identityEvery) }),
    }),
    serving: createKeyRotation<ServingAuthority>({
      ...clocks,
      kind: 'serving',
      store: createApiStore({
        ...shared,
        kind: 'serving',
        format: { parse: parseServingKeyring, serialize: serializeServingKeyring },
        readPublished: createPublished({ ...shared, name: names.webhookConfiguration, elapsed }),
      }),
      // Replicas replace their certificates at once.
      lifetimeSeconds: 0,
      createMaterial: () => createServingMaterial(now()),
      dueAt: (ring) => servingDueAt(ring, rotateEverySeconds.serving),
    }),
  }
}

/** Seconds on a clock that only runs. */
const elapsed = () => performance.now() / 1_000

/** Also without a schedule a CA is replaced when a fifth of its life is left. */
function servingDueAt(ring: Keyring<ServingAuthority>, every: number | undefined): number | undefined {
  const endsSoonAt = caEnd(ring) - SERVING_CA_LIFETIME_SECONDS / 5
  const at = scheduledAt(ring, every ?? Number.POSITIVE_INFINITY)
  return at === undefined ? undefined : Math.min(at, endsSoonAt)
}
