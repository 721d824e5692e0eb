import { dirname, join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { listSources, PRODUCT, readText } from './checkout.ts'

/**
 * Each part of the product, and what it may import beside itself: names point down. The first part that a path begins
 * with is its own, so files named before their folder.
 */
const MAY_IMPORT: readonly (readonly [part: string, from: readonly string[]])[] = [
  ['api', []],
  ['policy', ['api']],
  ['certs', ['api', 'policy/address.ts']],
  ['kubernetes', ['api']],
  ['webhook', ['api', 'policy', 'certs', 'kubernetes']],
  ['sidecar/packet', []],
  ['sidecar/netlink', ['api']],
  ['sidecar/rules', ['api', 'sidecar/netlink']],
  ['sidecar/handshake', ['api', 'certs', 'sidecar/packet']],
  ['sidecar/datapath', ['api', 'certs', 'policy', 'sidecar/packet', 'sidecar/netlink', 'sidecar/handshake']],
  [
    'sidecar/control',
    [
      'api',
      'certs',
      'kubernetes',
      'policy',
      'sidecar/packet',
      'sidecar/netlink',
      'sidecar/rules',
      'sidecar/handshake',
      'sidecar/datapath',
    ],
  ],
  ['sidecar/init.ts', ['api', 'sidecar/rules']],
  ['sidecar/main.ts', ['api', 'sidecar/control']],
  ['lab', ['api', 'policy', 'certs', 'webhook', 'sidecar']],
  ['cli', ['api', 'policy', 'certs', 'kubernetes', 'webhook', 'sidecar', 'lab']],
]

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\b(?<type> type\b)?[^'"`;]*?\bfrom '(?<from>[^']+)'|\bimport(?:\(| )'(?<bare>[^']+)'/g

interface Import {
  readonly file: string
  /** A path within the checkout, or a package's name. */
  readonly target: string
  readonly typeOnly: boolean
}

function readImports(file: string, text: string): Import[] {
  return [...text.matchAll(IMPORT)].map(({ groups = {} }) => {
    const specifier = groups.from ?? groups.bare ?? ''
    const target = specifier.startsWith('.') ? join(dirname(file), specifier) : specifier
    return { file, target, typeOnly: groups.type !== undefined }
  })
}

const isWithin = (path: string, part: string): boolean => path === part || path.startsWith(`${part}/`)

const files = listSources(PRODUCT)
const imports = files.flatMap((file) => readImports(file, readText(file)))
const internal = imports.filter(({ file, target }) => target.includes('/') && target.endsWith('.ts') && file !== target)

/** A round trip of imports, as the paths along it, or undefined. */
function findCycle(edges: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>()
  const path: string[] = []
  function visit(file: string): string[] | undefined {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    path.push(file)
    for (const next of edges.get(file) ?? []) {
      const cycle = visit(next)
      if (cycle) return cycle
    }
    path.pop()
    done.add(file)
    return undefined
  }
  for (const file of edges.keys()) {
    const cycle = visit(file)
    if (cycle) return cycle
  }
  return undefined
}

function edgesOf(list: readonly Import[]): Map<string, string[]> {
  const edges = new Map<string, string[]>()
  for (const { file, target } of list) edges.set(file, [...(edges.get(file) ?? []), target])
  return edges
}

describe('imports', () => {
  it('are all seen: static, type-only, bare, re-exported and dynamic ones', () => {
    const text = [
      "import { a } from './a.ts'",
      "import type { B } from '../b.ts'",
      "import {\n  c,\n  type D,\n} from './c.ts'",
      "export * from './e.ts'",
      "import './f.ts'",
      "const g = await import('./g.ts')",
      "import koffi from 'koffi'",
    ].join('\n')
    expect(readImports('x/y.ts', text)).toEqual([
      { file: 'x/y.ts', target: 'x/a.ts', typeOnly: false },
      { file: 'x/y.ts', target: 'b.ts', typeOnly: true },
      { file: 'x/y.ts', target: 'x/c.ts', typeOnly: false },
      { file: 'x/y.ts', target: 'x/e.ts', typeOnly: false },
      { file: 'x/y.ts', target: 'x/f.ts', typeOnly: false },
      { file: 'x/y.ts', target: 'x/g.ts', typeOnly: false },
      { file: 'x/y.ts', target: 'koffi', typeOnly: false },
    ])
  })

  it('of relative paths name files that exist', () => {
    const known = new Set(files)
    expect(internal.filter(({ target }) => !known.has(target))).toEqual([])
  })

  it('point down: each part imports only from itself and from those below it', () => {
    const upward = internal.filter(({ file, target }) => {
      const rule = MAY_IMPORT.find(([part]) => isWithin(file, part))
      return !rule || ![rule[0], ...rule[1]].some((part) => isWithin(target, part))
    })
    expect(upward.map(({ file, target }) => `${file} imports ${target}`)).toEqual([])
  })

  it('never lead from the product into tests or scripts', () => {
    const roots = imports.filter(({ target }) => isWithin(target, 'test') || isWithin(target, 'scripts'))
    expect(roots).toEqual([])
  })

  it('never lead from what runs in a cluster into the lab or the command line', () => {
    const outside = imports.filter(
      ({ file, target }) =>
        !isWithin(file, 'lab') && !isWithin(file, 'cli') && (isWithin(target, 'lab') || isWithin(target, 'cli')),
    )
    expect(outside).toEqual([])
  })

  it('make no cycle between files that run', () => {
    expect(findCycle(edgesOf(internal.filter(({ typeOnly }) => !typeOnly)))).toBeUndefined()
  })

  it('finds a cycle where there is one', () => {
    const edges = new Map([
      ['a', ['b']],
      ['b', ['c']],
      ['c', ['b']],
    ])
    expect(findCycle(edges)).toEqual(['b', 'c', 'b'])
  })
})
