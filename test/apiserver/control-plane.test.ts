import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from '@jest/globals'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'

let started: ControlPlane | undefined
afterEach(() => started?.stop(), CONTROL_PLANE_TIMEOUT_MS)

/** Command lines of the processes that name `text`; zombies have none. */
function processesWith(text: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')]
      } catch {
        return []
      }
    })
    .filter((line) => line.includes(text))
}

describe('the control plane for tests', () => {
  it(
    'is a real API server, and leaves no process and no file',
    async () => {
      started = await startControlPlane()
      const { admin, statePath } = started
      const { gitVersion } = await admin.send<{ gitVersion: string }>({ method: 'GET', path: '/version' })
      expect(gitVersion).toMatch(/^v1\.\d+\.\d+$/)
      const kinds = await admin.send<{ items: unknown[] }>({ method: 'GET', path: '/api/v1/namespaces' })
      expect(kinds.items.length).toBeGreaterThanOrEqual(3)
      expect(processesWith(statePath).length).toBeGreaterThan(0)

      await started.stop()
      started = undefined
      expect(processesWith(statePath)).toEqual([])
      expect(existsSync(statePath)).toBe(false)
    },
    CONTROL_PLANE_TIMEOUT_MS,
  )

  it(
    'leaves nothing either where its owner is killed',
    async () => {
      const script = [
        `const { startControlPlane } = await import('${join(import.meta.dirname, 'control-plane.ts')}')`,
        'const { statePath } = await startControlPlane()',
        "process.stdout.write(statePath, () => process.kill(process.pid, 'SIGKILL'))",
      ].join('\n')
      const command = ['--no-warnings', '--input-type=module', '-e', script]
      const { stdout: statePath, signal } = spawnSync(process.execPath, command, { encoding: 'utf8' })
      expect([signal, statePath]).toEqual(['SIGKILL', expect.stringContaining('synguard-apiserver-')])
      await until('its processes to end', () => processesWith(statePath).length === 0)
      await until('its files to go', () => !existsSync(statePath))
    },
    CONTROL_PLANE_TIMEOUT_MS,
  )
})
