import { type DestinationStream, type Logger, pino } from 'pino'

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

const REDACTED = '[redacted]'

/** Fields that hold secrets by their name, at the top level or one below. */
const SECRET_FIELDS = ['token', 'wit', 'proof', 'authorization', 'privateKey', 'key']

/**
 * Anything in a line that looks like a JWS or JWT (base64url of `{"`, a dot, more) or a PEM private key, wherever it
 * stands: also within error messages of libraries. In JSON a PEM's line ends are `\n` escapes.
 */
const TOKEN_LIKE = /eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)*|-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*/g

export interface LogOptions {
  readonly level: LogLevel
  readonly namespace: string
  readonly pod: string
  /** Where lines go; standard output without it. */
  readonly destination?: DestinationStream
}

/** A JSON logger: one object a line with level, time (ISO 8601), namespace, pod and msg; tokens never reach it. */
export function createLog(options: LogOptions): Logger {
  const settings = {
    level: options.level,
    base: { namespace: options.namespace, pod: options.pod },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: SECRET_FIELDS.flatMap((field) => [field, `*.${field}`]), censor: REDACTED },
    hooks: { streamWrite: (line: string) => line.replace(TOKEN_LIKE, REDACTED) },
  }
  return options.destination === undefined ? pino(settings) : pino(settings, options.destination)
}

/** What the helper below needs of a logger. */
export type LogSink = Pick<Logger, 'info' | 'warn' | 'error'>

export interface LimitedLogOptions {
  readonly log: LogSink
  readonly windowMs?: number
  readonly maxKeys?: number
}

export interface LimitedLog {
  /** Logs the first event of a key at once, and counts the ones that follow within the window. */
  report(level: keyof LogSink, key: string, fields: Readonly<Record<string, unknown>>, message: string): void
  /** Ends the window: logs each key that came again with its count, and forgets the others. */
  flush(): void
  /** Flushes and stops the timer. */
  close(): void
}

/** As many keys as one window remembers: memory stays bounded whatever addresses knock. */
const MAX_KEYS = 256
const WINDOW_MS = 10_000

interface Repeated {
  readonly level: keyof LogSink
  readonly message: string
  fields: Readonly<Record<string, unknown>>
  again: number
}

/** A log for events that a peer can cause at will (refusals): first at once, then one line with a count each window. */
export function createLimitedLog(options: LimitedLogOptions): LimitedLog {
  const { log, windowMs = WINDOW_MS, maxKeys = MAX_KEYS } = options
  const seconds = windowMs / 1000
  let window = new Map<string, Repeated>()
  let beyond = 0

  function flush(): void {
    const ended = window
    window = new Map()
    for (const [key, entry] of ended) {
      if (entry.again === 0) continue
      log[entry.level]({ ...entry.fields, repeated: entry.again, seconds }, entry.message)
      // Stays known, so that an event that goes on for hours is one line a window and not two.
      window.set(key, { ...entry, again: 0 })
    }
    if (beyond > 0) log.warn({ repeated: beyond, seconds }, 'events of further kinds, not logged one by one')
    beyond = 0
  }

  const timer = setInterval(flush, windowMs)
  timer.unref()

  return {
    report(level, key, fields, message) {
      const entry = window.get(key)
      if (entry !== undefined) {
        entry.again += 1
        entry.fields = fields
      } else if (window.size >= maxKeys) {
        beyond += 1
      } else {
        window.set(key, { level, message, fields, again: 0 })
        log[level](fields, message)
      }
    },
    flush,
    close() {
      clearInterval(timer)
      flush()
    },
  }
}
