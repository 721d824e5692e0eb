import type { AcknowledgeRequest } from '../../api/identity.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'
import { STREAMS } from '../limits.ts'
import type { KeyringHolder } from './holder.ts'
import type { KeyRotation } from './rotation.ts'

/** Takes what sidecars say that they hold, of either kind, and hands it to the holders as generations. */
export function createAcknowledgements(
  identity: Pick<KeyringHolder<unknown>, 'acknowledge'>,
  serving: Pick<KeyRotation<unknown>, 'holder' | 'follow'>,
) {
  /** By uid, the CAs that its sidecar trusts. Many have the same, whose text they share. */
  const trusted = new Map<string, string>()
  const texts = new Map<string, string>()

  function share(text: string): string {
    // Whoever makes them up makes this grow: it is a saving and nothing more.
    if (texts.size > TEXTS_MAX) texts.clear()
    const known = texts.get(text)
    if (known === undefined) texts.set(text, text)
    return known ?? text
  }

  function judge(uid: string, authorities: string, { generation, keys }: Keyring<unknown>): void {
    if (keys.every(({ id }) => authorities.includes(id))) serving.holder.acknowledge(uid, generation)
  }

  // Sidecars speak of certificates, which may be there before this replica has read the keyring that they belong to.
  serving.follow((ring) => {
    for (const [uid, authorities] of trusted) judge(uid, authorities, ring)
  })

  return {
    acknowledge(uid: string, { generation, authorities }: AcknowledgeRequest): void {
      if (generation !== undefined) identity.acknowledge(uid, generation)
      const text = share(authorities.join(' '))
      trusted.delete(uid)
      trusted.set(uid, text)
      for (const oldest of trusted.keys()) {
        if (trusted.size <= STREAMS) break
        trusted.delete(oldest)
      }
      const ring = serving.holder.last()
      if (ring !== undefined) judge(uid, text, ring)
    },
  }
}

const TEXTS_MAX = 64
