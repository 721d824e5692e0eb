import { AuthorityError } from '../../certs/errors.ts'
import type { KeyringHolder } from './holder.ts'
import type { Reconciled } from './reconciler.ts'

export interface TurnOptions {
  readonly holder: Pick<KeyringHolder<unknown>, 'refresh'>
  /** Whether this replica steps. */
  readonly hold: () => Promise<boolean>
  readonly reconcile: () => Promise<Reconciled>
}

/**
 * One turn of a replica, to be taken again and again, several times within REPLICA_FENCE_SECONDS: it hears what to act by,
 * and where it holds the lease takes a step and hears of that at once. Rejects as the store does, and may be cut anywhere:
 * the next turn, this replica's or another's, goes on from what is written.
 */
export function createTurn({ holder, hold, reconcile }: TurnOptions): () => Promise<Reconciled> {
  return async () => {
    const damage = await holder.refresh().catch((error: unknown) => {
      // Who holds the lease tells operators of it.
      if (error instanceof AuthorityError) return error
      throw error
    })
    const result = (await hold()) ? await reconcile() : {}
    if (damage !== undefined) throw damage
    if (result.wrote !== undefined) await holder.refresh()
    return result
  }
}
