import type { V1PodSpec, V1ResourceRequirements } from '@kubernetes/client-node'
import { workloadContainers } from './pod.ts'
import { parseQuantity } from './quantity.ts'
import type { SidecarResources } from './settings.ts'

const RESOURCES = ['cpu', 'memory'] as const

/** Kubernetes' rule for one container: both limits set, and each request absent or equal to its limit. */
function isGuaranteedResources(resources: V1ResourceRequirements | undefined): boolean {
  return RESOURCES.every((name) => {
    const limit = parseQuantity(resources?.limits?.[name] ?? '0')
    const request = resources?.requests?.[name]
    return limit !== undefined && limit > 0n && (request === undefined || parseQuantity(request) === limit)
  })
}

/** Whether the Pod without our containers has QoS class Guaranteed (by its containers, not by Pod-level resources). */
export function isGuaranteed(spec: V1PodSpec): boolean {
  const workload = workloadContainers(spec)
  return workload.length > 0 && workload.every(({ container }) => isGuaranteedResources(container.resources))
}

/**
 * The resources of each of our containers. In a Guaranteed Pod requests equal limits, or its class would be lost;
 * elsewhere a CPU limit would only throttle handshakes, so there is none unless the namespace needs it.
 * Under Pod-level resources (KEP-2837) ours would not fit beside the workload's, so both share the Pod's.
 */
export function sidecarResources(
  spec: V1PodSpec,
  resources: SidecarResources,
  cpuLimitRequired: boolean,
): V1ResourceRequirements | undefined {
  const { cpuRequest, cpuLimit, memoryRequest, memoryLimit } = resources
  if (spec.resources) return undefined
  if (isGuaranteed(spec)) {
    const both = { cpu: cpuLimit, memory: memoryLimit }
    return { limits: both, requests: { ...both } }
  }
  return {
    limits: { ...(cpuLimitRequired && { cpu: cpuLimit }), memory: memoryLimit },
    requests: { cpu: cpuRequest, memory: memoryRequest },
  }
}
