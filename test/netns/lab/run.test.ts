import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { createNetwork } from '../../../lab/network.ts'
import { namespacesOf } from '../../../lab/remains.ts'
import { createRun } from '../../../lab/run.ts'

const ROOT = resolve(import.meta.dirname, '../../..')

/** Processes of the machine that have `text` on their command line. */
function processesWith(text: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text)
    } catch {
      return false // gone meanwhile
    }
  })
}

async function waitUntil(condition: () => boolean, milliseconds = 10_000): Promise<void> {
  const deadline = Date.now() + milliseconds
  while (!condition() && Date.now() < deadline) await new Promise((done) => setTimeout(done, 50))
}

describe('a run of the lab', () => {
  it('stop leaves no namespace and no file behind', async () => {
    const run = createRun()
    const network = await createNetwork({ runId: run.id })
    await network.addPod()
    expect(namespacesOf(run.id).sort()).toEqual(['ext', 'node', 'p0'].map((name) => `sgl-${run.id}-${name}`))
    expect(existsSync(run.directory)).toBe(true)
    await run.stop()
    expect([namespacesOf(run.id), existsSync(run.directory), processesWith(run.directory)]).toEqual([[], false, []])
  })

  it.each(['SIGKILL', 'SIGTERM', 'SIGINT'] as const)(
    'a lab that ends by %s leaves no namespace, file or process behind',
    async (signal) => {
      const script = `
        import { createLab } from '${join(ROOT, 'lab', 'lab.ts')}'
        import { stopOnSignals } from '${join(ROOT, 'lab', 'run.ts')}'
        const lab = await createLab()
        stopOnSignals(lab.stop)
        const container = { name: 'c', image: 'x', command: ['sleep', '1000'] }
        const metadata = { namespace: 'n', name: 'p', labels: {}, annotations: {} }
        await lab.putNamespace({ metadata: { name: 'n' } })
        await lab.runPod(await lab.admitPod({ metadata, spec: { containers: [container] } }))
        process.stdout.write(lab.run.id + ' ' + lab.run.directory + ' ')
        setInterval(() => {}, 1000)`
      const child = spawn(process.execPath, ['--no-warnings', '--input-type=module-typescript', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let output = ''
      child.stdout.setEncoding('utf8')
      child.stdout.on('data', (text: string) => {
        output += text
      })
      const ended = new Promise((done) => child.once('exit', done))
      await waitUntil(() => output.split(' ').length === 3 || child.exitCode !== null)
      const [id = '', directory = ''] = output.split(' ')
      expect(namespacesOf(id)).toHaveLength(3)
      expect(processesWith(directory).length).toBeGreaterThan(0)
      child.kill(signal)
      await ended
      await waitUntil(
        () => namespacesOf(id).length === 0 && !existsSync(directory) && processesWith(directory).length === 0,
      )
      expect([namespacesOf(id), existsSync(directory), processesWith(directory)]).toEqual([[], false, []])
    },
  )
})
