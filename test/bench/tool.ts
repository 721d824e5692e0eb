/** What the bench, its curves and the soak have in common: a command line, and a lab that is gone when they end. */
import { chmodSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import type { Lab } from '../../lab/lab.ts'
import { createRun, stopOnSignals } from '../../lab/run.ts'

/** A wrong option: the message names it. */
export class OptionError extends Error {}

export type Flags = Readonly<Record<string, string | boolean | undefined>>

/** The options of a command line; `undefined` where it asks for help. Throws OptionError. */
export function parseFlags(args: readonly string[], options: ParseArgsOptionsConfig): Flags | undefined {
  try {
    const { values } = parseArgs({ args: [...args], options: { help: { type: 'boolean' }, ...options } })
    return values.help === true ? undefined : (values as Flags)
  } catch (error) {
    throw new OptionError(error instanceof Error ? error.message : String(error))
  }
}

/** The value of an option that counts something. Throws OptionError. */
export function wholeNumber(flags: Flags, name: string, least: number): number {
  const value = Number(flags[name])
  if (!Number.isInteger(value) || value < least) {
    throw new OptionError(`--${name} ${flags[name]}: a whole number from ${least} on`)
  }
  return value
}

/** The value of an option that lists names. Throws OptionError. */
export function namesAmong<Name extends string>(flags: Flags, name: string, known: readonly Name[]): readonly Name[] {
  const asked = String(flags[name]).split(',')
  const unknown = asked.find((one) => !known.some((name) => name === one))
  if (unknown !== undefined) throw new OptionError(`--${name}: "${unknown}" is none of ${known.join(', ')}`)
  return known.filter((one) => asked.includes(one))
}

export type Say = (line: string) => void

/** Runs a program to its end; returns its exit status: 2 without root or for a wrong option, 1 for any other error. */
export async function runTool(say: Say, program: () => Promise<number>): Promise<number> {
  try {
    return await program()
  } catch (error) {
    say(error instanceof Error ? error.message : String(error))
    return error instanceof OptionError ? 2 : 1
  }
}

/**
 * Gives the work a folder that containers see, and stops the lab that it keeps; leaves nothing behind, whichever way
 * this process ends. Containers have a /tmp of their own, so the folder lies in /var/tmp where TMPDIR names no other.
 * Throws OptionError without root.
 */
export async function inScratch<Result>(
  work: (folder: string, keep: (lab: Lab) => void) => Promise<Result>,
): Promise<Result> {
  if (process.getuid?.() !== 0) {
    throw new OptionError('needs root: it makes network namespaces and rules; run it again with sudo')
  }
  if (`${tmpdir()}/`.startsWith('/tmp/')) process.env.TMPDIR = '/var/tmp'
  const scratch = createRun()
  chmodSync(scratch.directory, 0o755)
  let lab: Lab | undefined
  const stop = async (): Promise<void> => {
    await lab?.stop()
    await scratch.stop()
  }
  stopOnSignals(stop)
  try {
    return await work(scratch.directory, (made) => {
      lab = made
    })
  } finally {
    await stop()
  }
}
