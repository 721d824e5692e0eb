/** What an earlier run of this Pod's sidecar left: the identity table, and connections that carry its indexes. */
import { renameSync } from 'node:fs'
import { join } from 'node:path'
import { MARK_INDEX } from '../../api/marks.ts'
import type { Conntrack } from '../netlink/conntrack.ts'
import type { Flow } from '../netlink/flow.ts'
import { ControlError } from './errors.ts'
import { RELEASED, type Revocation, revoke } from './flow-review.ts'
import { IDENTITY_FILE, type IdentityTable, openIdentityTable } from './identity-table.ts'
import type { LogSink } from './log.ts'

/** One is kept: the folder lies in the Pod's memory. */
const DAMAGED_FILE = 'identities.damaged.jsonl'

/**
 * Opens the identity table. A damaged file is set aside, since no line of it can be trusted when one is not what was
 * written, and the table is empty. Throws where the folder cannot be written.
 */
export function restoreIdentityTable(directory: string, log: Pick<LogSink, 'error'>): IdentityTable {
  const open = () =>
    openIdentityTable(directory, (error) => log.error({ error: error.message }, 'identity table not written'))
  try {
    return open()
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'state-unreadable') throw error
    const kept = join(directory, DAMAGED_FILE)
    renameSync(join(directory, IDENTITY_FILE), kept)
    const fix = `nothing is left to do for connections, whose clients connect again; ${kept} shows what happened`
    log.error({ code: error.code, error: error.message, fix }, 'identity table damaged: begun anew')
    return open()
  }
}

export interface LostRowsOptions extends Omit<Revocation, 'conntrack'> {
  readonly conntrack: Pick<Conntrack, 'dump' | 'updateMarks'>
  readonly table: Pick<IdentityTable, 'get'>
  /** Whether connections that nothing speaks for are ended: in the mode `enforce`. */
  readonly ends: boolean
}

/**
 * Ends the released connections whose row is gone, and returns how many there were. To be called before the first row is
 * given out: their index would stand for another peer then. Where the mode ends nothing they lose the index, and are
 * judged by their address should it ever end something. Throws NetlinkError.
 */
export function settleLostRows(options: LostRowsOptions): number {
  const lost: Flow[] = []
  options.conntrack.dump(RELEASED, (flow) => {
    const index = (flow.mark & MARK_INDEX) >>> 0
    if (index !== 0 && options.table.get(index) === undefined) lost.push(flow)
  })
  if (options.ends) revoke(options, lost)
  else options.conntrack.updateMarks(lost.map(({ original }) => ({ tuple: original, mark: 0, mask: MARK_INDEX })))
  return lost.length
}
