import type { V1Container, V1EphemeralContainer, V1HTTPGetAction, V1TCPSocketAction } from '@kubernetes/client-node'
import type { PlacedContainer } from './pod.ts'

export interface ProbePorts {
  /** `TCP/8080`, sorted by number. */
  readonly ports: readonly string[]
  readonly warnings: readonly string[]
}

type Action = V1HTTPGetAction | V1TCPSocketAction

/** As the kubelet resolves a port: a name of the same container first, then text that is a number. */
function resolvePort(container: V1Container | V1EphemeralContainer, port: number | string): number | undefined {
  const named = (container.ports ?? []).find(({ name }) => name !== undefined && name === port)?.containerPort
  const number = named ?? (typeof port === 'number' || /^\d{1,5}$/.test(port) ? Number(port) : Number.NaN)
  return Number.isInteger(number) && number >= 1 && number <= 65535 ? number : undefined
}

function declaredActions({ container, field }: PlacedContainer): { at: string; port: number | string }[] {
  const { livenessProbe, readinessProbe, startupProbe, lifecycle } = container
  const handlers = {
    livenessProbe,
    readinessProbe,
    startupProbe,
    'lifecycle.postStart': lifecycle?.postStart,
    'lifecycle.preStop': lifecycle?.preStop,
  }
  return Object.entries(handlers).flatMap(([name, handler]) => {
    const actions: Record<string, Action | undefined> = { httpGet: handler?.httpGet, tcpSocket: handler?.tcpSocket }
    const found = Object.entries(actions).flatMap(([kind, action]) =>
      // With a host of its own the kubelet goes there, not to the Pod.
      action && !action.host ? [{ at: `${field}.${name}.${kind}.port`, port: action.port }] : [],
    )
    const grpc = handler && 'grpc' in handler ? handler.grpc : undefined
    return grpc ? [...found, { at: `${field}.${name}.grpc.port`, port: grpc.port }] : found
  })
}

/** The ports of the workload's probes and lifecycle hooks that the kubelet reaches over the network. */
export function findProbePorts(containers: readonly PlacedContainer[]): ProbePorts {
  const ports = new Set<number>()
  const warnings: string[] = []
  for (const placed of containers) {
    for (const { at, port } of declaredActions(placed)) {
      const number = resolvePort(placed.container, port)
      if (number === undefined) warnings.push(`${at}: no port "${port}" in container "${placed.container.name}"`)
      else ports.add(number)
    }
  }
  return { ports: [...ports].sort((a, b) => a - b).map((port) => `TCP/${port}`), warnings }
}
