import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { V1Container, V1Pod, V1Probe } from '@kubernetes/client-node'
import { type Agent, startAgent } from './agent-client.ts'
import type { ServePort } from './agent-protocol.ts'
import {
  type ContainerLog,
  createContainerLog,
  prepareContainer,
  type RestartPolicy,
  type Supervised,
  superviseContainer,
} from './container.ts'
import { containerEnvironment, expandVariables } from './environment.ts'
import { LabError } from './errors.ts'
import type { PodNetwork } from './network.ts'
import { containerPrivileges } from './privileges.ts'
import type { BindMount } from './sandbox.ts'
import { materializeVolume, type VolumeSources } from './volumes.ts'

/** What a Pod needs of its surroundings. */
export interface PodHost {
  /** A directory of the Pod's own. */
  readonly directory: string
  readonly rootMountPoint: string
  readonly sources: VolumeSources
  /** Acts as the kubelet: probes come from the node. */
  readonly nodeAgent: Agent
  /** Aborts when the lab ends: nothing is restarted from then on. */
  readonly signal: AbortSignal
}

export interface RunningPod {
  readonly pod: V1Pod
  readonly network: PodNetwork
  readonly agent: Agent
  /** By container name: those that run and those that ran. */
  readonly logs: ReadonlyMap<string, ContainerLog>
  readonly containers: ReadonlyMap<string, Supervised>
  /** Where each volume lies on this machine, by its name. */
  readonly volumes: ReadonlyMap<string, string>
  /** Writes projected and ConfigMap volumes anew, as the kubelet does from time to time. */
  refreshVolumes(): Promise<void>
  /** Ends containers, native sidecars last. */
  stop(): Promise<void>
}

const PROBE_INTERVAL_MS = 50
const LEAST_PROBE_DEADLINE_MS = 20_000
const LISTEN_DEADLINE_MS = 10_000
const GRACE_MS = 2_000
const LOG_LINES = 15

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))
const nameOf = (pod: V1Pod) => `${pod.metadata?.namespace}/${pod.metadata?.name}`

function failure(pod: V1Pod, container: string, what: string, log: ContainerLog): LabError {
  const tail = log.tail(LOG_LINES)
  return new LabError(
    'lab-pod-failed',
    `Pod ${nameOf(pod)}: container ${container} ${what}${tail && `; its log:\n${tail}`}`,
  )
}

/** The volumes of the Pod, by name, as directories (or hostPaths) of this machine. */
async function materializeVolumes(pod: V1Pod, host: PodHost): Promise<Map<string, string>> {
  const paths = new Map<string, string>()
  for (const volume of pod.spec?.volumes ?? []) {
    paths.set(volume.name, await materializeVolume(volume, pod, join(host.directory, 'volumes'), host.sources))
  }
  return paths
}

function containerMounts(pod: V1Pod, container: V1Container, volumes: ReadonlyMap<string, string>): BindMount[] {
  return (container.volumeMounts ?? []).map(({ name, mountPath, subPath, readOnly }) => {
    const source = volumes.get(name)
    if (source === undefined) {
      const where = `Pod ${nameOf(pod)}: container ${container.name}`
      throw new LabError('lab-unsupported', `${where} mounts volume "${name}", which the Pod does not declare`)
    }
    return { source: subPath ? join(source, subPath) : source, path: mountPath, readOnly: readOnly === true }
  })
}

function starter(pod: V1Pod, container: V1Container, netns: string, host: PodHost, volumes: Map<string, string>) {
  const environment = containerEnvironment(pod, container)
  const expand = (words: readonly string[] | undefined) =>
    (words ?? []).map((word) => expandVariables(word, environment))
  const log = createContainerLog()
  const options = {
    netns,
    rootMountPoint: host.rootMountPoint,
    mounts: containerMounts(pod, container, volumes),
    readOnlyRoot: container.securityContext?.readOnlyRootFilesystem === true,
    privileges: containerPrivileges(pod, container),
    ...(container.workingDir && { workingDirectory: container.workingDir }),
    command: [...expand(container.command), ...expand(container.args)],
    environment,
    log,
  }
  return { log, start: prepareContainer(options) }
}

function portNumber(container: V1Container, port: string | number): number {
  if (typeof port === 'number') return port
  return container.ports?.find(({ name }) => name === port)?.containerPort ?? 0
}

/** Waits until an httpGet probe of the node succeeds; false when its time is over or the container died too often. */
async function awaitProbe(probe: V1Probe, container: V1Container, running: Supervised, pod: V1Pod, node: Agent) {
  const { httpGet } = probe
  if (!httpGet)
    throw new LabError('lab-unsupported', `container ${container.name}: startupProbe: the lab knows httpGet only`)
  const declaredMs = (probe.failureThreshold ?? 3) * (probe.periodSeconds ?? 10) * 1000
  const deadline = Date.now() + Math.max(LEAST_PROBE_DEADLINE_MS, Math.min(declaredMs, 60_000))
  const address = httpGet.host ?? pod.status?.podIP ?? ''
  const port = portNumber(container, httpGet.port)
  let last = 'no answer'
  while (Date.now() < deadline && running.restarts() < 3) {
    try {
      const timeoutMs = (probe.timeoutSeconds ?? 1) * 1000
      const answer = await node.ask({ do: 'httpGet', address, port, path: httpGet.path ?? '/', timeoutMs })
      if (answer.status >= 200 && answer.status < 400) return undefined
      last = `status ${answer.status} ${answer.body.slice(0, 500)}`
    } catch (error) {
      last = error instanceof Error ? error.message : String(error)
    }
    await pause(PROBE_INTERVAL_MS)
  }
  return last
}

const tcpPorts = (container: V1Container) =>
  (container.ports ?? [])
    .filter(({ protocol }) => (protocol ?? 'TCP') === 'TCP')
    .map(({ containerPort }) => containerPort)

async function awaitListening(
  pod: V1Pod,
  container: V1Container,
  running: Supervised,
  agent: Agent,
  log: ContainerLog,
) {
  const ports = tcpPorts(container)
  const deadline = Date.now() + LISTEN_DEADLINE_MS
  while (ports.length > 0) {
    const listening = await agent.ask({ do: 'listening' })
    const missing = ports.filter((port) => !listening.includes(port))
    if (missing.length === 0) return
    if (Date.now() > deadline || running.restarts() > 3) {
      throw failure(pod, container.name, `does not listen on its port ${missing.join(', ')}`, log)
    }
    await pause(PROBE_INTERVAL_MS)
  }
}

/** TCP and UDP ports for the lab's own server; SCTP is not in every kernel. */
function servedPorts(container: V1Container): ServePort[] {
  return (container.ports ?? []).flatMap(({ protocol = 'TCP', containerPort }) =>
    protocol === 'SCTP' ? [] : [{ protocol: protocol === 'UDP' ? 'UDP' : 'TCP', port: containerPort } as const],
  )
}

/**
 * Runs a Pod whose status already has its addresses: volumes, init containers in their order (native sidecars awaited
 * by their startupProbe), then its containers. A container without command and args is stood for by the lab's server on
 * its declared ports. Resolves when the Pod is ready; throws `lab-pod-failed` with the end of the log.
 */
export async function startPod(pod: V1Pod, network: PodNetwork, host: PodHost): Promise<RunningPod> {
  mkdirSync(join(host.directory, 'volumes'), { recursive: true })
  const agent = startAgent(network.netns, host.rootMountPoint, `Pod ${nameOf(pod)}`)
  const volumes = await materializeVolumes(pod, host)
  const logs = new Map<string, ContainerLog>()
  const sidecars = new Map<string, Supervised>()
  const mains = new Map<string, Supervised>()
  const prepare = (container: V1Container) => {
    const prepared = starter(pod, container, network.netns, host, volumes)
    logs.set(container.name, prepared.log)
    return prepared
  }
  const stop = async () => {
    await Promise.all([...mains.values()].map((container) => container.stop(GRACE_MS)))
    await Promise.all([...sidecars.values()].map((container) => container.stop(GRACE_MS)))
  }
  try {
    for (const container of pod.spec?.initContainers ?? []) {
      const { start, log } = prepare(container)
      if (container.restartPolicy === 'Always') {
        const running = superviseContainer(start, 'Always', host.signal)
        sidecars.set(container.name, running)
        const problem = container.startupProbe
          ? await awaitProbe(container.startupProbe, container, running, pod, host.nodeAgent)
          : undefined
        if (problem !== undefined) throw failure(pod, container.name, `did not start (${problem})`, log)
      } else {
        const { code, signal } = await start().exited
        if (code !== 0) throw failure(pod, container.name, `failed (${signal ?? `status ${code}`})`, log)
      }
    }
    for (const container of pod.spec?.containers ?? []) {
      if ((container.command ?? []).length + (container.args ?? []).length === 0) {
        const name = pod.metadata?.name ?? ''
        await agent.ask({ do: 'serve', ports: servedPorts(container), name })
        continue
      }
      const { start, log } = prepare(container)
      const policy = (pod.spec?.restartPolicy ?? 'Always') as RestartPolicy
      const running = superviseContainer(start, policy, host.signal)
      mains.set(container.name, running)
      await awaitListening(pod, container, running, agent, log)
    }
  } catch (error) {
    await stop()
    throw error
  }
  return {
    pod,
    network,
    agent,
    logs,
    containers: new Map([...sidecars, ...mains]),
    volumes,
    async refreshVolumes() {
      await materializeVolumes(pod, host)
    },
    stop,
  }
}
