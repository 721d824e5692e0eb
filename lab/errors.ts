import { SynguardError } from '../api/errors.ts'

export const LAB_ERRORS = {
  'lab-needs-root': 'The lab makes network namespaces and iptables rules, so it must run as root on Linux.',
  'lab-command-failed': 'A system command that the lab runs (ip, iptables-restore, mount) failed; its output says why.',
  'lab-manifest': 'A manifest is not one that the lab can run; the message names file, document and field.',
  'lab-admission': 'The webhook refused a Pod; the message holds its reason.',
  'lab-pod-failed':
    'A container of a Pod failed or did not become ready in time; the message holds the end of its log.',
  'lab-unsupported': 'The Pod asks for something that the lab does not offer; the message names the field.',
  'lab-address': 'An address in a manifest is malformed, taken twice or the address space of the lab is used up.',
  'lab-agent-gone': 'A process of the lab ended while an answer from it was awaited.',
  'lab-expectation': 'The file given with --expect is not an array of {from, to, port, protocol, reachable}.',
} as const

export type LabErrorCode = keyof typeof LAB_ERRORS

/** An error of the lab; `code` is a key of LAB_ERRORS. */
export class LabError extends SynguardError {
  declare readonly code: LabErrorCode

  constructor(code: LabErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}
