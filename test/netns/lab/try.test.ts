import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, it } from '@jest/globals'

const ROOT = resolve(import.meta.dirname, '../../..')
const EXAMPLE = join(ROOT, 'examples', 'three-tier')
/** Guarded Pods start several processes each, on machines with few cores. */
const SLOW_MS = 90_000

function runTry(args: readonly string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, ['--no-warnings', join(ROOT, 'cli', 'main.ts'), 'try', ...args], {
      cwd: ROOT,
    })
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8')
      child[name].on('data', (text: string) => {
        output[name] += text
      })
    }
    child.once('error', fail)
    child.once('close', (status) => done({ status, ...output }))
  })
}

describe('synguard try', () => {
  it(
    'runs the three-tier example guarded, and the network does what its expect.json and the engine say',
    async () => {
      const { status, stdout } = await runTry([EXAMPLE, '--json', '--expect', join(EXAMPLE, 'expect.json')])
      const { matches, differences, results } = JSON.parse(stdout) as Record<string, unknown>
      expect({ status, matches, differences }).toEqual({ status: 0, matches: true, differences: [] })
      expect(results).toHaveLength(12)
    },
    SLOW_MS,
  )

  it(
    'an expectation that is not met is told, with status 1',
    async () => {
      const directory = mkdtempSync(join(tmpdir(), 'sgt-try-'))
      const pod = (name: string) =>
        `---\napiVersion: v1\nkind: Pod\nmetadata: {name: ${name}}\nspec: {containers: [{name: c, ports: [{containerPort: 80}]}]}\n`
      writeFileSync(join(directory, 'a.yaml'), pod('a') + pod('b'))
      const expectation = [{ from: 'default/a', to: 'default/b', port: 80, reachable: false }]
      writeFileSync(join(directory, 'expect.json'), JSON.stringify(expectation))
      const { status, stderr } = await runTry([directory, '--expect', join(directory, 'expect.json')])
      rmSync(directory, { recursive: true })
      expect(status).toBe(1)
      expect(stderr).toContain('difference: default/a -> default/b 80/TCP: expected not reachable, is reachable')
    },
    SLOW_MS,
  )
})
