/** What kind of network namespace this process is in. Pure but for the readers at the end. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { isIP, isIPv6, SocketAddress } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { Family } from './ruleset.ts'

/** The first network namespace's inode since Linux 6.18 (include/uapi/linux/nsfs.h: NET_NS_INIT_INO). */
const INITIAL_NAMESPACE = 'net:[4026531833]'

/** What the decision below needs to know. Addresses in any textual form. */
export interface NamespaceFacts {
  readonly podIps: readonly string[]
  readonly hostIps: readonly string[]
  /** The addresses of this namespace's interfaces. */
  readonly ownAddresses: readonly string[]
  /** /proc/self/ns/net, or undefined where it cannot be read. */
  readonly namespace: string | undefined
}

/** One spelling per address; IPv4-mapped IPv6 is IPv4. */
function canonicalAddress(text: string): string {
  const bare = text
    .trim()
    .replace(/%.*$/, '')
    .replace(/^::ffff:(?=\d+\.)/i, '')
  return isIPv6(bare) ? new SocketAddress({ address: bare, family: 'ipv6' }).address : bare
}

/**
 * Why this is the node's network namespace, where the rules would cut off the node; undefined where nothing says so.
 * Three signs, each sure: the Pod has its node's address (hostNetwork), an interface here carries the node's address
 * (a Pod's never does), or this is the machine's first namespace. A comparison with process 1's namespace is not among them: in a container
 * process 1 is the container's own.
 */
export function nodeNamespaceSign(facts: NamespaceFacts): string | undefined {
  const host = new Set(facts.hostIps.map(canonicalAddress))
  const shared = facts.podIps.find((address) => host.has(canonicalAddress(address)))
  if (shared !== undefined) return `the Pod's address ${shared} is its node's`
  const own = facts.ownAddresses.find((address) => host.has(canonicalAddress(address)))
  if (own !== undefined) return `an interface here has the node's address ${own}`
  if (facts.namespace === INITIAL_NAMESPACE) return "this is the machine's first network namespace"
  return undefined
}

/**
 * Whether IPv6 packets can pass here: some interface other than lo has an address (a link-local one counts: peers on
 * the same link reach it) or may get one. `interfaceAddresses` is /proc/net/if_inet6 and `disabled` each interface's
 * net.ipv6.conf.*.disable_ipv6; both are empty where the kernel has no IPv6.
 */
export function hasIpv6(interfaceAddresses: string, disabled: ReadonlyMap<string, string>): boolean {
  const addressed = interfaceAddresses.split('\n').some((line) => {
    const device = line.trim().split(/\s+/)[5]
    return device !== undefined && device !== 'lo'
  })
  const enabled = [...disabled].some(
    ([device, value]) => !['all', 'default', 'lo'].includes(device) && value.trim() === '0',
  )
  return addressed || enabled
}

/** Comma separated addresses; undefined where one is none. */
export function parseAddresses(text: string): readonly string[] | undefined {
  const addresses = text
    .split(',')
    .map((address) => address.trim())
    .filter((address) => address !== '')
  return addresses.every((address) => isIP(address) !== 0) ? addresses : undefined
}

function orElse<T>(read: () => T, otherwise: T): T {
  try {
    return read()
  } catch {
    return otherwise
  }
}

/** The facts about this process's network namespace. */
export function readNamespaceFacts(podIps: readonly string[], hostIps: readonly string[]): NamespaceFacts {
  return {
    podIps,
    hostIps,
    ownAddresses: Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address)),
    namespace: orElse(() => readlinkSync('/proc/self/ns/net'), undefined),
  }
}

/** The families whose rules are required in this process's network namespace: IPv4 always, IPv6 where it can pass. */
export function readRequiredFamilies(): readonly Family[] {
  const directory = '/proc/sys/net/ipv6/conf'
  const disabled = new Map(
    orElse(() => readdirSync(directory), []).map((device) => [
      device,
      orElse(() => readFileSync(`${directory}/${device}/disable_ipv6`, 'utf8'), ''),
    ]),
  )
  const addresses = orElse(() => readFileSync('/proc/net/if_inet6', 'utf8'), '')
  return hasIpv6(addresses, disabled) ? [4, 6] : [4]
}
