import type { V1Pod, V1Service } from '@kubernetes/client-node'
import type { Protocol } from '../api/identity.ts'

export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** One port of a Service, as a proxy needs it. */
export interface ServicePortEndpoints {
  /** `namespace/name:port name`, kube-proxy's name of a Service's port. */
  readonly name: string
  readonly clusterIps: readonly string[]
  readonly protocol: Protocol
  readonly port: number
  readonly nodePort?: number
  /** Where the node port keeps its clients' addresses (externalTrafficPolicy Local); else the node's stands for them. */
  readonly keepsSource?: boolean
  /** Ready Pods of both families. */
  readonly endpoints: readonly Endpoint[]
}

function selects(service: V1Service, pod: V1Pod): boolean {
  const selector = Object.entries(service.spec?.selector ?? {})
  if (selector.length === 0) return false // such a Service's endpoints are made by hand
  const labels = pod.metadata?.labels ?? {}
  return (
    pod.metadata?.namespace === service.metadata?.namespace && selector.every(([key, value]) => labels[key] === value)
  )
}

function isReady(pod: V1Pod): boolean {
  return pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false
}

function targetPortOf(pod: V1Pod, target: string | number, protocol: string): number | undefined {
  if (typeof target === 'number') return target
  for (const container of pod.spec?.containers ?? []) {
    for (const port of container.ports ?? []) {
      if (port.name === target && (port.protocol ?? 'TCP') === protocol) return port.containerPort
    }
  }
  return undefined
}

/** Whether the Service has a virtual address: not headless, not an alias of a DNS name. */
export function hasClusterIp(service: V1Service): boolean {
  return service.spec?.clusterIP !== 'None' && service.spec?.type !== 'ExternalName'
}

/** The ports of every Service with a cluster address, each with its ready Pods; a named targetPort is each Pod's own. */
export function serviceEndpoints(services: readonly V1Service[], pods: readonly V1Pod[]): ServicePortEndpoints[] {
  return services.filter(hasClusterIp).flatMap((service) => {
    const backends = pods.filter((pod) => selects(service, pod) && isReady(pod))
    const { namespace, name } = service.metadata ?? {}
    return (service.spec?.ports ?? []).map((port) => {
      const protocol = (port.protocol ?? 'TCP') as Protocol
      const endpoints = backends.flatMap((pod) => {
        const target = targetPortOf(pod, port.targetPort ?? port.port, protocol)
        if (target === undefined) return []
        return (pod.status?.podIPs ?? []).map(({ ip }) => ({ address: ip, port: target }))
      })
      return {
        name: `${namespace}/${name}:${port.name ?? ''}`,
        clusterIps: service.spec?.clusterIPs ?? [],
        protocol,
        port: port.port,
        ...(port.nodePort !== undefined && {
          nodePort: port.nodePort,
          keepsSource: service.spec?.externalTrafficPolicy === 'Local',
        }),
        endpoints,
      }
    })
  })
}
