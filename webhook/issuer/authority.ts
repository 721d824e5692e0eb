import type { TrustBundle } from '../../api/identity.ts'
import { type SigningKey, trustBundle } from '../../certs/authority.ts'
import { activeKey, type Keyring } from '../../certs/rotation/keyring.ts'
import { WebhookError } from '../errors.ts'
import type { KeyringHolder } from '../rotation/holder.ts'

/** The keys of the identity authority as they stand now: one signs, all verify. */
export interface Authority {
  /**
   * The key that signs now, and how long what it signs may live at most. Throws WebhookError `cluster-unavailable` where
   * the keys were not read for so long that others may have replaced them.
   */
  signer(): { readonly key: SigningKey; readonly lifetimeSeconds: number }
  /** What sidecars are given. Throws as signer() does. */
  bundle(): TrustBundle
  /** What is shown to us is verified by these, also while the API server is away: by the last keys that were read. */
  lastBundle(): TrustBundle
  /** Calls `listener` with each new bundle; the result ends that. */
  subscribe(listener: (bundle: TrustBundle) => void): () => void
}

/** The authority by what a replica holds; `announce` hands the bundle to the listeners. */
export function createAuthority(
  holder: Pick<KeyringHolder<SigningKey>, 'current' | 'last'>,
): Authority & { announce(): void } {
  const listeners = new Set<(bundle: TrustBundle) => void>()

  function require(ring: Keyring<SigningKey> | undefined): Keyring<SigningKey> {
    if (ring !== undefined) return ring
    throw new WebhookError('cluster-unavailable', 'The keys could not be read for too long; others may have moved on.')
  }

  return {
    signer() {
      const active = activeKey(require(holder.current()))
      if (active === undefined) throw new TypeError('a keyring that is held has an active key')
      return { key: active.material, lifetimeSeconds: active.lifetimeSeconds }
    },
    bundle: () => bundleOf(require(holder.current())),
    lastBundle: () => bundleOf(require(holder.last())),
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    announce() {
      const bundle = bundleOf(require(holder.last()))
      for (const listener of [...listeners]) listener(bundle)
    },
  }
}

/** The public half of a keyring. Where a replaced key is compromised, it names the one that identities must be by. */
export function bundleOf(ring: Keyring<SigningKey>): TrustBundle {
  const { keys } = trustBundle(ring.keys.map(({ material }) => material))
  const active = activeKey(ring)
  const isCut = ring.keys.some(({ compromised }) => compromised) && active?.compromised !== true
  return { keys, generation: ring.generation, ...(isCut && active !== undefined && { signer: active.id }) }
}
