import type { V1Service } from '@kubernetes/client-node'
import { hasClusterIp } from './endpoints.ts'
import { LabError } from './errors.ts'
import { canonicalAddress } from './network.ts'

/** Gives Services their cluster addresses: the manifest's own, else the next of 10.96.0.0/16 and of its IPv6 twin. */
export function createServiceAddresses(): { assign(service: V1Service): V1Service } {
  const used = new Set(['10.96.0.1', 'fd00:10:96::1']) // the API server's in every cluster
  let last = 1
  const claim = (address: string, name: string) => {
    if (used.has(address)) throw new LabError('lab-address', `Service ${name}: clusterIP ${address} is taken already`)
    used.add(address)
    return address
  }
  return {
    assign(service) {
      if (!hasClusterIp(service)) return service
      const name = `${service.metadata?.namespace}/${service.metadata?.name}`
      const { clusterIP, clusterIPs = [] } = service.spec ?? {}
      const fixed = clusterIPs.length > 0 ? clusterIPs : clusterIP ? [clusterIP] : []
      let addresses = fixed.map((address) => claim(canonicalAddress(address), name))
      while (addresses.length === 0) {
        last++
        const candidates = [`10.96.${last >> 8}.${last & 255}`, `fd00:10:96::${last.toString(16)}`]
        if (!candidates.some((address) => used.has(address))) {
          addresses = candidates.map((address) => claim(address, name))
        }
      }
      return { ...service, spec: { ...service.spec, clusterIP: addresses[0] ?? '', clusterIPs: addresses } }
    },
  }
}
