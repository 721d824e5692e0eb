import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CHECKOUT } from '../repository/checkout.ts'

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'synguard-webhook-main-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

/** Runs the process to its end; it must end by itself. */
function run(environment: Record<string, string>, ...parameters: string[]): Promise<{ code: number; output: string }> {
  const command = ['--no-warnings', join(CHECKOUT, 'webhook', 'main.ts'), ...parameters]
  const { PATH = '' } = process.env
  return new Promise((resolve) => {
    execFile(process.execPath, command, { env: { PATH, ...environment }, timeout: 15_000 }, (error, output) =>
      resolve({ code: error === null ? 0 : Number(error.code), output }),
    )
  })
}

function settings(text: string): string {
  const path = join(folder, 'settings.yaml')
  writeFileSync(path, text)
  return path
}

const GOOD = 'injection: {image: "x:1"}\nwebhook: {host: 127.0.0.1, port: 0, healthPort: 0}'

describe("the webhook's process", () => {
  it('says with --help which environment it reads', async () => {
    const { code, output } = await run({}, '--help')
    expect([code, output.match(/^ {2}[A-Z_]+/gm)]).toEqual([
      0,
      ['  SYNGUARD_SETTINGS', '  SYNGUARD_NAMESPACE', '  SYNGUARD_POD_NAME', '  SYNGUARD_LOG_LEVEL', '  KUBECONFIG'],
    ])
  })

  it.each([
    [
      'no settings file',
      () => ({ SYNGUARD_SETTINGS: '/nowhere/settings.yaml' }),
      'setting-invalid',
      '/nowhere/settings.yaml',
    ],
    ['a bad setting', () => ({ SYNGUARD_SETTINGS: settings('drainMs: -1') }), 'setting-invalid', 'SYNGUARD_NAMESPACE'],
    [
      'no API server',
      () => ({ SYNGUARD_SETTINGS: settings(GOOD), SYNGUARD_NAMESPACE: 'synguard-system' }),
      'api-credentials',
      'No API server is known',
    ],
    [
      'no kubeconfig where it is said to be',
      () => ({
        SYNGUARD_SETTINGS: settings(GOOD),
        SYNGUARD_NAMESPACE: 'synguard-system',
        KUBECONFIG: '/nowhere/config',
      }),
      'api-credentials',
      '/nowhere/config',
    ],
  ])('ends with code 1 and one line that says why where there is %s', async (_, environment, code, message) => {
    const result = await run(environment())
    const lines = result.output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, string>)
    expect([result.code, lines.length]).toEqual([1, 1])
    expect(lines[0]).toMatchObject({
      level: 'fatal',
      code,
      error: expect.stringContaining(message),
      msg: 'cannot start',
    })
  })
})
