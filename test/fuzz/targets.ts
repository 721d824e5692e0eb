/** All targets, by name. */
import type { Target } from './target.ts'
import { addressTarget } from './targets/address.ts'
import { admissionTarget } from './targets/admission.ts'
import { frameTarget } from './targets/frame.ts'
import { identityRequestTarget } from './targets/identity-request.ts'
import { identityTableTarget } from './targets/identity-table.ts'
import { issuerMessagesTarget } from './targets/issuer-messages.ts'
import { netlinkTarget } from './targets/netlink.ts'
import { packetTarget } from './targets/packet.ts'
import { policyTarget } from './targets/policy.ts'
import { policyTextTarget } from './targets/policy-text.ts'
import { rotationTarget } from './targets/rotation.ts'
import { settingsTarget } from './targets/settings.ts'
import { streamLinesTarget } from './targets/stream-lines.ts'
import { witTarget } from './targets/wit.ts'

/** Runs `use` with a target of its own type of input. */
export interface AnyTarget {
  readonly name: string
  readonly about: string
  readonly sources: readonly string[]
  use<Result>(use: <Input>(target: Target<Input>) => Result): Result
}

function hide<Input>(target: Target<Input>): AnyTarget {
  const { name, about, sources } = target
  return { name, about, sources, use: (use) => use(target) }
}

export const TARGETS: readonly AnyTarget[] = [
  hide(packetTarget),
  hide(netlinkTarget),
  hide(frameTarget),
  hide(witTarget),
  hide(admissionTarget),
  hide(policyTarget),
  hide(policyTextTarget),
  hide(identityRequestTarget),
  hide(issuerMessagesTarget),
  hide(settingsTarget),
  hide(identityTableTarget),
  hide(streamLinesTarget),
  hide(addressTarget),
  hide(rotationTarget),
]
