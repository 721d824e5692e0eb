/** What the packet path is told of this Pod itself, and of whom it trusts. */
import type { TrustBundle } from '../../api/identity.ts'
import { selectsSubject } from '../../policy/compile.ts'
import type { NetworkPolicy, Subject } from '../../policy/types.ts'
import type { ToWorker } from '../datapath/messages.ts'
import { encodeWitSection } from '../handshake/frame.ts'
import type { OwnIdentity } from './identity-client.ts'

/** `generation` rises with every renewal. */
export function ownMessage(identity: OwnIdentity, generation: number): ToWorker {
  return {
    type: 'own',
    uid: identity.verified.identity.uid,
    generation,
    witSection: encodeWitSection(identity.parts),
    witHash: identity.verified.sha256,
    privateKey: identity.privateKey,
    thumbprint: identity.verified.cnfThumbprint,
    expiresAt: identity.verified.expiresAt,
  }
}

export function bundleMessage(bundle: TrustBundle): ToWorker {
  return { type: 'bundle', kids: bundle.keys.map(({ kid }) => kid) }
}

/**
 * The policies that select this Pod. The packet path waits while it takes them in: with all of a namespace's 10,000 a
 * connection stood still for half a second at each change.
 */
export function policiesMessage(policies: readonly NetworkPolicy[], subject: Subject): ToWorker {
  return { type: 'policies', policies: policies.filter((policy) => selectsSubject(policy, subject)), subject }
}

/** This Pod as policies select it. */
export function subjectOf(identity: OwnIdentity): Subject {
  const { namespace, labels, ports, uid } = identity.verified.identity
  return { namespace, labels, ports, uid }
}
