import { mkdirSync, mkdtempSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { SynguardError } from '../../../api/errors.ts'
import { createDirectorySource } from '../../../sidecar/control/policies/directory.ts'
import type { PolicySet, PolicySource } from '../../../sidecar/control/policies/source.ts'
import { until } from './fake-issuer.ts'

let path: string
let source: PolicySource | undefined
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), 'synguard-policies-'))
})
afterEach(() => {
  source?.stop()
  source = undefined
  rmSync(path, { recursive: true, force: true })
})

function policy(name: string, namespace = 'shop', extra = ''): string {
  return `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec: { podSelector: {}, policyTypes: [Ingress]${extra} }
---
`
}

/** By rename: a reading never sees half of it. */
function write(file: string, text: string): string {
  writeFileSync(join(path, '.new'), text)
  renameSync(join(path, '.new'), join(path, file))
  return join(path, file)
}

interface Seen {
  readonly sets: PolicySet[]
  readonly errors: SynguardError[]
  /** The names in the last set, with `?` where it is not synced. */
  last(): string
}

function start(pollMs = 600_000): Seen {
  const sets: PolicySet[] = []
  const errors: SynguardError[] = []
  source = createDirectorySource({ path, namespace: 'shop', debounceMs: 10, pollMs })
  source.start({ onChange: (set) => void sets.push(set), onError: (error) => void errors.push(error) })
  const names = (set: PolicySet | undefined) =>
    set === undefined ? 'none' : `${set.policies.map(({ name }) => name).join(' ')}${set.synced ? '' : '?'}`
  return { sets, errors, last: () => names(sets.at(-1)) }
}

const quiet = () => new Promise((resolve) => setTimeout(resolve, 100))

describe('a directory of policies', () => {
  it("gives the namespace's policies of all its files, other kinds and namespaces left out", async () => {
    write('a.yaml', policy('one') + policy('elsewhere', 'other') + policy('two'))
    write('b.yml', 'apiVersion: v1\nkind: Service\nmetadata: { name: s, namespace: shop }\n')
    write(
      'c.json',
      JSON.stringify({
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'three', namespace: 'shop' },
        spec: { podSelector: {} },
      }),
    )
    write('.hidden.yaml', 'no: [policy')
    write('notes.txt', 'no policy')
    const seen = start()
    await until(() => seen.sets.length === 1)
    expect({ last: seen.last(), errors: seen.errors }).toEqual({ last: 'one two three', errors: [] })
  })

  it('is synced where it is empty', async () => {
    const seen = start()
    await until(() => seen.sets.length === 1)
    expect(seen.sets).toEqual([{ policies: [], synced: true }])
  })

  it('follows files that are written, renamed over, and removed', async () => {
    write('a.yaml', policy('one'))
    const seen = start()
    await until(() => seen.last() === 'one')
    write('b.yaml', policy('two'))
    await until(() => seen.last() === 'one two')
    write('a.yaml.tmp', policy('ten'))
    renameSync(join(path, 'a.yaml.tmp'), join(path, 'a.yaml'))
    await until(() => seen.last() === 'ten two')
    rmSync(join(path, 'b.yaml'))
    await until(() => seen.last() === 'ten')
    expect(seen.errors).toEqual([])
  })

  it('follows a mounted ConfigMap, whose files are links through a folder that is replaced', async () => {
    mkdirSync(join(path, '..2026_1'))
    write('..2026_1/p.yaml', policy('one'))
    symlinkSync('..2026_1', join(path, '..data'))
    symlinkSync('..data/p.yaml', join(path, 'p.yaml'))
    const seen = start()
    await until(() => seen.last() === 'one')
    mkdirSync(join(path, '..2026_2'))
    write('..2026_2/p.yaml', policy('two'))
    symlinkSync('..2026_2', join(path, '..data_tmp'))
    renameSync(join(path, '..data_tmp'), join(path, '..data'))
    await until(() => seen.last() === 'two')
  })

  it('keeps the last good policies of a file that turns bad, takes the other files on, and says so once', async () => {
    write('a.yaml', policy('one'))
    write('b.yaml', policy('two'))
    const seen = start(20)
    await until(() => seen.last() === 'one two')
    write('a.yaml', policy('one', 'shop', ', nonsense: 1'))
    write('b.yaml', policy('three'))
    await until(() => seen.last() === 'one three' && seen.errors.length > 0)
    await quiet()
    expect(seen.errors.map(({ code }) => code)).toEqual(['policy-unknown-field'])
    expect(seen.errors[0]?.message).toContain('a.yaml')
    write('a.yaml', policy('repaired'))
    await until(() => seen.last() === 'repaired three')
  })

  it('keeps the policies of a file that is empty, as it is while it is written', async () => {
    write('a.yaml', policy('one'))
    const seen = start()
    await until(() => seen.last() === 'one')
    write('a.yaml', '\n')
    await until(() => seen.errors.length === 1)
    expect({ last: seen.last(), code: seen.errors[0]?.code }).toEqual({ last: 'one', code: 'policies-invalid' })
  })

  it('is not synced before every file was good', async () => {
    write('a.yaml', policy('one'))
    write('b.yaml', 'kind: [')
    const seen = start()
    await until(() => seen.last() === 'one?')
    expect(seen.errors.map(({ code }) => code)).toEqual(['policy-not-yaml'])
    write('b.yaml', policy('two'))
    await until(() => seen.last() === 'one two')
    write('c.yaml', 'kind: [')
    await until(() => seen.errors.length === 2)
    expect(seen.last()).toBe('one two')
  })

  it('takes no policy that is in two files', async () => {
    write('a.yaml', policy('one'))
    const seen = start()
    await until(() => seen.last() === 'one')
    write('b.yaml', policy('one') + policy('two'))
    await until(() => seen.errors.length === 1)
    expect({ last: seen.last(), message: seen.errors[0]?.message }).toEqual({
      last: 'one',
      message: 'shop/one is in a.yaml and in b.yaml; remove one',
    })
  })

  it('gives nothing where nothing changed for this namespace', async () => {
    write('a.yaml', policy('one'))
    const seen = start(20)
    await until(() => seen.last() === 'one')
    write('a.yaml', `# a comment\n${policy('one')}`)
    write('b.yaml', policy('elsewhere', 'other'))
    await quiet()
    expect(seen.sets.length).toBe(1)
  })

  it('waits for a directory that is not there, and keeps the policies of one that goes', async () => {
    rmSync(path, { recursive: true })
    const seen = start(20)
    await until(() => seen.errors.length === 1)
    expect(seen.sets).toEqual([])
    mkdirSync(path)
    write('a.yaml', policy('one'))
    await until(() => seen.last() === 'one')
    rmSync(path, { recursive: true })
    await until(() => seen.errors.length === 2)
    expect(seen.errors.map(({ code }) => code)).toEqual(['policies-unreadable', 'policies-unreadable'])
    expect(seen.last()).toBe('one')
    mkdirSync(path)
    write('a.yaml', policy('back'))
    await until(() => seen.last() === 'back')
  })

  it('parses only files whose text changed, and gives policies that did not change as the same objects', async () => {
    write('a.yaml', policy('one') + policy('two'))
    write('b.yaml', policy('three'))
    const seen = start(20)
    await until(() => seen.last() === 'one two three')
    write('a.yaml', policy('one') + policy('two', 'shop', ', ingress: [{}]'))
    await until(() => seen.sets.length === 2)
    const [before = [], after = []] = seen.sets.map(({ policies }) => policies)
    expect(after.map((one, index) => one === before[index])).toEqual([true, false, true])
  })

  it('sees a file that is written again within the tick of its clock', async () => {
    const path = write('a.yaml', policy('one'))
    const { mtime } = statSync(path)
    const seen = start(20)
    await until(() => seen.last() === 'one')
    // Of the same length, in place, and its time set back: only the change time tells.
    writeFileSync(path, policy('two'))
    utimesSync(path, mtime, mtime)
    await until(() => seen.last() === 'two')
  })

  it('knows when it last saw the directory as it stands, and not since where a file is bad', async () => {
    write('a.yaml', policy('one'))
    const seen = start(20)
    expect(source?.confirmedAt()).toBeUndefined()
    await until(() => seen.sets.length === 1)
    const first = source?.confirmedAt() ?? 0
    expect(first).toBeGreaterThan(Date.now() - 10_000)
    await until(() => (source?.confirmedAt() ?? 0) > first)
    write('b.yaml', 'kind: [')
    await until(() => seen.errors.length === 1)
    const last = source?.confirmedAt()
    await quiet()
    expect(source?.confirmedAt()).toBe(last)
  })

  it('says nothing after it is stopped', async () => {
    const seen = start(20)
    await until(() => seen.sets.length === 1)
    source?.stop()
    write('a.yaml', policy('one'))
    await quiet()
    expect(seen.sets.length).toBe(1)
  })
})
