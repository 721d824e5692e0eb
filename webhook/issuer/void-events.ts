/** What is told of the void list where people look: at its ConfigMap, and at the Pods. */
import type { V1Pod } from '@kubernetes/client-node'
import type { EventToWrite } from '../events.ts'
import type { VoidEntries, VoidRequest, VoidRequested } from './void-entries.ts'

/** What an operator sees who looks at the ConfigMap: `kubectl describe configmap synguard-voids`. */
export function invalidVoidEvent(
  namespace: string,
  name: string,
  { key, problem }: VoidEntries['invalid'][number],
): EventToWrite {
  return {
    subject: { apiVersion: 'v1', kind: 'ConfigMap', name, namespace },
    type: 'Warning',
    reason: 'InvalidVoidEntry',
    code: key,
    message: `The entry "${key}" has no effect: ${problem}. All other entries hold.`,
  }
}

const ANSWERS: Readonly<Record<VoidRequest, { readonly reason: string; readonly message: string }>> = {
  void: { reason: 'IdentityVoided', message: 'An operator declared the identities so far void' },
  revoke: {
    reason: 'IdentityRevoked',
    message: 'An operator revoked the Pod: it gets no identity until that is undone',
  },
  restore: { reason: 'IdentityRestored', message: 'An operator restored the Pod: it gets identities again' },
}

/** What its owner sees at a Pod that an operator revoked, restored, or whose identities were declared void. */
export function answeredVoidEvent({ metadata }: V1Pod, { request, note }: VoidRequested): EventToWrite {
  const { reason, message } = ANSWERS[request]
  const { namespace = '', name = '', uid = '' } = metadata ?? {}
  return {
    subject: { apiVersion: 'v1', kind: 'Pod', namespace, name, uid },
    type: request === 'restore' ? 'Normal' : 'Warning',
    reason,
    code: request,
    message: note.reason === undefined ? `${message}.` : `${message}. Reason: ${note.reason}`,
  }
}
