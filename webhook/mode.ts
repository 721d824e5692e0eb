import type { Mode } from '../api/identity.ts'
import { ANNOTATION_MODE } from '../api/names.ts'

type Annotations = Readonly<Record<string, string>> | undefined

/** The stricter of the two modes, `enforce` where neither says audit or off, or says something else. */
export function stricterMode(ofPod: Annotations, ofNamespace: Annotations): Mode {
  const modes: readonly Mode[] = ['off', 'audit', 'enforce']
  const rank = (annotations: Annotations): number => {
    const value = annotations?.[ANNOTATION_MODE]
    const found = modes.indexOf(value as Mode)
    return found < 0 ? modes.length - 1 : found
  }
  // A Pod that says nothing takes its namespace's word; a namespace that says nothing is at enforce.
  const strictest = Math.max(ofPod?.[ANNOTATION_MODE] === undefined ? 0 : rank(ofPod), rank(ofNamespace))
  return modes[strictest] ?? 'enforce'
}
