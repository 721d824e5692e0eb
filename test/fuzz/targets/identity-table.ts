import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { SynguardError } from '../../../api/errors.ts'
import { MARK_INDEX } from '../../../api/marks.ts'
import { compile } from '../../../policy/compile.ts'
import { type IdentityTable, openIdentityTable } from '../../../sidecar/control/identity-table.ts'
import { PODS } from '../../unit/policy/cluster.ts'
import { applyEdits, NO_EDIT } from '../edits.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, unfold } from '../values.ts'

const ROWS = PODS.map((identity, at) => ({
  index: at + 1,
  identity,
  port: at === 1 ? 8080 : 0,
  kid: 'k',
  issuedAt: 1_000,
  expiresAt: 4_600,
}))
const [FIRST, SECOND, THIRD] = JSON.parse(JSON.stringify(ROWS)) as readonly Json[]

/** Opens the table of a file with these contents, uses it, and removes it. */
function withTable(text: string, use: (open: () => IdentityTable, path: string) => string): string {
  const directory = mkdtempSync(join(tmpdir(), 'synguard-fuzz-'))
  try {
    const path = join(directory, 'identities.jsonl')
    writeFileSync(path, text)
    const open = () =>
      openIdentityTable(directory, (error) => {
        throw error
      })
    return use(open, path)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function holdTable(table: IdentityTable, open: () => IdentityTable): void {
  const rows = [...table.rows()]
  for (const row of rows) {
    hold(Number.isInteger(row.index) && row.index >= 1 && row.index <= MARK_INDEX, 'an index fits a mark')
    hold(table.get(row.index) === row, 'a row is found by its index')
    // What a review of running connections does with it.
    compile([], row.identity)
    hold(
      row.identity.addresses.every((address) => typeof address === 'string'),
      'addresses are texts',
    )
    hold(Number.isFinite(row.expiresAt) && Number.isFinite(row.issuedAt), 'times are numbers')
  }
  hold(isDeepStrictEqual([...open().rows()], rows), 'a table opened again has the same rows')
  for (const { identity, port, kid, issuedAt, expiresAt } of [...rows, ...ROWS]) {
    const obtained = table.obtain({ identity, port, kid, issuedAt, expiresAt })
    hold(obtained !== undefined, 'a peer gets a row')
    const found = table.get(obtained.index)
    hold(isDeepStrictEqual(found?.identity, identity), 'an index that is handed out stands for that peer')
  }
  hold(table.size() === new Set([...table.rows()].map(({ index }) => index)).size, 'no index stands for two peers')
  hold(isDeepStrictEqual([...open().rows()].length, table.size()), 'what was handed out is on disk')
  table.prune(new Set([1]), 10_000)
}

export const identityTableTarget = valueTarget({
  name: 'identity-table',
  about:
    'the identity table after a restart: rows that fit marks and policies, or an error, and no index for two peers',
  sources: ['sidecar/control/identity-table.ts'],
  batch: 8,
  seeds: [
    { rows: [FIRST, SECOND, THIRD] as Json, edits: [NO_EDIT] },
    { rows: [FIRST, { ...(isObject(SECOND) ? SECOND : {}), index: 1 }] as Json, edits: [] },
    { rows: [{ ...(isObject(FIRST) ? FIRST : {}), index: MARK_INDEX }] as Json, edits: [] },
    { rows: [FIRST] as Json, edits: [{ at: 60, remove: 999, insert: '' }] },
  ],
  check(input) {
    const { rows, edits } = isObject(input) ? input : {}
    const list = unfold(rows ?? [])
    const lines = (Array.isArray(list) ? (list as readonly Json[]) : [list]).map((row) => `${JSON.stringify(row)}\n`)
    const text = applyEdits(lines.join(''), edits)
    return withTable(text, (open, path) => {
      let table: IdentityTable
      try {
        table = open()
      } catch (error) {
        if (!(error instanceof SynguardError)) throw error
        hold(readFileSync(path).equals(Buffer.from(text)), 'a file that is refused is left as it is')
        return 'refused'
      }
      holdTable(table, open)
      return `opened-${Math.min(table.size(), 6)}`
    })
  },
})
