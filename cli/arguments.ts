import { type ParseArgsConfig, parseArgs } from 'node:util'
import { CliError } from './errors.ts'

/** parseArgs() with one positional argument that must be there; throws `cli-usage`. */
export function readArguments<T extends NonNullable<ParseArgsConfig['options']>>(
  args: readonly string[],
  options: T,
  positional?: string,
) {
  try {
    const parsed = parseArgs({ args: [...args], options, allowPositionals: true, strict: true })
    const [first, ...rest] = parsed.positionals
    if (positional === undefined && first !== undefined) throw new Error(`unexpected argument "${first}"`)
    if (rest.length > 0) throw new Error(`unexpected argument "${rest[0]}"`)
    return { values: parsed.values, positional: first }
  } catch (cause) {
    throw new CliError('cli-usage', cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause), {
      cause,
    })
  }
}

/** The argument, or `cli-usage` that names it. */
export function requireArgument(value: string | undefined, name: string): string {
  if (value === undefined || value === '') throw new CliError('cli-usage', `${name} is missing`)
  return value
}
