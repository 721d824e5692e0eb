import { PROOF_AGE_SECONDS } from '../../certs/limits.ts'
import { WebhookError } from '../errors.ts'
import { PROOFS, PROOFS_PER_POD } from '../limits.ts'

/** Remembers each proof until it is too old to be used again. Full, it refuses: it never forgets one early. */
export interface ReplayCache {
  /** Records a verified proof of the Pod `uid`. Throws WebhookError `proof-replayed` or `busy`. */
  use(uid: string, jti: string): void
}

export function createReplayCache(options: { now: () => number; perPod?: number; total?: number }): ReplayCache {
  const { now, perPod = PROOFS_PER_POD, total = PROOFS } = options
  /** In the order of their expiry, which is the order of use. */
  const pods = new Map<string, Map<string, number>>()
  let size = 0
  let prunedAt = 0

  function pruneAll(): void {
    // Once a second is enough, as expiry counts seconds.
    if (prunedAt === now()) return
    prunedAt = now()
    for (const [uid, proofs] of pods) {
      for (const [jti, expiresAt] of proofs) {
        if (expiresAt >= prunedAt) break
        proofs.delete(jti)
        size--
      }
      if (proofs.size === 0) pods.delete(uid)
    }
  }

  return {
    use(uid, jti) {
      pruneAll()
      const proofs = pods.get(uid) ?? new Map<string, number>()
      if (proofs.has(jti)) throw new WebhookError('proof-replayed', 'The proof was used before.')
      if (proofs.size >= perPod || size >= total) {
        throw new WebhookError('busy', 'Too many requests of this Pod within the last minutes.')
      }
      pods.set(uid, proofs)
      // A proof may be made PROOF_AGE_SECONDS ahead of our clock and lives as long behind it.
      proofs.set(jti, now() + 2 * PROOF_AGE_SECONDS)
      size++
    },
  }
}
