/** What follows from a void entry: for the table of identities, for the packet path, and for running connections. */
import type { VoidEntry } from '../../api/identity.ts'
import type { ToWorker } from '../datapath/messages.ts'
import type { IdentityRow, IdentityTable } from './identity-table.ts'
import { relabelled } from './voids.ts'

export interface VoidConsequences {
  /** What the packet path has to hear, if it may know the Pod. */
  readonly message: ToWorker | undefined
  /** Whether a running connection may be another Pod's now, or nobody's. */
  readonly concernsConnections: boolean
}

/**
 * Works out what another Pod's entry changes here, and gives a relabelled Pod its new row. Every peer that the packet
 * path or a connection's mark knows has a row: a Pod without one is nobody here, and most entries of a cluster are of
 * such Pods.
 */
export function applyVoidEntry(table: Pick<IdentityTable, 'rows' | 'obtain'>, entry: VoidEntry): VoidConsequences {
  const rows = [...table.rows()].filter(({ identity }) => identity.uid === entry.uid)
  // Where a later WIT says the same of the Pod, the row is that WIT's.
  const older = rows.filter(({ issuedAt }) => issuedAt <= entry.iatBefore)
  const isKnown = rows.length > 0
  const isRelabel = entry.labels !== undefined || entry.namespaceLabels !== undefined
  return {
    message: isRelabel ? relabelMessage(table, older, entry) : isKnown ? voidMessage(entry) : undefined,
    concernsConnections: older.length > 0,
  }
}

function voidMessage({ uid, iatBefore }: VoidEntry): ToWorker {
  return { type: 'void', uid, issuedBefore: iatBefore }
}

function relabelMessage(
  table: Pick<IdentityTable, 'obtain'>,
  rows: readonly IdentityRow[],
  entry: VoidEntry,
): ToWorker | undefined {
  for (const row of rows) {
    if (row.port !== 0) continue
    const identity = relabelled(row.identity, entry)
    const fresh = table.obtain({ ...row, identity })
    if (fresh === undefined) continue
    return { type: 'relabel', uid: entry.uid, issuedBefore: entry.iatBefore, identity, index: fresh.index }
  }
  return undefined
}
