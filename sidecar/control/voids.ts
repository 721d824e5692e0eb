/** What the issuer said of WITs that are still valid by their signature: refused, or standing with other labels. */
import type { PodIdentity, VoidEntry } from '../../api/identity.ts'

export interface Voids {
  add(entry: VoidEntry): void
  /** The identity that a WIT issued then stands for now; `void` where it is refused. */
  currentIdentity(identity: PodIdentity, issuedAt: number): PodIdentity | 'void'
}

/** More Pods with void WITs than a cluster relabels within one lifetime; the oldest is forgotten first. */
const MAXIMUM_VOIDS = 10_000

interface PodVoids {
  /** WITs issued until then are refused, whatever came for the Pod later. */
  refusedUntil: number
  relabel: VoidEntry | undefined
}

/** An older entry, which a resumed stream may bring again, takes nothing back. */
export function createVoids(): Voids {
  const byUid = new Map<string, PodVoids>()
  return {
    add(entry) {
      const known = byUid.get(entry.uid) ?? { refusedUntil: Number.NEGATIVE_INFINITY, relabel: undefined }
      byUid.delete(entry.uid)
      if (byUid.size >= MAXIMUM_VOIDS) {
        for (const oldest of byUid.keys()) {
          byUid.delete(oldest)
          break
        }
      }
      if (!entry.labels && !entry.namespaceLabels) {
        known.refusedUntil = Math.max(known.refusedUntil, entry.iatBefore)
      } else if (!known.relabel || known.relabel.iatBefore <= entry.iatBefore) {
        // What this entry leaves out stands as the one before left it.
        known.relabel = { ...known.relabel, ...entry }
      }
      byUid.set(entry.uid, known)
    },
    currentIdentity(identity, issuedAt) {
      const known = byUid.get(identity.uid)
      if (!known) return identity
      if (issuedAt <= known.refusedUntil) return 'void'
      if (!known.relabel || issuedAt > known.relabel.iatBefore) return identity
      return relabelled(identity, known.relabel)
    },
  }
}

/** The identity with the labels that a void entry puts in place of the WIT's. */
export function relabelled(identity: PodIdentity, entry: VoidEntry): PodIdentity {
  return {
    ...identity,
    labels: entry.labels ?? identity.labels,
    namespaceLabels: entry.namespaceLabels ?? identity.namespaceLabels,
  }
}
