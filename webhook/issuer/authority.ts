import type { TrustBundle } from '../../api/identity.ts'
import type { SigningKey } from '../../certs/authority.ts'
import { trustBundle } from '../../certs/authority.ts'

/** The keys of the identity authority as they stand now: one signs, all verify. */
export interface Authority {
  signingKey(): SigningKey
  bundle(): TrustBundle
  /** Replaces the keys; `signing` must be among them. */
  setKeys(keys: readonly SigningKey[], signing: SigningKey): void
  /** Calls `listener` with each new bundle; the result ends that. */
  subscribe(listener: (bundle: TrustBundle) => void): () => void
}

export function createAuthority(keys: readonly SigningKey[], signing: SigningKey): Authority {
  const listeners = new Set<(bundle: TrustBundle) => void>()
  let current = check(keys, signing)

  function check(keys: readonly SigningKey[], signing: SigningKey) {
    // A WIT whose key no bundle holds would verify nowhere.
    if (!keys.includes(signing)) throw new TypeError('the signing key must be among the keys')
    return { signing, bundle: trustBundle(keys) }
  }

  return {
    signingKey: () => current.signing,
    bundle: () => current.bundle,
    setKeys(keys, signing) {
      const before = JSON.stringify(current.bundle)
      current = check(keys, signing)
      if (JSON.stringify(current.bundle) === before) return
      for (const listener of [...listeners]) listener(current.bundle)
    },
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
