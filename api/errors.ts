/**
 * The one base of Synguard's errors. Each module has an `errors.ts` that exports its codes as a table
 * (`code` to the sentence in docs/errors.md; a test compares both) and its class.
 */
export class SynguardError extends Error {
  /** Stable, kebab-case; programs and runbooks match on it, never on the message. */
  readonly code: string

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = new.target.name
    this.code = code
  }
}
