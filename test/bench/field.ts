/** What is measured: a pair of Pods for each variant, all on the bridge of one lab. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { ENVIRONMENT } from '../../api/environment.ts'
import { MARK_RELEASED } from '../../api/marks.ts'
import { CONTAINER_SIDECAR, QUEUE_TCP } from '../../api/names.ts'
import { runCommand } from '../../lab/command.ts'
import { createLab, type Lab } from '../../lab/lab.ts'
import { LAB_ADDRESSES } from '../../lab/network.ts'
import type { RunningPod } from '../../lab/pod.ts'
import { CHECKOUT } from '../../lab/sandbox.ts'
import { putNamespaces, putPolicy, runIdlePod } from '../lab/objects.ts'
import { compile, inside } from '../lab/programs.ts'
import { compileLoad, ECHO_PORT, type Target } from './load.ts'
import { startMutualTls } from './mutual-tls.ts'
import type { VariantName } from './options.ts'

/** One variant's pair. */
export interface Variant {
  readonly name: VariantName
  readonly target: Target
  readonly server: RunningPod
  /** Process ids of what stands beside the client and beside the server. */
  readonly sidecars?: { readonly client: number; readonly server: number }
  /** So much of the connections of a round, where a variant is slow. */
  readonly share: number
}

export interface Field {
  readonly variants: readonly Variant[]
  readonly load: string
  /** A second guarded server, where a new Pod's sidecar can warm up without meeting the first one. */
  readonly trainer?: RunningPod
  /** Runs one more guarded Pod, which the server never met. */
  runGuarded(name: string): Promise<RunningPod>
  stopGuarded(name: string): Promise<void>
}

/** Both Pods of a pair have a policy, as in a cluster that uses them. */
function putPolicies(lab: Lab): void {
  const peer = (app: string) => [{ podSelector: { matchLabels: { app } } }]
  const policy = (app: string, spec: object) => putPolicy(lab, app, { podSelector: { matchLabels: { app } }, ...spec })
  policy('server', { policyTypes: ['Ingress'], ingress: [{ from: peer('client') }] })
  policy('client', { policyTypes: ['Egress'], egress: [{ to: peer('server') }] })
}

/** Starts a program in a Pod that says one line when it is ready; returns its process id. It ends with the lab. */
export async function startInside(pod: RunningPod, ...command: readonly string[]): Promise<number> {
  const child = spawn('ip', inside(pod, ...command), { stdio: ['pipe', 'pipe', 'inherit'] })
  await new Promise<void>((ready, failed) => {
    child.stdout.once('data', () => ready())
    child.once('error', failed)
    child.once('exit', (code) => failed(new Error(`${command[0]} ended with ${code}`)))
  })
  return child.pid ?? 0
}

/** The rules that a guarded Pod has, by the bundle's own init step. */
async function installRules(pod: RunningPod, bundle: string): Promise<void> {
  const environment = [
    `${ENVIRONMENT.podIps}=${pod.network.addresses.join(',')}`,
    `${ENVIRONMENT.hostIps}=${LAB_ADDRESSES.node.join(',')}`,
  ]
  await runCommand('ip', inside(pod, 'env', ...environment, process.execPath, join(bundle, 'sidecar', 'init.js')))
}

/** The kernel tracks connections in a namespace once a rule there asks for their state. */
async function trackConnections(pod: RunningPod): Promise<void> {
  const rule = ['-A', 'INPUT', '-m', 'conntrack', '--ctstate', 'INVALID', '-j', 'DROP']
  await runCommand('ip', inside(pod, 'iptables', '-w', ...rule))
}

async function startAcceptOnly(pod: RunningPod, program: string, bundle: string): Promise<number> {
  const pid = await startInside(pod, program, String(QUEUE_TCP), MARK_RELEASED.toString(16))
  await installRules(pod, bundle)
  return pid
}

function sidecarPid(pod: RunningPod): number {
  const pid = pod.containers.get(CONTAINER_SIDECAR)?.current().pid
  if (pid === undefined) throw new Error(`${pod.pod.metadata?.name} has no sidecar`)
  return pid
}

/**
 * Makes the pairs; `folder` keeps what is built for them. Containers have a /tmp of their own, so it lies elsewhere.
 * `onLab` hears of the lab, to stop it, before anything can fail.
 */
export async function createField(
  names: readonly VariantName[],
  folder: string,
  onLab: (lab: Lab) => void,
  say: (line: string) => void,
): Promise<Field> {
  say('compiling, bundling')
  const load = await compileLoad(folder)
  const bundle = join(folder, 'bundle')
  await runCommand(process.execPath, ['--no-warnings', join(CHECKOUT, 'scripts', 'bundle.ts'), bundle])
  const lab = await createLab({ bundle })
  onLab(lab)
  await putNamespaces(lab)
  putPolicies(lab)

  const serve = async (pod: RunningPod): Promise<RunningPod> => {
    await startInside(pod, load, 'server', String(ECHO_PORT))
    return pod
  }
  const make = async (name: VariantName): Promise<Variant> => {
    say(`starting ${name}`)
    const [namespace, prefix] = name === 'synguard' ? ['guarded', ''] : ['plain', `${name}-`]
    const client = await runIdlePod(lab, namespace, `${prefix}client`, { app: 'client' })
    const server = await serve(await runIdlePod(lab, namespace, `${prefix}server`, { app: 'server' }))
    const pair = {
      name,
      server,
      share: 1,
      target: { client, address: server.network.addresses[0] ?? '', port: ECHO_PORT },
    }
    if (name === 'plain') return pair
    if (name === 'tracked') {
      for (const pod of [client, server]) await trackConnections(pod)
      return pair
    }
    if (name === 'synguard') return { ...pair, sidecars: { client: sidecarPid(client), server: sidecarPid(server) } }
    if (name === 'mtls') return { ...pair, ...(await startMutualTls(client, server, load, folder)) }
    const program = await compile(join(import.meta.dirname, 'accept-only.c'), folder)
    const [atClient, atServer] = [
      await startAcceptOnly(client, program, bundle),
      await startAcceptOnly(server, program, bundle),
    ]
    return { ...pair, sidecars: { client: atClient, server: atServer } }
  }
  const variants: Variant[] = []
  for (const name of names) variants.push(await make(name))
  const isGuarded = names.includes('synguard')
  return {
    variants,
    load,
    ...(isGuarded && { trainer: await serve(await runIdlePod(lab, 'guarded', 'trainer', { app: 'server' })) }),
    runGuarded: (name) => runIdlePod(lab, 'guarded', name, { app: 'client' }),
    stopGuarded: (name) => lab.stopPod(`guarded/${name}`),
  }
}
