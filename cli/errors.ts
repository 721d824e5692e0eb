import { SynguardError } from '../api/errors.ts'

export const CLI_ERRORS = {
  'cli-usage': 'The command line is wrong; --help shows how it is used.',
  'explain-unknown': 'There is no such Pod, Service or port, or it has no address of the family that is asked for.',
  'explain-unseen': 'The rights do not reach as far as the answer needs; the message says what could not be seen.',
  'revoke-unknown': 'There is no such Pod, it has no identity to revoke, or the installation is in another namespace.',
  'revoke-unanswered': 'No replica of the webhook answered the request in time, or somebody asked for the opposite.',
  'report-unknown': 'There is no such Pod, or none with a sidecar, that could tell.',
  'report-unseen': 'The rights do not reach as far as the answer needs; the message says what could not be seen.',
  'report-unanswered': "The Pod's sidecar could not be asked; the message says why.",
  'certs-unanswered': 'No replica of the webhook answered the request in time; it stands, and is taken when one does.',
  'certs-replaced': 'Somebody wrote another request, or took this one away, before it was answered.',
} as const

export class CliError extends SynguardError {
  declare readonly code: keyof typeof CLI_ERRORS

  constructor(code: keyof typeof CLI_ERRORS, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/** What is wrong with what the user gave, rather than with what then happened. */
const INPUT_CODES = new Set([
  'lab-needs-root',
  'lab-manifest',
  'lab-admission',
  'lab-unsupported',
  'lab-address',
  'lab-expectation',
])

/** 2 for bad usage, bad input, a lack of root and an API server that cannot be asked, 1 for all else. */
export function exitCodeOf(error: unknown): 1 | 2 {
  if (!(error instanceof SynguardError)) return 1
  if (error instanceof CliError)
    return /^(cli-usage$|explain-|revoke-unknown$|report-un(known|seen)$)/.test(error.code) ? 2 : 1
  if (error.name === 'PolicyError' || error.name === 'AdmissionError') return 2
  if (error.name === 'ApiError') return 2
  return INPUT_CODES.has(error.code) ? 2 : 1
}
