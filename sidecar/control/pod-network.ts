/** What the Pod's own network tells. */
import { formatAddress } from '../../policy/address.ts'
import { readNetwork } from '../netlink/route.ts'
import type { SidecarSettings } from './settings.ts'

/** The addresses of the Pod's node: status.hostIPs, the default gateways, and the setting. The kubelet uses any. */
export function readNodeAddresses(settings: SidecarSettings): string[] {
  const gateways = readNetwork().defaultRoutes.flatMap(({ gateway }) => (gateway ? [formatAddress(gateway)] : []))
  return [...new Set([...settings.hostAddresses, ...gateways, ...settings.nodeAddresses])]
}

/** The smallest MTU of the Pod's interfaces, at most Ethernet's 1,500: a SYN with its frame must fit. */
export function readSmallestMtu(): number {
  const links = readNetwork().links.filter(({ loopback, up }) => up && !loopback)
  return Math.min(1500, ...links.map(({ mtuBytes }) => mtuBytes))
}
