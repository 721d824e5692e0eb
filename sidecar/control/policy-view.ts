/** The policies as this Pod's connections are judged by them. */
import { createHash } from 'node:crypto'
import { serialize } from 'node:v8'
import { compile } from '../../policy/compile.ts'
import type { NetworkPolicy, Subject } from '../../policy/types.ts'
import { createGatePolicy, type GatePolicy } from '../datapath/gate.ts'
import type { ToWorker } from '../datapath/messages.ts'
import { policiesMessage } from './briefing.ts'
import { quarantine } from './quarantine.ts'

export interface PolicyView {
  /**
   * Takes in all of the namespace's policies, or another subject, or that an operator revoked this Pod: then nothing
   * else counts. False where neither the policies that select this Pod nor the Pod as they see it changed: nothing is
   * judged otherwise then.
   */
  update(policies: readonly NetworkPolicy[], subject: Subject, revoked?: boolean): boolean
  /** What the packet path hears; undefined before the first. */
  message(): ToWorker | undefined
  /** What running connections are judged by. */
  policy(): GatePolicy | undefined
}

export function createPolicyView(): PolicyView {
  let message: ToWorker | undefined
  let policy: GatePolicy | undefined
  // A hash: the bytes of 10,000 policies are no small thing to keep.
  let told = ''
  return {
    update(ofNamespace, subject, revoked = false) {
      const policies = revoked ? [quarantine(subject.namespace)] : ofNamespace
      const next = policiesMessage(policies, subject)
      const hash = createHash('sha256').update(serialize(next)).digest('base64')
      if (hash === told) return false
      told = hash
      message = next
      policy = createGatePolicy(compile(policies, subject))
      return true
    },
    message: () => message,
    policy: () => policy,
  }
}
