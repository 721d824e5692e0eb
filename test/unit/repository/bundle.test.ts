import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CHECKOUT } from './checkout.ts'

let folder = ''

function run(...parameters: readonly string[]): string {
  return execFileSync(process.execPath, parameters, {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

describe('npm run build', () => {
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'synguard-bundle-'))
    run(join(CHECKOUT, 'scripts', 'bundle.ts'), join(folder, 'dist'))
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it.each([
    ['sidecar/init.js', /^Installs Synguard's iptables rules/],
    ['sidecar/main.js', /^Synguard's sidecar: decides/],
    ['webhook/main.js', /^Synguard's webhook: puts/],
    ['cli/synguard.js', /^synguard COMMAND/],
  ])('makes %s, which runs outside of the checkout', (file, help) => {
    expect(run(join('dist', file), '--help')).toMatch(help)
  })

  it('puts the worker beside main.js, which looks for it there', () => {
    expect(existsSync(join(folder, 'dist', 'sidecar', 'worker.js'))).toBe(true)
    expect(readFileSync(join(folder, 'dist', 'sidecar', 'main.js'), 'utf8')).toContain('./worker.js')
  })

  it('gives the sidecar koffi with its native library', () => {
    const script = `import koffi from 'koffi'; process.stdout.write(String(koffi.load(null).func('int getpid()')() === process.pid))`
    const inDist = { cwd: join(folder, 'dist', 'sidecar'), encoding: 'utf8' } as const
    expect(execFileSync(process.execPath, ['--input-type=module', '-e', script], inDist)).toBe('true')
  })

  it('makes a command line that explains policies and knows its version', () => {
    const { version } = JSON.parse(readFileSync(join(CHECKOUT, 'package.json'), 'utf8')) as { version: string }
    expect(run('dist/cli/synguard.js', '--version')).toBe(`${version}\n`)
    const example = join(CHECKOUT, 'examples', 'three-tier')
    const { results } = JSON.parse(run('dist/cli/synguard.js', 'explain', '--json', example)) as { results: unknown[] }
    expect(results.length).toBeGreaterThan(0)
  })

  it('refuses a folder that holds something', () => {
    expect(() => run(join(CHECKOUT, 'scripts', 'bundle.ts'), folder)).toThrow('is not empty')
  })
})
