/** A rig whose sidecars run from the bundle, each in a control group of its own from their first byte on. */
import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import type { V1Pod } from '@kubernetes/client-node'
import { CONTAINER_SIDECAR } from '../../../api/names.ts'
import { idlePod } from '../../lab/objects.ts'
import { createRig, type Rig } from '../connections/rig.ts'
import { type ControlGroup, createControlGroup, removeDeadGroups } from './cgroup.ts'
import { GATE_SOCKET, PROGRAM } from './join-group.ts'

const run = promisify(execFile)
const ROOT = resolve(import.meta.dirname, '../../..')
/** Containers of the lab see this folder of the machine. */
const VISIBLE = '/var/tmp'

export interface Limits {
  readonly cpuCores?: number
  readonly memoryBytes?: number
}

export interface ConfinedRig extends Rig {
  /** The group of a Pod's sidecar, by the Pod's name; the sidecar joins it when it starts. */
  group(podName: string): ControlGroup
  limit(podName: string, limits: Limits): void
}

/** The admitted Pod whose sidecar sees its limits where a container runtime shows them: the lab's /sys has none. */
function withLimits(pod: V1Pod, folder: string): V1Pod {
  const volume = { name: 'limits', hostPath: { path: folder } }
  const mount = { name: volume.name, mountPath: '/sys/fs/cgroup', readOnly: true }
  const spec = pod.spec ?? { containers: [] }
  const initContainers = (spec.initContainers ?? []).map((container) =>
    container.name === CONTAINER_SIDECAR
      ? { ...container, volumeMounts: [...(container.volumeMounts ?? []), mount] }
      : container,
  )
  return { ...pod, spec: { ...spec, initContainers, volumes: [...(spec.volumes ?? []), volume] } }
}

/** A folder of this process; those of processes that were killed go. */
function createFolder(): string {
  const ofProcess = /^synguard-limits-(\d+)-/
  for (const name of readdirSync(VISIBLE)) {
    const pid = ofProcess.exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(VISIBLE, name), { recursive: true, force: true })
  }
  return mkdtempSync(join(VISIBLE, `synguard-limits-${process.pid}-`))
}

/** Builds the bundle and starts a rig. Throws where this machine's control groups cannot be used. */
export async function createConfinedRig(): Promise<ConfinedRig> {
  await removeDeadGroups()
  const folder = createFolder()
  chmodSync(folder, 0o755)
  await run(process.execPath, ['--no-warnings', join(ROOT, 'scripts/bundle.ts'), folder], { cwd: ROOT })
  const sidecar = join(folder, 'sidecar')
  renameSync(join(sidecar, 'main.js'), join(sidecar, PROGRAM))
  const joining = join(import.meta.dirname, 'join-group.ts')
  writeFileSync(
    join(sidecar, 'main.js'),
    `import { joinAndBecome } from ${JSON.stringify(joining)}\nawait joinAndBecome(import.meta.dirname)\n`,
  )

  const groups = new Map<string, ControlGroup>()
  const group = (podName: string): ControlGroup => {
    const known = groups.get(podName) ?? createControlGroup(podName)
    groups.set(podName, known)
    return known
  }
  const limitsFolder = (podName: string): string => {
    const limits = join(folder, 'limits', podName)
    group(podName).copyLimits(limits)
    return limits
  }
  const gate = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', (line) => {
      const [pid = '', podName = ''] = line.toString().trim().split(' ')
      try {
        group(podName).add(Number(pid))
        socket.write('joined\n')
      } catch {
        socket.destroy() // it has ended meanwhile
      }
    })
  })
  gate.listen(join(sidecar, GATE_SOCKET))
  await new Promise((listening) => gate.once('listening', listening))
  chmodSync(join(sidecar, GATE_SOCKET), 0o666)

  const removeAll = async (): Promise<void> => {
    gate.close()
    for (const one of groups.values()) await one.remove()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const rig = await createRig({ bundle: folder })
    return {
      ...rig,
      group,
      async runPod(namespace, name) {
        const admitted = await rig.lab.admitPod(idlePod(namespace, name, { app: name }))
        return await rig.lab.runPod(withLimits(admitted, limitsFolder(name)))
      },
      limit(podName, { cpuCores, memoryBytes }) {
        group(podName).setCpu(cpuCores)
        group(podName).setMemory(memoryBytes)
        limitsFolder(podName)
      },
      async stop() {
        await rig.stop()
        await removeAll()
      },
    }
  } catch (error) {
    await removeAll()
    throw error
  }
}
