/** A lab in which workloads try to get around their sidecar: what runs where, and programs inside of containers. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { chmodSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { V1Pod } from '@kubernetes/client-node'
import { writeSysctls } from '../../../lab/command.ts'
import type { Lab } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { containerPrivileges } from '../../../lab/privileges.ts'
import { type Privileges, sandboxCommand } from '../../../lab/sandbox.ts'
import { createTestLab, idlePod, putPolicy } from '../../lab/objects.ts'
import { compile, inside } from '../../lab/programs.ts'

const run = promisify(execFile)

export const PORT = 9000
export const FAST_OPEN_PORT = 9001
export const MPTCP_PORT = 9002
/** What is sent and must not arrive has this long to do so; what must, longer, on a machine that is busy. */
const KEPT_AWAY_MILLISECONDS = 500
const ARRIVAL_MILLISECONDS = 10_000

const PROGRAMS = ['attempt', 'power', 'crafted'] as const
type Program = (typeof PROGRAMS)[number]

/** What `attempt send` prints: the call that failed and its error, both empty where none did. */
export interface Sent {
  readonly failed: string
  readonly errno: string
}

export interface Server {
  readonly pod: RunningPod
  /** Whether this word came, now or soon: waits longer where it is expected to. */
  received(word: string, expected: boolean): Promise<boolean>
}

export interface Field {
  readonly lab: Lab
  /** Runs a Pod of one container, `app`, which drops NET_RAW unless `keepsNetRaw`; its label is `app: name`. */
  runPod(namespace: string, name: string, keepsNetRaw?: boolean): Promise<RunningPod>
  /** Starts attempt.c's server in a Pod, as root of its network namespace. */
  serve(pod: RunningPod): Promise<Server>
  /** Runs a program as a process of the Pod's container: its user, capabilities, files. Returns what it prints. */
  inContainer(pod: RunningPod, program: Program, ...parameters: readonly string[]): Promise<string>
  /** attempt.c's `send` in the Pod's container. */
  send(pod: RunningPod, address: string, port: number, word: string, options?: Options): Promise<Sent>
  /** Runs a program with every power over a network namespace. */
  inNamespace(netns: string, program: Program, ...parameters: readonly string[]): Promise<string>
  sysctl(netns: string, ...settings: readonly string[]): Promise<void>
  stop(): Promise<void>
}

/** The names of attempt.c's options. */
export type Options = Readonly<Record<string, string | number>>

/** Compiles the programs and starts a lab with the namespaces `guarded` and `plain`. */
export async function createField(): Promise<Field> {
  const lab = await createTestLab()
  try {
    const directory = join(lab.run.directory, 'programs')
    mkdirSync(directory, { mode: 0o755 })
    for (const name of PROGRAMS) {
      chmodSync(await compile(join(import.meta.dirname, `${name}.c`), directory), 0o755)
    }
    return assemble(directory, lab)
  } catch (error) {
    await lab.stop()
    throw error
  }
}

function assemble(directory: string, lab: Lab): Field {
  const children: ChildProcess[] = []
  async function inContainer(pod: RunningPod, program: Program, ...parameters: readonly string[]): Promise<string> {
    const container = pod.pod.spec?.containers[0]
    if (container === undefined) throw new Error('the Pod has no container')
    const privileges = containerPrivileges(pod.pod, container)
    const [file = '', ...args] = parameters.includes('userns')
      ? unchrooted(pod, privileges, [join(directory, program), ...parameters])
      : sandboxCommand({
          netns: pod.network.netns,
          rootMountPoint: join(lab.run.directory, 'root'),
          mounts: [{ source: directory, path: '/attack', readOnly: true }],
          readOnlyRoot: false,
          privileges,
          command: [`/attack/${program}`, ...parameters],
        })
    return (await run(file, args, { timeout: 20_000, cwd: '/' })).stdout.trim()
  }

  return {
    lab,
    inContainer,
    async runPod(namespace, name, keepsNetRaw = false) {
      return await lab.runPod(await lab.admitPod(podOf(namespace, name, keepsNetRaw)))
    },
    async serve(pod) {
      const child = spawn('ip', inside(pod, join(directory, 'attempt'), 'serve'))
      children.push(child)
      child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
      let output = ''
      await new Promise<void>((ready) => {
        child.stdout.on('data', (text: Buffer) => {
          output += text.toString()
          if (output.includes('ready\n')) ready()
        })
      })
      return {
        pod,
        async received(word, expected) {
          const deadline = Date.now() + (expected ? ARRIVAL_MILLISECONDS : KEPT_AWAY_MILLISECONDS)
          while (!output.split('\n').includes(word) && Date.now() < deadline) {
            await new Promise((later) => setTimeout(later, 20))
          }
          return output.split('\n').includes(word)
        },
      }
    },
    async send(pod, address, port, word, options = {}) {
      const parameters = Object.entries(options).flatMap(([name, value]) => [name, String(value)])
      return JSON.parse(await inContainer(pod, 'attempt', 'send', address, String(port), word, ...parameters)) as Sent
    },
    async inNamespace(netns, program, ...parameters) {
      const command = ['netns', 'exec', netns, join(directory, program), ...parameters]
      return (await run('ip', command, { timeout: 20_000 })).stdout.trim()
    },
    sysctl: (netns, ...settings) => writeSysctls(netns, settings),
    async stop() {
      for (const child of children) child.kill('SIGKILL')
      await lab.stop()
    },
  }
}

/** The lab's containers live in a chroot, where no user namespace can be made; in a runtime's root file system it can. */
function unchrooted(pod: RunningPod, { uid, gid, capabilities }: Privileges, command: readonly string[]): string[] {
  const set = ['-all', ...capabilities.map((name) => `+${name}`)].join(',')
  const powers = [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--inh-caps=-all', `--bounding-set=${set}`]
  return ['ip', 'netns', 'exec', pod.network.netns, 'setpriv', ...powers, ...command]
}

function podOf(namespace: string, name: string, keepsNetRaw: boolean): V1Pod {
  const annotations = keepsNetRaw ? { 'synguard.io/keep-net-raw': 'true' } : {}
  const pod = idlePod(namespace, name, { app: name })
  // A guarded Pod loses NET_RAW by the injection itself.
  const drops = namespace !== 'guarded' && !keepsNetRaw
  const containers = (pod.spec?.containers ?? []).map((app) =>
    drops ? { ...app, securityContext: { capabilities: { drop: ['NET_RAW'] } } } : app,
  )
  return { ...pod, metadata: { ...pod.metadata, annotations }, spec: { containers } }
}

/** Writes a policy of namespace `guarded` for the Pods with this `app` label. */
export function putPolicyFor(lab: Lab, app: string, spec: object): void {
  putPolicy(lab, app, { podSelector: { matchLabels: { app } }, ...spec })
}
