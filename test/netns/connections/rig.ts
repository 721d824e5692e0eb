/** A lab with guarded and plain Pods, and programs run inside them: the load generator and streams.ts. */
import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { createLab, type Lab, type LabOptions } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'

const run = promisify(execFile)
const ROOT = resolve(import.meta.dirname, '../../..')

export const LOAD_PORT = 7000
export const SINK_PORT = 7001

/** What `load connect` prints; times in microseconds. */
export interface LoadFigures {
  readonly connections: number
  readonly succeeded: number
  readonly failed: number
  readonly unfinished: number
  readonly stalls: number
  readonly perSecond: number
  readonly echoP50: number
  readonly echoP99: number
  readonly firstError: string
}

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
  /** Packets that the Pod's sidecar has taken from its queues so far. */
  queued(pod: RunningPod): Promise<number>
  stop(): Promise<void>
}

export interface Streams {
  /** Sends a line and reads the one that answers it. */
  ask(line: string): Promise<unknown>
}

export async function createRig(options: LabOptions = {}): Promise<Rig> {
  const directory = mkdtempSync(join(tmpdir(), 'synguard-load-'))
  const load = join(directory, 'load')
  const children: ChildProcessWithoutNullStreams[] = []
  await run('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', load, join(ROOT, 'test/bench/load.c')])
  const lab = await createLab(options)
  const inside = (pod: RunningPod, ...command: string[]) => ['netns', 'exec', pod.network.netns, ...command]
  await lab.putNamespace({ metadata: { name: 'guarded', labels: { 'synguard.io/inject': 'enabled' } } })
  await lab.putNamespace({ metadata: { name: 'plain', labels: {} } })

  function start(pod: RunningPod, ...command: string[]): ChildProcessWithoutNullStreams {
    const child = spawn('ip', inside(pod, ...command))
    child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
    children.push(child)
    return child
  }

  return {
    lab,
    async runPod(namespace, name) {
      const containers = [{ name: 'app', image: 'app', command: ['sleep', 'infinity'] }]
      return await lab.runPod(
        await lab.admitPod({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { namespace, name, labels: { app: name } },
          spec: { containers },
        }),
      )
    },
    async serveLoad(pod) {
      const child = start(pod, load, 'server', String(LOAD_PORT))
      await new Promise((ready) => child.stdout.once('data', ready))
    },
    async connect(pod, address, port, count, parallel) {
      const command = inside(pod, load, 'connect', address, String(port), String(count), String(parallel))
      return JSON.parse((await run('ip', command)).stdout)
    },
    async bulk(pod, address, seconds) {
      const command = inside(pod, load, 'bulk', address, String(SINK_PORT), String(seconds))
      return JSON.parse((await run('ip', command)).stdout).gigabitsPerSecond
    },
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
    async queued(pod) {
      // The worker tells its counters once a second.
      await new Promise((told) => setTimeout(told, 1_500))
      const request = { do: 'httpGet', address: '127.0.0.1', port: 15900, path: '/metrics', timeoutMs: 5_000 } as const
      const { body } = await pod.agent.ask(request)
      const counts = [...body.matchAll(/^synguard_packets_queued_total\{.*\} (\d+)$/gm)].map((match) =>
        Number(match[1]),
      )
      return counts.reduce((sum, count) => sum + count, 0)
    },
    async stop() {
      for (const child of children) child.kill('SIGKILL')
      await lab.stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Adds an ingress policy that lets the Pods with these `app` labels reach one with `app: server`. */
export function allowOnly(lab: Lab, apps: readonly string[]): void {
  lab.putPolicy('guarded', 'server', {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'server', namespace: 'guarded' },
    spec: {
      podSelector: { matchLabels: { app: 'server' } },
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: apps }] } }] }],
    },
  })
}
