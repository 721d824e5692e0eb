/** One lab with the bundle's sidecars, plain Pods beside guarded ones, and programs run inside them. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { V1Pod } from '@kubernetes/client-node'
import { CONTAINER_SIDECAR, SIDECAR_HEALTH_PORT } from '../../../api/names.ts'
import { runCommand } from '../../../lab/command.ts'
import { createLab, type Lab } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { CHECKOUT } from '../../../lab/sandbox.ts'
import { idlePod } from '../../lab/objects.ts'
import { compile, inside } from '../../lab/programs.ts'
import { compileLoad } from '../load.ts'
import { CALLERS, PLAIN, SERVERS } from './namespaces.ts'

export interface Field {
  readonly lab: Lab
  readonly load: string
  readonly flows: string
  /** What the webhook makes of such a Pod, not yet run. */
  admit(namespace: string, name: string, app: string): Promise<V1Pod>
  run(namespace: string, name: string, app: string): Promise<RunningPod>
  /** Starts a program in a Pod's network; it ends with the field. */
  start(pod: RunningPod, ...command: readonly string[]): ChildProcessWithoutNullStreams
  /** Starts `load server` in a Pod. */
  serve(pod: RunningPod): Promise<void>
  stop(): Promise<void>
}

/**
 * Makes the field; `folder` keeps what is built for it. Containers have a /tmp of their own, so it lies elsewhere.
 * `onLab` hears of the lab, to stop it, before anything can fail.
 */
export async function createField(folder: string, onLab: (lab: Lab) => void): Promise<Field> {
  const load = await compileLoad(folder)
  const flows = await compile(join(import.meta.dirname, 'flows.c'), folder)
  const bundle = join(folder, 'bundle')
  await runCommand(process.execPath, ['--no-warnings', join(CHECKOUT, 'scripts', 'bundle.ts'), bundle])
  const noPolicies = join(folder, 'no-policies')
  mkdirSync(noPolicies, { mode: 0o755 })
  const lab = await createLab({ bundle })
  onLab(lab)
  for (const name of [SERVERS, CALLERS]) {
    await lab.putNamespace({ metadata: { name, labels: { 'synguard.io/inject': 'enabled', team: name } } })
  }
  await lab.putNamespace({ metadata: { name: PLAIN, labels: {} } })
  const children: ChildProcessWithoutNullStreams[] = []

  const admit = async (namespace: string, name: string, app: string): Promise<V1Pod> => {
    const admitted = await lab.admitPod(idlePod(namespace, name, { app }))
    return namespace === CALLERS ? withPolicyFolder(admitted, noPolicies) : admitted
  }
  const start = (pod: RunningPod, ...command: readonly string[]): ChildProcessWithoutNullStreams => {
    const child = spawn('ip', inside(pod, ...command))
    child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
    children.push(child)
    return child
  }
  return {
    lab,
    load,
    flows,
    admit,
    run: async (namespace, name, app) => await lab.runPod(await admit(namespace, name, app)),
    start,
    async serve(pod) {
      const child = start(pod, load, 'server', '7000')
      await new Promise<void>((ready) => child.stdout.once('data', () => ready()))
    },
    async stop() {
      for (const child of children) child.kill('SIGKILL')
      await lab.stop()
    },
  }
}

/** In the lab all sidecars read one folder; in a cluster none reads another namespace's policies. */
function withPolicyFolder(pod: V1Pod, path: string): V1Pod {
  const volumes = (pod.spec?.volumes ?? []).map((volume) =>
    volume.hostPath ? { ...volume, hostPath: { ...volume.hostPath, path } } : volume,
  )
  return { ...pod, spec: { ...pod.spec, containers: pod.spec?.containers ?? [], volumes } }
}

export function sidecarPid(pod: RunningPod): number {
  const pid = pod.containers.get(CONTAINER_SIDECAR)?.current().pid
  if (pid === undefined) throw new Error(`${pod.pod.metadata?.name} has no sidecar`)
  return pid
}

export function addressOf(pod: RunningPod): string {
  return pod.network.addresses[0] ?? ''
}

/** The sum over all labels of each metric of a Pod's sidecar, by full name. Waits as long as its main thread is busy. */
export async function readMetrics(pod: RunningPod): Promise<ReadonlyMap<string, number>> {
  const { body } = await pod.agent.ask({
    do: 'httpGet',
    address: '127.0.0.1',
    port: SIDECAR_HEALTH_PORT,
    path: '/metrics',
    timeoutMs: 120_000,
  })
  const sums = new Map<string, number>()
  for (const [, name = '', value] of body.matchAll(/^(\w+)(?:\{.*\})? (\S+)$/gm)) {
    sums.set(name, (sums.get(name) ?? 0) + Number(value))
  }
  return sums
}

export const pause = (milliseconds: number): Promise<void> => new Promise((over) => setTimeout(over, milliseconds))
