import { createHash } from 'node:crypto'
import type { V1Namespace } from '@kubernetes/client-node'
import { ANNOTATION_BREAK_GLASS } from '../../api/names.ts'
import type { BreakGlass } from '../mode.ts'
import { namespaceEvent } from './objects.ts'

/** A reason is as long as an annotation may be, an Event's message at most 1,024 characters. */
const REASON_CHARACTERS = 512

/**
 * The Event that says why the glass of a namespace is broken, since when and by which client. Of one pull it has one
 * name. `namespace` is as the API server has it, with managedFields: they name the client program, not the person, who
 * stands in the API server's audit log.
 */
export function breakGlassEvent(namespace: V1Namespace, { mode, reason }: BreakGlass, at: Date) {
  const { manager = 'unknown', time } = writerOf(namespace) ?? {}
  const since = time === undefined ? '' : new Date(time).toISOString()
  const pull = JSON.stringify([namespace.metadata?.uid, mode, reason, manager, since])
  return namespaceEvent(namespace, at, {
    name: `synguard-break-glass-${createHash('sha256').update(pull).digest('hex').slice(0, 16)}`,
    type: 'Warning',
    reason: 'BreakGlass',
    message:
      `Synguard refuses nothing here (${mode}) by the annotation ${ANNOTATION_BREAK_GLASS}: ` +
      `${reason.slice(0, REASON_CHARACTERS)}. Set by ${manager}${since && ` at ${since}`}; take it away to go back.`,
  })
}

/** The Event that says that it is over; `version` is the ConfigMap's that said otherwise, the same for all replicas. */
export function breakGlassOverEvent(namespace: V1Namespace, version: string, at: Date) {
  return namespaceEvent(namespace, at, {
    name: `synguard-break-glass-over-${version}`,
    type: 'Normal',
    reason: 'BreakGlassOver',
    message: `The annotation ${ANNOTATION_BREAK_GLASS} is gone: the modes of namespace and Pods hold again.`,
  })
}

function writerOf({ metadata }: V1Namespace) {
  return metadata?.managedFields?.findLast(({ fieldsV1 }) => {
    const fields = fieldsV1 as { 'f:metadata'?: { 'f:annotations'?: Record<string, unknown> } } | undefined
    return fields?.['f:metadata']?.['f:annotations']?.[`f:${ANNOTATION_BREAK_GLASS}`] !== undefined
  })
}
