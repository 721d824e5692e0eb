import { randomUUID } from 'node:crypto'
import type { RotationKind, RotationStatus } from '../../api/rotation.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'
import { phaseOf } from '../../certs/rotation/keyring.ts'
import { createKeyringHolder, type KeyringHolder } from './holder.ts'
import { createReconciler, type Reconciled, type ReconcilerOptions } from './reconciler.ts'
import { createTurn } from './turn.ts'

/** A keyring of one kind as one replica keeps it: what it acts by, and the steps that it takes where it holds the Lease. */
export interface KeyRotation<Material> {
  readonly kind: RotationKind
  readonly holder: KeyringHolder<Material>
  /** One turn; `hold` says whether this replica steps. Rejects as the store does. */
  turn(hold: () => Promise<boolean>): Promise<Reconciled>
  /** Removes this replica's record: it acts no more, and nobody has to wait until it is silent for long. Never rejects. */
  resign(): Promise<void>
  /** What this replica told operators last; undefined while another one steps. */
  status(): RotationStatus | undefined
  /** Calls `listener` with each keyring that differs from the one before, and at once where there is one. */
  follow(listener: (ring: Keyring<Material>) => void): void
}

export interface KeyRotationOptions<Material> extends Omit<ReconcilerOptions<Material>, 'last'> {
  readonly kind: RotationKind
  /** Of this replica. */
  readonly name: string
}

export function createKeyRotation<Material>(options: KeyRotationOptions<Material>): KeyRotation<Material> {
  const { kind, name, store, elapsed } = options
  const listeners = new Set<(ring: Keyring<Material>) => void>()
  let status: RotationStatus | undefined
  const holder = createKeyringHolder({
    ...{ store, name, elapsed, incarnation: randomUUID() },
    onKeyring(ring) {
      for (const listener of listeners) listener(ring)
    },
  })
  const reconcile = createReconciler({ ...options, last: holder.last })

  return {
    kind,
    holder,
    async turn(hold) {
      const result = await createTurn({ holder, hold, reconcile })()
      status = result.status
      return result
    },
    async resign() {
      // Then others wait.
      await store.forget([name]).catch(() => {})
    },
    status: () => status,
    follow(listener) {
      listeners.add(listener)
      const ring = holder.last()
      if (ring !== undefined) listener(ring)
    },
  }
}

/** Whether something waits for replicas alone, which is a matter of seconds. */
export function isMoving(ring: Keyring<unknown> | undefined): boolean {
  const phase = ring === undefined ? 'none' : phaseOf(ring)
  return phase === 'none' || phase === 'prepared' || phase === 'switched'
}
