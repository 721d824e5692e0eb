import { CONFIGMAP_ROTATION_STATUS, type RotationKind } from '../../api/rotation.ts'
import type { RotationEvent } from '../../certs/rotation/transitions.ts'
import type { EventToWrite } from '../events.ts'
import type { Reconciled } from './reconciler.ts'

type EventType = RotationEvent<unknown>['type']

const WHAT: Readonly<Record<RotationKind, string>> = { identity: 'identity keys', serving: 'serving CAs' }

/** Of each event that operators want to hear of: its reason, and what it means for the keys named by `WHAT`. */
const TOLD: Readonly<Partial<Record<EventType, readonly [reason: string, means: string]>>> = {
  bootstrap: ['KeysCreated', 'there were none, and the first one was made'],
  rotate: ['RotationBegun', 'a new one is prepared; it signs nothing yet'],
  compromised: ['KeysCompromised', 'all of them were declared compromised, and a new one is prepared'],
  force: ['RotationForced', 'sidecars are waited for no longer'],
  abort: ['RotationAborted', 'the one before signs'],
  restore: ['KeysRestored', 'the Secret had an earlier state, and the rotation goes on from that'],
  activate: ['KeyActivated', 'the new one signs'],
  remove: ['KeyRemoved', 'what was replaced is removed'],
}

/** What a turn of a rotation is worth to people who look at the status ConfigMap; undefined where it is nothing. */
export function rotationEvent(kind: RotationKind, namespace: string, result: Reconciled): EventToWrite | undefined {
  const { wrote, request, refusal, status } = result
  const subject = { apiVersion: 'v1', kind: 'ConfigMap', name: CONFIGMAP_ROTATION_STATUS, namespace }
  const asked = request === undefined ? '' : ` (request ${request.id})`
  if (refusal !== undefined) {
    const message = `The ${request?.type} of the ${WHAT[kind]}${asked} was refused: ${refusal.message}`
    return { subject, type: 'Warning', reason: 'RotationRefused', code: `${kind} ${request?.id}`, message }
  }
  const told = wrote === undefined ? undefined : TOLD[wrote]
  if (told === undefined) return waitingEvent(kind, subject, status)
  const [reason, means] = told
  const keys = status?.keys.map(({ id, state }) => `${id} ${state}`).join(', ')
  return {
    subject,
    type: wrote === 'compromised' ? 'Warning' : 'Normal',
    reason,
    // One for each: a rotation is seldom enough.
    code: `${kind} ${keys}`,
    message: `Of the ${WHAT[kind]} ${means}${asked}. Now: ${keys}.`,
  }
}

/** What no turn will mend by itself. */
function waitingEvent(
  kind: RotationKind,
  subject: EventToWrite['subject'],
  status: Reconciled['status'],
): EventToWrite | undefined {
  const lost = status?.waits.find(({ code }) => code === 'rotation-keys-lost')
  if (lost !== undefined) {
    const message = `The Secret has no ${WHAT[kind]} any more. ${lost.message}`
    return { subject, type: 'Warning', reason: 'KeysLost', code: kind, message }
  }
  const [condition] = status?.conditions ?? []
  if (condition === undefined) return undefined
  return { subject, type: 'Warning', reason: 'RotationRequestUnreadable', code: kind, message: condition.message }
}

/** A turn that failed: the Secret is damaged, or the API server refuses something. */
export function failureEvent(kind: RotationKind, namespace: string, code: string, message: string): EventToWrite {
  const subject = { apiVersion: 'v1', kind: 'ConfigMap', name: CONFIGMAP_ROTATION_STATUS, namespace }
  return { subject, type: 'Warning', reason: 'RotationFailed', code: `${kind} ${code}`, message }
}
