/** The tests' own node, from outside of it: what a test cannot do through the API server. */
import { execFile, spawn } from 'node:child_process'
import { openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { until } from './kubectl.ts'

const execute = promisify(execFile)
const CACHE = process.env.SYNGUARD_CLUSTER ?? join(homedir(), '.cache', 'synguard', 'cluster')
const STATE = process.env.SYNGUARD_CLUSTER_STATE ?? join(CACHE, 'state')

/** The node's first process, as this machine numbers it. */
function firstProcess(): number {
  return Number(readFileSync(join(STATE, 'node.pid'), 'utf8').split(' ', 1)[0])
}

/** Runs a program in all of the node's namespaces. */
export async function onNode(...command: readonly string[]): Promise<string> {
  const { stdout } = await execute('nsenter', ['-t', String(firstProcess()), '-a', '--wd=/', ...command])
  return stdout
}

/** Runs ctr in the namespace of the kubelet's containers. */
export const ctr = (...parameters: readonly string[]): Promise<string> =>
  onNode(join(CACHE, 'bin', 'ctr'), '-n', 'k8s.io', ...parameters)

/** Processes in the node's own pid namespace (not those of Pods) that run the program of that name. */
function findProcess(program: string): number | undefined {
  const namespace = readlinkSync(`/proc/${firstProcess()}/ns/pid`)
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .find((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/ns/pid`) === namespace && commandOf(pid)[0]?.endsWith(`/${program}`)
      } catch {
        return false
      }
    })
}

const commandOf = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
const environmentOf = (pid: number) =>
  Object.fromEntries(
    readFileSync(`/proc/${pid}/environ`, 'utf8')
      .split('\0')
      .map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]),
  )

/** Ends one of the node's programs; the result starts it again as it was started before. */
export async function stopProgram(program: string): Promise<() => void> {
  const pid = findProcess(program)
  if (pid === undefined) throw new Error(`${program} does not run on the node`)
  const command = commandOf(pid)
  const env = environmentOf(pid)
  process.kill(pid, 'SIGKILL')
  await until(`${program} to end`, async () => findProcess(program) === undefined)
  return () => {
    const log = openSync(join(STATE, 'log', `${program}-again.log`), 'a')
    const enter = ['-t', String(firstProcess()), '-a', '--wd=/']
    // It ends with the node's pid namespace, which it is in, and is nobody's to wait for.
    spawn('nsenter', [...enter, ...command], { env, stdio: ['ignore', log, log], detached: true }).unref()
  }
}

/** Kills a container's process as a crash would. */
export async function killContainer(containerId: string): Promise<void> {
  await ctr('tasks', 'kill', '-s', 'SIGKILL', containerId.replace(/^.*:\/\//, ''))
}

/** Every container of the node at once: what a node that loses its power loses. */
export async function killAllContainers(): Promise<void> {
  const tasks = (await ctr('tasks', 'ls', '-q')).trim().split('\n')
  await Promise.all(tasks.map((id) => ctr('tasks', 'kill', '-s', 'SIGKILL', id).catch(() => '')))
}

/** Where the CNI plugin host-local keeps a file for each address that a Pod has (lib/conf says so). */
const ADDRESSES = '/run/cni-ipam/k8sbr'

/** Makes the next Pod of the node get that address, once nobody has it (host-local goes on behind the last it gave). */
export async function giveNext(address: string): Promise<void> {
  await until(`nobody to have ${address}`, async () => !(await onNode('ls', ADDRESSES)).split('\n').includes(address))
  const before = address.replace(/\d+$/, (last) => String(Number(last) - 1))
  await onNode('sh', '-c', `printf ${before} > ${ADDRESSES}/last_reserved_ip.0`)
}

/** Makes the image stores:local, once, and gives it to the node. */
export async function importStores(): Promise<void> {
  await execute(join(import.meta.dirname, 'lib', 'mkstores'))
  await execute(join(import.meta.dirname, 'ctr'), ['images', 'import', join(CACHE, 'stores.tar')])
}

/** What Pods asked the API server for, where it was started with lib/audit.yaml. */
export const auditLogPath = (): string => join(STATE, 'log', 'audit.log')

/** Where the cluster's programs are. */
export const binFolder = (): string => join(CACHE, 'bin')
