import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { createPatch } from '../../../webhook/admission/patch.ts'
import { applyPatch } from './json-patch.ts'

describe('createPatch', () => {
  it('of equal values is empty', () => {
    const pod = { spec: { containers: [{ name: 'a', args: ['x', 1, null, true] }] } }
    expect(createPatch(pod, structuredClone(pod))).toEqual([])
  })

  it('adds, replaces and removes members', () => {
    expect(createPatch({ a: 1, b: 2, same: [1] }, { a: 3, c: null, same: [1] })).toEqual([
      { op: 'remove', path: '/b' },
      { op: 'replace', path: '/a', value: 3 },
      { op: 'add', path: '/c', value: null },
    ])
  })

  it('escapes ~ and / in keys (RFC 6901)', () => {
    expect(createPatch({ m: {} }, { m: { 'synguard.io/a~b': 'x' } })).toEqual([
      { op: 'add', path: '/m/synguard.io~1a~0b', value: 'x' },
    ])
  })

  it('puts a named element in front without rewriting those behind it', () => {
    const before = [{ name: 'app' }, { name: 'proxy', image: 'p' }]
    const after = [{ name: 'ours' }, { name: 'app', image: 'a' }, { name: 'proxy', image: 'p' }]
    expect(createPatch(before, after)).toEqual([
      { op: 'add', path: '/0', value: { name: 'ours' } },
      { op: 'add', path: '/1/image', value: 'a' },
    ])
  })

  it('moves a named element by removing and adding it', () => {
    const [a, b, c] = [{ name: 'a' }, { name: 'b' }, { name: 'c' }]
    expect(createPatch([a, b, c], [c, a, b])).toEqual([
      { op: 'remove', path: '/2' },
      { op: 'add', path: '/0', value: c },
    ])
  })

  it('removes named elements from the back, so that indexes stay right', () => {
    expect(createPatch([{ name: 'a' }, { name: 'b' }, { name: 'c' }], [{ name: 'b' }])).toEqual([
      { op: 'remove', path: '/2' },
      { op: 'remove', path: '/0' },
    ])
  })

  it('goes by position where elements have no names, or share one', () => {
    expect(createPatch(['NET_BIND_SERVICE'], ['NET_BIND_SERVICE', 'NET_RAW'])).toEqual([
      { op: 'add', path: '/1', value: 'NET_RAW' },
    ])
    const twice = [
      { name: 'a', v: 1 },
      { name: 'a', v: 2 },
    ]
    expect(createPatch(twice, [{ name: 'a', v: 1 }])).toEqual([{ op: 'remove', path: '/1' }])
  })

  it('counts undefined as absent', () => {
    expect(createPatch({ a: undefined, b: 1 }, { a: 1, b: undefined })).toEqual([
      { op: 'remove', path: '/b' },
      { op: 'add', path: '/a', value: 1 },
    ])
  })

  it('replaces a list by an object, and the root', () => {
    expect(createPatch({ a: [] }, { a: {} })).toEqual([{ op: 'replace', path: '/a', value: {} }])
    expect(createPatch(1, [1])).toEqual([{ op: 'replace', path: '', value: [1] }])
  })

  it('applied by RFC 6902 gives exactly the new value, for any two JSON values', () => {
    const named = fc.uniqueArray(fc.record({ name: fc.constantFrom('a', 'b', 'c', 'd', 'e'), v: fc.jsonValue() }), {
      selector: ({ name }) => name,
    })
    const value = fc.oneof(
      fc.jsonValue(),
      fc.record({ spec: fc.record({ containers: named, volumes: fc.array(fc.nat(3)) }) }),
    )
    fc.assert(
      fc.property(value, value, (first, second) => {
        // JSON text has no -0 and no prototypes.
        const [before, after] = [JSON.parse(JSON.stringify(first)), JSON.parse(JSON.stringify(second))]
        const patch = JSON.parse(JSON.stringify(createPatch(before, after)))
        expect(JSON.stringify(sorted(applyPatch(before, patch)))).toBe(JSON.stringify(sorted(after)))
        expect(createPatch(after, after)).toEqual([])
      }),
      { numRuns: 500 },
    )
  })
})

/** Object keys in order, as JSON objects have none. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => [key, sorted(item)])
}
