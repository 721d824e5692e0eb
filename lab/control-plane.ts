import { spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import type { V1Pod } from '@kubernetes/client-node'
import type { VoidEntry } from '../api/identity.ts'
import type { RotationRequest, RotationStatus } from '../api/rotation.ts'
import type { InjectionSettings } from '../webhook/admission/settings.ts'
import type { ClusterKind, ClusterKinds } from '../webhook/cluster.ts'
import type { VoidRequest } from '../webhook/issuer/void-entries.ts'
import { createChannel } from './channel.ts'
import type { ControlPlaneAnswers, ControlPlaneRequest } from './control-plane-protocol.ts'
import { LAB_ISSUER } from './injection.ts'
import { CHECKOUT } from './sandbox.ts'

export interface ControlPlane {
  /** The webhook's CA, PEM. */
  readonly caCertificatePem: string
  put<Kind extends ClusterKind>(kind: Kind, object: ClusterKinds[Kind]): Promise<void>
  delete(kind: ClusterKind, name: string, namespace?: string): Promise<void>
  mintToken(namespace: string, podName: string, audience: string, lifetimeSeconds: number): Promise<string>
  /** The Pod as the webhook makes it; throws `lab-admission`. */
  admit(pod: V1Pod): Promise<V1Pod>
  revoke(entry: VoidEntry): Promise<void>
  /** Asks for a rotation of the identity keys, as an operator does. */
  requestRotation(request: RotationRequest): Promise<void>
  /** What operators see of it; null before the first turn. */
  rotationStatus(): Promise<RotationStatus | null>
  /** What an operator asks for a Pod by `synguard revoke`. */
  requestVoid(uid: string, request: VoidRequest): Promise<void>
}

export interface ControlPlaneOptions {
  readonly witLifetimeSeconds?: number
  /** A module that the process loads before all others. */
  readonly preload?: string
}

/**
 * Starts the webhook in the node's network namespace, where Pods reach it and it sees their addresses. A process of its
 * own, as a process cannot have sockets in two namespaces. Its log goes to `webhook.log` of the run's directory.
 */
export async function startControlPlane(
  netns: string,
  directory: string,
  injection: InjectionSettings,
  { witLifetimeSeconds, preload }: ControlPlaneOptions = {},
): Promise<ControlPlane> {
  const script = join(CHECKOUT, 'lab', 'control-plane-process.ts')
  const options = ['--no-warnings', ...(preload === undefined ? [] : ['--import', preload])]
  const args = ['netns', 'exec', netns, process.execPath, ...options, script]
  const child = spawn('ip', args, {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    serialization: 'advanced', // Kubernetes' types hold Dates
    cwd: CHECKOUT,
  })
  const log = createWriteStream(join(directory, 'webhook.log'))
  log.on('error', () => undefined) // the directory goes with the run
  child.stdout?.pipe(log, { end: false })
  child.stderr?.pipe(log, { end: false })
  const channel = createChannel<ControlPlaneRequest, ControlPlaneAnswers>(child, 'the webhook')
  const { caCertificatePem } = await channel.ask({
    do: 'start',
    address: LAB_ISSUER.address,
    port: LAB_ISSUER.port,
    serverName: LAB_ISSUER.name,
    injection,
    ...(witLifetimeSeconds !== undefined && { witLifetimeSeconds }),
  })
  return {
    caCertificatePem,
    async put(kind, object) {
      await channel.ask({ do: 'put', kind, object })
    },
    async delete(kind, name, namespace) {
      await channel.ask({ do: 'delete', kind, name, ...(namespace !== undefined && { namespace }) })
    },
    mintToken(namespace, podName, audience, lifetimeSeconds) {
      return channel.ask({ do: 'mintToken', namespace, podName, audience, lifetimeSeconds })
    },
    admit(pod) {
      return channel.ask({ do: 'admit', pod })
    },
    async revoke(entry) {
      await channel.ask({ do: 'revoke', entry })
    },
    async requestRotation(request) {
      await channel.ask({ do: 'requestRotation', request })
    },
    rotationStatus() {
      return channel.ask({ do: 'rotationStatus' })
    },
    async requestVoid(uid, request) {
      await channel.ask({ do: 'requestVoid', uid, request })
    },
  }
}
