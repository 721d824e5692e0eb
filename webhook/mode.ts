import type { Mode } from '../api/identity.ts'
import { ANNOTATION_BREAK_GLASS, ANNOTATION_MODE } from '../api/names.ts'

type Annotations = Readonly<Record<string, string>> | undefined

const MODES: readonly Mode[] = ['off', 'audit', 'enforce']

function modeSaid(annotations: Annotations): Mode | undefined {
  const value = annotations?.[ANNOTATION_MODE]
  return value === undefined ? undefined : (MODES.find((mode) => mode === value) ?? 'enforce')
}

/** A namespace that says nothing has the cluster's default; a word that is no mode counts as `enforce`. */
export function namespaceMode(ofNamespace: Annotations, defaultMode: Mode = 'enforce'): Mode {
  return modeSaid(ofNamespace) ?? defaultMode
}

/** The stricter of the two modes. A Pod that says nothing takes its namespace's word. */
export function stricterMode(ofPod: Annotations, ofNamespace: Annotations, defaultMode: Mode = 'enforce'): Mode {
  const modes = [modeSaid(ofPod) ?? 'off', namespaceMode(ofNamespace, defaultMode)]
  return MODES.findLast((mode) => modes.includes(mode)) ?? 'enforce'
}

/** What an operator says by the annotation `synguard.io/break-glass`. */
export interface BreakGlass {
  readonly mode: 'audit' | 'off'
  readonly reason: string
}

/** Whether the glass of a namespace is broken, and why; also without a reason, as there may be no time for one. */
export function breakGlassOf(ofNamespace: Annotations): BreakGlass | undefined {
  const value = ofNamespace?.[ANNOTATION_BREAK_GLASS]?.trim()
  if (value === undefined) return undefined
  const off = /^off(?::\s*|$)/.exec(value)
  const reason = value.slice(off?.[0].length ?? 0)
  return { mode: off === null ? 'audit' : 'off', reason: reason === '' ? 'no reason given' : reason }
}
