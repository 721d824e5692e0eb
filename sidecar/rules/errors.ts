import { SynguardError } from '../../api/errors.ts'

/** Codes of the iptables rules and of the init step that installs them. */
export const RULES_ERRORS = {
  'invalid-option': 'An option of the ruleset is outside its range; the message names it and the range.',
  'invalid-environment': 'An environment variable of the init step is missing or wrong; the message names it.',
  'no-backend':
    'Neither iptables-nft nor iptables-legacy can install the rules here; the message says per backend why.',
  'node-network-namespace':
    "The init step runs in the node's network namespace, where the rules would cut off the node; the Pod must not use hostNetwork.",
  'read-failed': 'The rules could not be read with iptables-save.',
  'rules-differ':
    'The rules in the kernel are not the ones that the init step installs; the message lists what differs.',
  'remove-failed': 'The rules could not be removed; something else may refer to our chains.',
} as const

export type RulesErrorCode = keyof typeof RULES_ERRORS

/** A failure to install, read or remove the rules. `fix` says what the reader can do. */
export class RulesError extends SynguardError {
  declare readonly code: RulesErrorCode
  readonly fix: string

  constructor(code: RulesErrorCode, message: string, fix: string, options?: ErrorOptions) {
    super(code, message, options)
    this.fix = fix
  }
}
