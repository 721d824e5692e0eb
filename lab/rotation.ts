import type { Logger } from 'pino'
import type { AcknowledgeRequest } from '../api/identity.ts'
import type { RotationRequest, RotationStatus } from '../api/rotation.ts'
import type { SigningKey } from '../certs/authority.ts'
import { rotationTiming } from '../certs/rotation/facts.ts'
import { EMPTY_KEYRING, type Keyring } from '../certs/rotation/keyring.ts'
import { createIdentityMaterial } from '../webhook/bootstrap/trust.ts'
import type { Cluster } from '../webhook/cluster.ts'
import { expectedPods } from '../webhook/rotation/expected-pods.ts'
import type { KeyringHolder } from '../webhook/rotation/holder.ts'
import { runRotations } from '../webhook/rotation/loop.ts'
import { createKeyRotation } from '../webhook/rotation/rotation.ts'
import type { ReplicaRecord, RotationStore } from '../webhook/rotation/store.ts'
import type { WebhookSettings } from '../webhook/settings.ts'

/** The identity keys of the lab's only replica, rotated by the webhook's own reconciler over a store in memory. */
export interface LabRotation {
  readonly holder: KeyringHolder<SigningKey>
  acknowledge(uid: string, held: AcknowledgeRequest): void
  /** Hears of each keyring. */
  follow(listener: () => void): void
  /** As an operator does in the ConfigMap. */
  ask(request: RotationRequest): void
  status(): RotationStatus | undefined
}

/** All Pods run on one machine, whose clock they share. */
const SKEW_SECONDS = 1

/** Resolves once there is a key; ends with the process. */
export async function startLabRotation(cluster: Cluster, settings: WebhookSettings, log: Logger): Promise<LabRotation> {
  const { witLifetimeSeconds, namespaceLabel } = settings
  const records = new Map<string, ReplicaRecord>()
  let ring: Keyring<SigningKey> = EMPTY_KEYRING
  let request: RotationRequest | undefined
  let status: RotationStatus | undefined
  const seenExpected = () => expectedPods(cluster.list('Pod'), cluster, namespaceLabel)
  const store: RotationStore<SigningKey> = {
    readKeyring: async () => ({ value: ring, version: String(ring.generation) }),
    async writeKeyring(next, version) {
      if (version !== String(ring.generation)) return false
      ring = next
      return true
    },
    publish: async (record) => void records.set(record.name, record),
    readRecords: async () => [...records.values()],
    async forget(names) {
      for (const name of names) records.delete(name)
    },
    readRequest: async () => ({ ...(request && { request }), problems: [] }),
    listExpected: async () => seenExpected(),
    seenExpected,
    readPublished: async () => true,
    readStatus: async () => status,
    async writeStatus(next) {
      status = next
    },
  }
  const rotation = createKeyRotation<SigningKey>({
    kind: 'identity',
    name: 'lab',
    store,
    timing: rotationTiming(witLifetimeSeconds, SKEW_SECONDS),
    lifetimeSeconds: witLifetimeSeconds,
    createMaterial: createIdentityMaterial,
    now: () => Math.floor(Date.now() / 1_000),
    elapsed: () => performance.now() / 1_000,
  })
  const { holder } = rotation
  const { signal } = new AbortController()
  void runRotations({
    rotations: [rotation],
    hold: async () => true,
    onResult: () => {},
    onFailure: () => {},
    ...{ log, random: Math.random, signal },
  })
  await new Promise<void>((resolve) => rotation.follow(() => resolve()))
  return {
    holder,
    acknowledge(uid, { generation }) {
      if (generation !== undefined) holder.acknowledge(uid, generation)
    },
    ask(next) {
      request = next
    },
    status: () => status,
    follow: rotation.follow,
  }
}
