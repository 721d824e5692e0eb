/** The peers whose WITs this sidecar has verified, found by the bytes of the WIT, by its hash, or by address. */
import type { Peer } from '../../policy/types.ts'
import { equalBytes } from '../handshake/client.ts'
import type { PeerIdentity } from '../handshake/keys.ts'
import type { Refusal } from '../handshake/reasons.ts'
import { createBoundedMap } from './bounded-map.ts'

/** A verified peer with what the policy engine asks of it. */
export interface KnownPeer extends PeerIdentity {
  /** The WIT section as it stands in frames. */
  readonly section: Buffer
  /** The peer at its address of each family. */
  readonly asPeer: Partial<Record<4 | 6, Peer>>
}

export interface PeerTable {
  /** The peer that this WIT section names, or why it was refused lately, or undefined: not seen yet. */
  findBySection(bytes: Buffer, start: number, end: number, nowMilliseconds: number): KnownPeer | Refusal | undefined
  /** By SHA-256 of the compact WIT, as a proof carries it. */
  findByHash(bytes: Buffer, start: number, end: number): KnownPeer | undefined
  /** The newest WIT that names the address. */
  findByAddress(bytes: Buffer, start: number, end: number): KnownPeer | undefined
  findByUid(uid: string): KnownPeer[]
  /** All WITs of one row: those of one Pod with one set of labels. */
  findByIndex(index: number): KnownPeer[]
  add(peer: KnownPeer): void
  remove(peer: KnownPeer): void
  refuse(section: Buffer, refusal: Refusal, nowMilliseconds: number): void
  clearRefusals(): void
  /** Forgets the peers for which `keep` is false. */
  retain(keep: (peer: KnownPeer) => boolean): void
  size(): number
}

/** Keeps at most `maximumPeers` peers and `maximumRefused` refused WITs, the oldest forgotten first. */
export function createPeerTable(maximumPeers: number, maximumRefused: number, refusedMilliseconds: number): PeerTable {
  const bySection = createBoundedMap<string, KnownPeer>(maximumPeers)
  const byHash = new Map<string, KnownPeer>()
  const byAddress = new Map<string, KnownPeer>()
  const refused = createBoundedMap<string, { refusal: Refusal; until: number }>(maximumRefused)
  let last: KnownPeer | undefined

  function remove(peer: KnownPeer): void {
    bySection.delete(peer.section.toString('latin1'))
    unlink(peer)
  }

  function unlink(peer: KnownPeer): void {
    byHash.delete(peer.witHash.toString('latin1'))
    for (const address of peer.addresses) {
      const key = latin1(address)
      if (byAddress.get(key) === peer) byAddress.delete(key)
    }
    if (last === peer) last = undefined
  }

  return {
    findBySection(bytes, start, end, now) {
      // Most packets in a row come from one peer: comparing bytes is cheaper than hashing them.
      if (last !== undefined && last.section.length === end - start && last.section.compare(bytes, start, end) === 0) {
        return last
      }
      const key = bytes.toString('latin1', start, end)
      const peer = bySection.get(key)
      if (peer) {
        last = peer
        return peer
      }
      const bad = refused.get(key)
      if (!bad) return undefined
      if (bad.until > now) return bad.refusal
      refused.delete(key)
      return undefined
    },
    findByHash(bytes, start, end) {
      if (last !== undefined && equalBytes(last.witHash, 0, bytes, start, end - start)) return last
      return byHash.get(bytes.toString('latin1', start, end))
    },
    findByAddress: (bytes, start, end) => byAddress.get(bytes.toString('latin1', start, end)),
    findByUid: (uid) => [...bySection.values()].filter((peer) => peer.identity.uid === uid),
    findByIndex: (index) => [...bySection.values()].filter((peer) => peer.index === index),
    add(peer) {
      const key = peer.section.toString('latin1')
      const known = bySection.get(key)
      if (known) remove(known)
      const forgotten = bySection.set(key, peer)
      if (forgotten) unlink(forgotten)
      byHash.set(peer.witHash.toString('latin1'), peer)
      for (const address of peer.addresses) {
        // An older WIT of the address's former Pod may be shown again while it is valid.
        const holder = byAddress.get(latin1(address))
        if (!holder || holder.issuedAt <= peer.issuedAt) byAddress.set(latin1(address), peer)
      }
    },
    remove,
    refuse(section, refusal, now) {
      refused.set(section.toString('latin1'), { refusal, until: now + refusedMilliseconds })
    },
    clearRefusals: () => refused.clear(),
    retain(keep) {
      for (const peer of bySection.values()) if (!keep(peer)) remove(peer)
    },
    size: () => bySection.size(),
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
