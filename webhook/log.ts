import { type DestinationStream, type Logger, pino } from 'pino'
import { SynguardError } from '../api/errors.ts'

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/**
 * Anything that looks like a JWS or JWT (base64url of `{"`, a dot, more) or a PEM private key, wherever it stands: also
 * within error messages of libraries. In JSON a PEM's line ends are `\n` escapes.
 */
const SECRET = /eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)*|-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*/g

/** A JSON logger: one object a line with level, time (ISO 8601), replica and msg; tokens and keys never reach it. */
export function createLog(options: { level: LogLevel; replica: string; destination?: DestinationStream }): Logger {
  const settings = {
    level: options.level,
    base: { replica: options.replica },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    hooks: { streamWrite: (line: string) => line.replace(SECRET, '[redacted]') },
  }
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination)
}

/** Code and message of an error for the log. */
export function describeError(error: unknown): { code: string; error: string } {
  const code = error instanceof SynguardError ? error.code : 'unexpected'
  return { code, error: error instanceof Error ? error.message : String(error) }
}
