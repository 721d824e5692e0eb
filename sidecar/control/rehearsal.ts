/** Verifications that nobody waits for, before the first that somebody does: see datapath/rehearsal.ts. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { encodeWitSection } from '../handshake/frame.ts'
import type { OwnIdentity } from './identity-client.ts'
import { openIdentityTable } from './identity-table.ts'
import type { LogSink } from './log.ts'
import { createVerifier, type VerifierOptions } from './verifier.ts'

/** As many as the packet path has: more took memory and brought nothing. */
const ROUNDS = 6

export interface RehearsalOptions
  extends Pick<VerifierOptions, 'trustDomain' | 'issuer' | 'skewSeconds' | 'bundle' | 'own'> {
  /** The own WIT, as frames carry it. */
  readonly section: Uint8Array
  /** Where a table may lie meanwhile. */
  readonly directory: string
  readonly now: () => number
}

/** Rehearses with the own WIT as it was issued. Nothing depends on it: whoever meets this Pod first waits longer where it fails. */
export async function rehearseOwn(
  { parts, bundle, privateKey }: OwnIdentity,
  options: Pick<RehearsalOptions, 'trustDomain' | 'issuer' | 'skewSeconds' | 'directory' | 'now'>,
  log: Pick<LogSink, 'warn'>,
): Promise<void> {
  const own = () => ({ generation: 0, privateKey })
  try {
    await rehearseVerification({ ...options, section: encodeWitSection(parts), bundle: () => bundle, own })
  } catch (error) {
    log.warn({ error: (error as Error).message }, 'verifications not rehearsed')
  }
}

/**
 * Verifies the own WIT as a peer's is verified, to the row on disk, in a table that is thrown away. Resolves to how many
 * of the rounds found it good; rejects where the folder cannot be written.
 */
export async function rehearseVerification(options: RehearsalOptions, rounds: number = ROUNDS): Promise<number> {
  const directory = join(options.directory, 'rehearsal')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  try {
    const table = openIdentityTable(directory, (error) => {
      throw error
    })
    let round = 0
    const verifier = createVerifier({
      ...options,
      // Each as a renewed one: a row that is known already is not written.
      table: { ...table, obtain: (row) => table.obtain({ ...row, expiresAt: row.expiresAt + round }) },
      fetchBundle: async () => undefined,
      onResult: () => undefined,
    })
    let good = 0
    for (round = 1; round <= rounds; round++) {
      if (typeof (await verifier.verify(options.section)) !== 'string') good++
    }
    return good
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
