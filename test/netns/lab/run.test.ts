import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
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
})

/** Each prints the id of its run once all of it stands, and stays. */
const PROGRAMS = {
  'a lab': `
    import { createLab } from '${join(ROOT, 'lab/lab.ts')}'
    import { stopOnSignals } from '${join(ROOT, 'lab/run.ts')}'
    const lab = await createLab()
    stopOnSignals(lab.stop)
    const container = { name: 'c', image: 'x', command: ['sleep', '1000'] }
    const metadata = { namespace: 'n', name: 'p', labels: {}, annotations: {} }
    await lab.putNamespace({ metadata: { name: 'n' } })
    await lab.runPod(await lab.admitPod({ metadata, spec: { containers: [container] } }))
    process.stdout.write(lab.run.id)`,
  'a test with two namespaces': `
    import { createPair, startScript } from '${join(ROOT, 'test/netns/rules/namespaces.ts')}'
    const { left, right } = await createPair()
    for (const namespace of [left, right]) await startScript(namespace, 'server.ts')
    process.stdout.write(left.split('-')[1])`,
  'a test that entered a namespace': `
    import { enterNewNamespace } from '${join(ROOT, 'test/netns/netlink/namespace.ts')}'
    process.stdout.write(enterNewNamespace().name.split('-')[1])`,
} as const

function pidsIn(namespace: string): string[] {
  try {
    return execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8', stdio: 'pipe' }).split('\n')
  } catch {
    return [] // gone meanwhile
  }
}

/** What stands of a run, but for the process `self`. */
function standing(id: string, self: number | undefined) {
  const namespaces = namespacesOf(id)
  const files = readdirSync(tmpdir()).filter((name) => name.startsWith(`synguard-lab-${id}-`))
  const processes = [...namespaces.flatMap(pidsIn), ...files.flatMap(processesWith)]
  return { namespaces, files, processes: processes.filter((pid) => pid !== '' && pid !== String(self)) }
}

describe.each(Object.entries(PROGRAMS))('%s', (_what, program) => {
  it.each(['SIGKILL', 'SIGTERM', 'SIGINT'] as const)(
    'that ends by %s leaves no namespace, file or process behind',
    async (signal) => {
      const script = `${program}\nprocess.stdout.write(' ')\nsetInterval(() => {}, 1000)`
      const child = spawn(process.execPath, ['--no-warnings', '--input-type=module-typescript', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let output = ''
      child.stdout.setEncoding('utf8')
      child.stdout.on('data', (text: string) => {
        output += text
      })
      const ended = new Promise((done) => child.once('exit', done))
      await waitUntil(() => output.endsWith(' ') || child.exitCode !== null, 30_000)
      const id = output.trim()
      const before = standing(id, child.pid)
      expect([before.namespaces.length, before.files.length, before.processes.length]).not.toContain(0)
      child.kill(signal)
      await ended
      const left = () => {
        const { namespaces, files, processes } = standing(id, undefined)
        return [...namespaces, ...files, ...processes, ...before.processes.filter((pid) => existsSync(`/proc/${pid}`))]
      }
      await waitUntil(() => left().length === 0)
      expect(left()).toEqual([])
    },
  )
})
