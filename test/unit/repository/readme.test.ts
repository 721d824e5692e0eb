import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { CHECKOUT, readText } from './checkout.ts'

const DOCUMENTS = [
  'README.md',
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'docs/dependencies.md',
  'docs/errors.md',
  'docs/metrics.md',
  'docs/wire.md',
]

const readme = readText('README.md')
/** What README.md shows of the demo's output. */
const excerpt = readme.split('\n```\n').find((block) => block.startsWith('Who reaches whom')) ?? ''

describe('the documents', () => {
  it.each(DOCUMENTS)('name only npm scripts that there are: %s', (path) => {
    const { scripts } = JSON.parse(readText('package.json')) as { scripts: Record<string, string> }
    const named = [...readText(path).matchAll(/\bnpm run (?:--silent )?([a-z]+)/g)].map(([, name = '']) => name)
    expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([])
  })

  it.each(DOCUMENTS)('link only to files that there are: %s', (path) => {
    const links = [...readText(path).matchAll(/\]\(([^):#]+)\)/g)].map(([, link = '']) => link)
    expect(links.filter((link) => !existsSync(join(CHECKOUT, dirname(path), link)))).toEqual([])
  })

  it.each(DOCUMENTS)('name only files of the product that there are: %s', (path) => {
    const named = [
      ...readText(path).matchAll(/`((?:api|policy|certs|webhook|sidecar|cli|lab|test|scripts|examples)\/[\w./-]*)`/g),
    ].map(([, name = '']) => name)
    const missing = named.filter((name) => ![name, join('sidecar', name)].some((at) => existsSync(join(CHECKOUT, at))))
    expect(missing).toEqual([])
  })
})

describe('what README.md shows of the demo', () => {
  it('has the matrix that the policy engine gives for the example', () => {
    const matrix = execFileSync(process.execPath, ['cli/main.ts', 'explain', 'examples/three-tier'], {
      cwd: CHECKOUT,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const [targets, table, legend, refusals = ''] = matrix.split('\n\n')
    const [first] = refusals.split('\n')
    expect(excerpt).toContain([`Who reaches whom\n${targets}`, table, legend, first].join('\n\n'))
  })

  it('has the headings of the demo as it is', () => {
    const demo = readText('lab/demo.ts')
    const headings = excerpt
      .split('\n\n')
      .map((part) => part.split('\n')[0] ?? '')
      .filter((line) => /^(Who|Identities|From|1 GiB|The backend)/.test(line))
    expect(headings).toHaveLength(5)
    expect(headings.filter((heading) => !demo.includes(heading))).toEqual([])
  })
})
