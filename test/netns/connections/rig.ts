/** A lab with guarded and plain Pods, and programs run inside them: the load generator and streams.ts. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Lab, LabOptions } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { bulk, compileLoad, connect, ECHO_PORT, type LoadFigures } from '../../bench/load.ts'
import { createTestLab, runIdlePod } from '../../lab/objects.ts'
import { inside } from '../../lab/programs.ts'

export interface Rig {
  readonly lab: Lab
  /** Runs a Pod with the label `app: name` in a namespace; `guarded` and `plain` exist. */
  runPod(namespace: string, name: string): Promise<RunningPod>
  /** Starts the load generator's server in a Pod, for as long as the rig stands. */
  serveLoad(pod: RunningPod): Promise<void>
  connect(pod: RunningPod, address: string, port: number, count: number, parallel: number): Promise<LoadFigures>
  /** Gigabits per second to a sink. */
  bulk(pod: RunningPod, address: string, seconds: number): Promise<number>
  /** Runs streams.ts in a Pod; resolves once its server listens or all its connections are open. */
  streams(pod: RunningPod, ...parameters: readonly string[]): Promise<Streams>
  /** Packets that the Pods' sidecars have taken from their queues so far. */
  queued(...pods: readonly RunningPod[]): Promise<number>
  stop(): Promise<void>
}

export interface Streams {
  /** Sends a line and reads the one that answers it. */
  ask(line: string): Promise<unknown>
}

export async function createRig(options: LabOptions = {}): Promise<Rig> {
  const lab = await createTestLab(options)
  try {
    return assemble(lab, await compileLoad(lab.run.directory))
  } catch (error) {
    await lab.stop()
    throw error
  }
}

function assemble(lab: Lab, load: string): Rig {
  const children: ChildProcessWithoutNullStreams[] = []
  function start(pod: RunningPod, ...command: string[]): ChildProcessWithoutNullStreams {
    const child = spawn('ip', inside(pod, ...command))
    child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
    children.push(child)
    return child
  }

  return {
    lab,
    runPod: (namespace, name) => runIdlePod(lab, namespace, name),
    async serveLoad(pod) {
      const child = start(pod, load, 'server', String(ECHO_PORT))
      await new Promise((ready) => child.stdout.once('data', ready))
    },
    connect: (client, address, port, count, parallel) => connect(load, { client, address, port }, count, parallel),
    bulk: (client, address, seconds) => bulk(load, { client, address, port: ECHO_PORT }, seconds),
    async streams(pod, ...parameters) {
      const child = start(pod, process.execPath, join(import.meta.dirname, 'streams.ts'), ...parameters)
      const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      const next = async (): Promise<unknown> => {
        const { value, done } = await answers.next()
        if (done) throw new Error('streams.ts ended')
        return JSON.parse(value)
      }
      await next()
      return {
        async ask(line) {
          child.stdin.write(`${line}\n`)
          return await next()
        },
      }
    },
    async queued(...pods) {
      // The worker tells its counters once a second.
      await new Promise((told) => setTimeout(told, 1_500))
      const request = { do: 'httpGet', address: '127.0.0.1', port: 15900, path: '/metrics', timeoutMs: 5_000 } as const
      const answers = await Promise.all(pods.map(({ agent }) => agent.ask(request)))
      const counts = answers.flatMap(({ body }) => [...body.matchAll(/^synguard_packets_queued_total\{.*\} (\d+)$/gm)])
      return counts.reduce((sum, match) => sum + Number(match[1]), 0)
    },
    async stop() {
      for (const child of children) child.kill('SIGKILL')
      await lab.stop()
    },
  }
}
