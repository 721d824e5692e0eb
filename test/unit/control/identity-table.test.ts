import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { type IdentityRow, openIdentityTable } from '../../../sidecar/control/identity-table.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'synguard-table-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

function wanted(name: string, more: Partial<IdentityRow> = {}): Omit<IdentityRow, 'index'> {
  const identity = {
    namespace: 'shop',
    name,
    uid: `uid-${name}`,
    serviceAccount: 'default',
    labels: {},
    namespaceLabels: {},
    addresses: ['10.0.0.1'],
    ports: [],
  }
  return { identity, port: 0, kid: 'kid', issuedAt: 1_000, expiresAt: 4_600, ...more }
}

function open(errors: Error[] = []) {
  return openIdentityTable(directory, (error) => errors.push(error))
}

const file = () => join(directory, 'identities.jsonl')

describe('the identity table', () => {
  it('gives one row to one set of facts, and keeps the times of its newest WIT', () => {
    const table = open()
    const first = table.obtain(wanted('a'))
    const renewed = table.obtain(wanted('a', { issuedAt: 2_000, expiresAt: 5_600 }))
    const older = table.obtain(wanted('a'))
    expect([first?.index, renewed?.index, older?.index]).toEqual([1, 1, 1])
    expect(older).toEqual({ ...wanted('a', { issuedAt: 2_000, expiresAt: 5_600 }), index: 1 })
  })

  it('gives another port, other labels and another Pod rows of their own', () => {
    const table = open()
    const relabelled = { ...wanted('a').identity, labels: { app: 'x' } }
    const rows = [wanted('a'), wanted('a', { port: 80 }), wanted('a', { identity: relabelled }), wanted('b')]
    expect(rows.map((row) => table.obtain(row)?.index)).toEqual([1, 2, 3, 4])
  })

  it('keeps its file small, however often its peers renew, and the newest times in it', () => {
    const table = open()
    for (let renewal = 0; renewal < 10_000; renewal++) {
      for (const name of ['a', 'b']) {
        table.obtain(wanted(name, { issuedAt: 1_000 + renewal, expiresAt: 4_600 + renewal }))
      }
    }
    expect(readFileSync(file(), 'utf8').split('\n').length).toBeLessThan(100)
    expect([...open().rows()]).toEqual([...table.rows()])
    expect([...table.rows()].map(({ expiresAt }) => expiresAt)).toEqual([14_599, 14_599])
  })

  it('has a row on disk before it is handed out', () => {
    const row = open().obtain(wanted('a'))
    expect(JSON.parse(readFileSync(file(), 'utf8').trim())).toEqual(row)
  })

  it('knows its rows after a restart, and gives no index of theirs to another', () => {
    const table = open()
    const kept = [table.obtain(wanted('a')), table.obtain(wanted('b'))]
    const restarted = open()
    expect([...restarted.rows()]).toEqual(kept)
    expect(restarted.obtain(wanted('c'))?.index).toBe(3)
  })

  it('loses nothing but a last line that broke off', () => {
    open().obtain(wanted('a'))
    appendFileSync(file(), '{"index":2,"identi')
    const restarted = open()
    expect([...restarted.rows()].map(({ index }) => index)).toEqual([1])
    restarted.obtain(wanted('b'))
    expect([...open().rows()].map(({ identity }) => identity.name)).toEqual(['a', 'b'])
  })

  it.each([
    'not a row',
    'null',
    '{"index":1}',
    JSON.stringify({ ...wanted('a'), index: 0 }),
    JSON.stringify({ ...wanted('a'), index: 1 << 20 }),
    JSON.stringify({ ...wanted('a'), index: '1' }),
    JSON.stringify({ ...wanted('a'), index: 1, expiresAt: null }),
    JSON.stringify({ ...wanted('a'), index: 1, identity: { name: 'a' } }),
  ])('does not open a file with a row such as %s, and leaves it as it is', (row) => {
    writeFileSync(file(), `${row}\n`)
    expect(() => open()).toThrow(expect.objectContaining({ code: 'state-unreadable' }))
    expect(readFileSync(file(), 'utf8')).toBe(`${row}\n`)
  })

  it('never hands an index to a peer that it no longer stands for', () => {
    writeFileSync(file(), ['a', 'b'].map((name) => `${JSON.stringify({ ...wanted(name), index: 1 })}\n`).join(''))
    const table = open()
    expect(table.obtain(wanted('a'))?.index).toBe(2)
    expect([table.get(1)?.identity.name, table.get(2)?.identity.name]).toEqual(['b', 'a'])
  })

  it('bears that it cannot be written when rows are freed, and writes them off later', () => {
    const errors: Error[] = []
    const table = open(errors)
    for (const name of ['a', 'b']) table.obtain(wanted(name, { expiresAt: name === 'a' ? 1 : 9_999 }))
    rmSync(directory, { recursive: true })
    expect(table.prune(new Set(), 5_000)).toBe(1)
    expect(errors).toHaveLength(1)
    mkdirSync(directory)
    expect(table.obtain(wanted('c'))?.index).toBe(3)
    expect([...open().rows()].map(({ index }) => index)).toEqual([2, 3])
  })

  it('hands out no row that it cannot write, tells why, and works on when it can again', () => {
    const errors: Error[] = []
    const table = open(errors)
    table.obtain(wanted('a'))
    rmSync(directory, { recursive: true })
    expect(table.obtain(wanted('b'))).toBeUndefined()
    expect(errors.map((error) => (error as NodeJS.ErrnoException).code)).toEqual(['ENOENT'])
    directory = mkdtempSync(join(tmpdir(), 'synguard-table-'))
  })

  it('frees expired rows, but never an index that a connection carries', () => {
    const table = open()
    for (const name of ['a', 'b', 'c']) table.obtain(wanted(name))
    table.obtain(wanted('d', { expiresAt: 9_999 }))
    expect(table.prune(new Set([2]), 5_000)).toBe(2)
    expect([...table.rows()].map(({ index }) => index)).toEqual([2, 4])
    expect([...open().rows()].map(({ index }) => index)).toEqual([2, 4])
  })

  it('does not give a freed index to the next one: what remembers it meets nobody else soon', () => {
    const table = open()
    table.obtain(wanted('a'))
    table.prune(new Set(), 5_000)
    expect(table.obtain(wanted('b'))?.index).toBe(2)
  })

  it('starts again below where the last index is taken', () => {
    writeFileSync(file(), `${JSON.stringify({ ...wanted('last'), index: 0xfffff })}\n`)
    const table = open()
    expect([table.obtain(wanted('a'))?.index, table.obtain(wanted('b'))?.index]).toEqual([1, 2])
  })
})
