import type { Mode } from '../api/identity.ts'
import { ANNOTATION_MODE } from '../api/names.ts'

type Annotations = Readonly<Record<string, string>> | undefined

/**
 * The stricter of the two modes. A namespace that says nothing has the cluster's default; a word that is no mode counts
 * as `enforce`.
 */
export function stricterMode(ofPod: Annotations, ofNamespace: Annotations, defaultMode: Mode = 'enforce'): Mode {
  const modes: readonly Mode[] = ['off', 'audit', 'enforce']
  const rank = (annotations: Annotations): number => {
    const value = annotations?.[ANNOTATION_MODE]
    const found = modes.indexOf(value as Mode)
    return found < 0 ? modes.length - 1 : found
  }
  const namespaceRank = ofNamespace?.[ANNOTATION_MODE] === undefined ? modes.indexOf(defaultMode) : rank(ofNamespace)
  // A Pod that says nothing takes its namespace's word.
  const strictest = Math.max(ofPod?.[ANNOTATION_MODE] === undefined ? 0 : rank(ofPod), namespaceRank)
  return modes[strictest] ?? 'enforce'
}
