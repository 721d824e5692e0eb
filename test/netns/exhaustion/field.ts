/** A lab under floods: guarded Pods, an attacker, honest clients at a steady rate, and what a sidecar says of itself. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { CONTAINER_SIDECAR, SIDECAR_HEALTH_PORT } from '../../../api/names.ts'
import { runCommand, runIpBatch, writeSysctls } from '../../../lab/command.ts'
import type { Lab, LabOptions } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { ECHO_PORT } from '../../bench/load.ts'
import { addressOf, runIdlePod } from '../../lab/objects.ts'
import { compile, inside } from '../../lab/programs.ts'
import { createRig, type Rig } from '../connections/rig.ts'

/** Cluster addresses that no Pod has, behind the Pods' gateway: they are spoofed, and what answers them ends at the node. */
export const SPOOFED = '10.245.0.0'
export const SPOOFED_COUNT = 65_536

export type FloodKind = 'plain' | 'garbage' | 'unknown' | 'forged' | 'own'

export interface Flood {
  readonly kind: FloodKind
  readonly source: string
  /** How many addresses from `source` on. */
  readonly count: number
  readonly packetsPerSecond: number
  readonly seconds: number
  /** A SYN frame as hex, for the kinds that need one. */
  readonly frame?: string
}

/** What pace.c prints; times in milliseconds. */
export interface Paced {
  readonly opened: number
  readonly succeeded: number
  readonly stalls: number
  readonly p50: number
  readonly p99: number
  readonly slowest: number
  readonly firstError: string
}

export interface Health {
  readonly status: number
  readonly body: string
}

export interface Field {
  readonly rig: Rig
  readonly lab: Lab
  /** Runs a Pod with the label `app`, by default its name, in namespace `guarded` or `plain`. */
  runPod(namespace: string, name: string, app?: string): Promise<RunningPod>
  /** Sends SYNs to the load generator's port of a Pod; returns how many. */
  flood(from: RunningPod, to: RunningPod, flood: Flood): Promise<number>
  /** Opens `count` connections at this rate to the load generator's port of a Pod. */
  pace(from: RunningPod, to: RunningPod, perSecond: number, count: number, patienceSeconds?: number): Promise<Paced>
  /** The SYN frame that a guarded Pod shows to whoever it connects to: to a Pod of the attacker, for one. */
  captureFrame(from: RunningPod, attacker: RunningPod): Promise<string>
  /** Fills a Pod's table of connections; `empty` removes all entries of it. */
  fillConntrack(pod: RunningPod, count: number): Promise<{ readonly entries: number; empty(): Promise<void> }>
  metrics(pod: RunningPod): Promise<Metrics>
  /** /readyz or another page of the sidecar, asked from inside of the Pod. */
  health(pod: RunningPod, path?: string): Promise<Health>
  stop(): Promise<void>
}

/** A sample's value by name and labels as written, 0 where there is none; `sum` over all labels that contain the text. */
export interface Metrics {
  get(sample: string): number
  sum(name: string, containing?: string): number
}

/** The sidecar tells its counters once a second. */
const COUNTERS_MILLISECONDS = 1_500

export const pause = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds))
export const print = (...words: readonly unknown[]): void => void process.stdout.write(`${words.join(' ')}\n`)

/** Asks until the condition holds; returns the milliseconds it took, throws after `limit`. */
export async function until(what: string, limit: number, holds: () => Promise<boolean> | boolean): Promise<number> {
  const started = performance.now()
  while (!(await holds())) {
    if (performance.now() - started > limit) throw new Error(`${what}: not within ${limit} ms`)
    await pause(100)
  }
  return performance.now() - started
}

export async function createField(options: LabOptions = {}): Promise<Field> {
  const rig = await createRig(options)
  try {
    const programs = await Promise.all(
      ['flood', 'pace', 'fill'].map((name) => compile(join(import.meta.dirname, `${name}.c`), rig.lab.run.directory)),
    )
    // The node's own table of connections, and its neighbours, are not what is tried here.
    await writeSysctls(rig.lab.network.node, [
      'net.bridge.bridge-nf-call-iptables=0',
      'net.bridge.bridge-nf-call-ip6tables=0',
    ])
    await runIpBatch(rig.lab.network.node, [`route add blackhole ${SPOOFED}/16`])
    return assemble(rig, programs)
  } catch (error) {
    await rig.stop()
    throw error
  }
}

function assemble(rig: Rig, [flood = '', pace = '', fill = '']: readonly string[]): Field {
  const { lab } = rig
  async function health(pod: RunningPod, path = '/readyz'): Promise<Health> {
    const port = SIDECAR_HEALTH_PORT
    return await pod.agent.ask({ do: 'httpGet', address: '127.0.0.1', port, path, timeoutMs: 10_000 })
  }

  return {
    rig,
    lab,
    health,
    runPod: (namespace, name, app = name) => runIdlePod(lab, namespace, name, { app }),
    async flood(from, to, { kind, source, count, packetsPerSecond, seconds, frame = '' }) {
      const target = [addressOf(to), ECHO_PORT, packetsPerSecond, seconds]
      const command = inside(
        from,
        flood,
        'send',
        kind,
        source,
        ...[count, ...target].map(String),
        ...(frame === '' ? [] : [frame]),
      )
      const { sent, failed } = JSON.parse(await runCommand('ip', command, { timeoutMs: (seconds + 10) * 1_000 }))
      if (failed > sent / 10) throw new Error(`the flood failed: ${failed} packets not sent, ${sent} sent`)
      return sent
    },
    async pace(from, to, perSecond, count, patienceSeconds = 20) {
      const command = inside(from, pace, addressOf(to), ...[ECHO_PORT, perSecond, count, patienceSeconds].map(String))
      const timeoutMs = (count / perSecond + patienceSeconds + 10) * 1_000
      return JSON.parse(await runCommand('ip', command, { timeoutMs }))
    },
    async captureFrame(from, attacker) {
      const port = 7_100
      const child = spawn('ip', inside(attacker, flood, 'capture', String(port)))
      try {
        const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
        await lines.next()
        await from.agent.ask({
          do: 'reach',
          target: { protocol: 'TCP', address: addressOf(attacker), port },
          timeoutMs: 2_000,
        })
        const { value, done } = await lines.next()
        if (done) throw new Error('no SYN with a frame was seen')
        return value
      } finally {
        child.kill('SIGKILL')
      }
    },
    async fillConntrack(pod, count) {
      const child = spawn('ip', inside(pod, fill, String(count)))
      const ended = new Promise<void>((done) => child.once('close', () => done()))
      const [first] = await Promise.race([once(child.stdout, 'data'), ended.then(() => [''])])
      return {
        entries: Number(first),
        async empty() {
          child.stdin.end()
          await ended
        },
      }
    },
    async metrics(pod) {
      await pause(COUNTERS_MILLISECONDS)
      const { body } = await health(pod, '/metrics')
      const samples = [...body.matchAll(/^synguard_(\S+?)(\{.*\})? (\S+)$/gm)].map(([, name, labels = '', value]) => ({
        name,
        labels,
        value: Number(value),
      }))
      return {
        get: (sample) => samples.find(({ name, labels }) => `${name}${labels}` === sample)?.value ?? 0,
        sum: (wanted, containing = '') =>
          samples
            .filter(({ name, labels }) => name === wanted && labels.includes(containing))
            .reduce((total, { value }) => total + value, 0),
      }
    },
    stop: rig.stop,
  }
}

const sidecarOf = (pod: RunningPod) => {
  const sidecar = pod.containers.get(CONTAINER_SIDECAR)
  if (sidecar === undefined) throw new Error('the Pod has no sidecar')
  return sidecar.current()
}

/** The process of a Pod's sidecar. */
export const sidecarPid = (pod: RunningPod): number => sidecarOf(pod).pid
export const signalSidecar = (pod: RunningPod, signal: NodeJS.Signals): void => sidecarOf(pod).kill(signal)
export const logOf = (pod: RunningPod): string => pod.logs.get(CONTAINER_SIDECAR)?.text() ?? ''

/** Resident memory of a Pod's sidecar, in MiB. */
export function residentMebibytes(pod: RunningPod): number {
  const status = readFileSync(`/proc/${sidecarPid(pod)}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1_024
}
