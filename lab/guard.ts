import type { V1Pod } from '@kubernetes/client-node'
import { ENVIRONMENT } from '../api/environment.ts'
import type { Mode, Protocol } from '../api/identity.ts'
import { CONTAINER_SIDECAR } from '../api/names.ts'
import { isGuarded } from '../webhook/admission/pod.ts'

/** How a guarded Pod's sidecar was told to decide. */
export interface Guard {
  readonly mode: Mode
  readonly nodeAccess: 'probes' | 'all'
  readonly peersWithoutIdentity: 'resolve' | 'deny'
  /** `TCP/8080` */
  readonly probePorts: readonly string[]
}

/** The guard in an admitted Pod's spec; undefined where nobody guards the Pod. */
export function guardOf(pod: V1Pod): Guard | undefined {
  if (pod.spec === undefined || !isGuarded(pod.spec)) return undefined
  const sidecar = pod.spec.initContainers?.find(({ name }) => name === CONTAINER_SIDECAR)
  const read = (name: string) => sidecar?.env?.find((variable) => variable.name === name)?.value ?? ''
  return {
    mode: (read(ENVIRONMENT.mode) || 'enforce') as Mode,
    nodeAccess: (read(ENVIRONMENT.nodeAccess) || 'probes') as Guard['nodeAccess'],
    peersWithoutIdentity: (read(ENVIRONMENT.peersWithoutIdentity) || 'resolve') as Guard['peersWithoutIdentity'],
    probePorts: read(ENVIRONMENT.probePorts).split(',').filter(Boolean),
  }
}

/** Whether the guard lets the Pod's own node through to a port whatever the policies say. */
export function admitsNode(guard: Guard, protocol: Protocol, port: number): boolean {
  return guard.nodeAccess === 'all' || guard.probePorts.includes(`${protocol}/${port}`)
}
