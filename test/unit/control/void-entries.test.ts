import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { type IdentityTable, openIdentityTable } from '../../../sidecar/control/identity-table.ts'
import { applyVoidEntry } from '../../../sidecar/control/void-entries.ts'

let directory = ''
let table: IdentityTable
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'synguard-voids-'))
  table = openIdentityTable(directory, (error) => {
    throw error
  })
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

function add(name: string, issuedAt: number, port = 0, labels: Readonly<Record<string, string>> = {}) {
  const identity = {
    namespace: 'shop',
    name,
    uid: `uid-${name}`,
    serviceAccount: 'default',
    labels,
    namespaceLabels: {},
    addresses: ['10.0.0.1'],
    ports: [],
  }
  return table.obtain({ identity, port, kid: 'kid', issuedAt, expiresAt: issuedAt + 3_600 })
}

describe('a void entry', () => {
  it('of a Pod that no connection here was ever with changes nothing', () => {
    add('web', 1_000)
    for (const labels of [undefined, { app: 'x' }]) {
      const entry = { uid: 'uid-other', iatBefore: 2_000, ...(labels && { labels }) }
      expect(applyVoidEntry(table, entry)).toEqual({ message: undefined, concernsConnections: false })
    }
    expect(table.size()).toBe(1)
  })

  it('of a Pod with a row, also through a Service alone, is told and has its connections judged again', () => {
    add('web', 1_000, 8080)
    expect(applyVoidEntry(table, { uid: 'uid-web', iatBefore: 1_000 })).toEqual({
      message: { type: 'void', uid: 'uid-web', issuedBefore: 1_000 },
      concernsConnections: true,
    })
  })

  it('older than the newest WIT of a row refuses the WITs before, and leaves the connections', () => {
    add('web', 1_001)
    expect(applyVoidEntry(table, { uid: 'uid-web', iatBefore: 1_000 })).toEqual({
      message: { type: 'void', uid: 'uid-web', issuedBefore: 1_000 },
      concernsConnections: false,
    })
  })

  it('with labels gives the Pod a row with them, of its older WITs alone', () => {
    add('web', 1_000)
    add('web', 3_000, 0, { app: 'newer' })
    const { message, concernsConnections } = applyVoidEntry(table, {
      uid: 'uid-web',
      iatBefore: 2_000,
      labels: { app: 'now' },
      namespaceLabels: { team: 'b' },
    })
    const identity = { ...table.get(1)?.identity, labels: { app: 'now' }, namespaceLabels: { team: 'b' } }
    expect(message).toEqual({ type: 'relabel', uid: 'uid-web', issuedBefore: 2_000, identity, index: 3 })
    expect(concernsConnections).toBe(true)
    expect(table.get(3)?.identity).toEqual(identity)
  })
})
