import { existsSync } from 'node:fs'
import { formatAddress, parseAddress } from '../policy/address.ts'
import { runCommand, runIpBatch, writeSysctls } from './command.ts'
import { LabError } from './errors.ts'
import { removeNamespace } from './remains.ts'

/** The lab's addresses: a cluster's usual ones, and documentation ranges (RFC 5737, RFC 3849) for the outside. */
export const LAB_ADDRESSES = {
  podNetworks: ['10.244.0.0/16', 'fd00:10:244::/64'],
  serviceNetworks: ['10.96.0.0/16', 'fd00:10:96::/112'],
  /** The bridge's own addresses: the Pods' default gateway, and the source of what the node sends to them. */
  gateway: ['10.244.0.1', 'fd00:10:244::1'],
  node: ['172.30.0.10', 'fd00:30::10'],
  uplink: ['172.30.0.1', 'fd00:30::1'],
  external: ['203.0.113.10', '2001:db8::10'],
} as const

export const LAB_NODE_NAME = 'lab-node'

export interface PodNetwork {
  readonly netns: string
  /** Canonical text; the first is the primary address. */
  readonly addresses: readonly string[]
}

export interface Network {
  /** The namespace with the bridge. */
  readonly node: string
  /** The namespace outside of the cluster. */
  readonly external: string
  /** Makes a Pod's namespace, joined to the bridge; `addresses` are taken from the pools where none are given. */
  addPod(addresses?: readonly string[]): Promise<PodNetwork>
  removePod(pod: PodNetwork): Promise<void>
}

export interface NetworkOptions {
  readonly runId: string
  /** Of all links; default 1500. */
  readonly mtuBytes?: number
}

const POD_SYSCTLS = [
  // As container runtimes do (containerd's enable_unprivileged_ports): a server needs no power for port 80.
  'net.ipv4.ip_unprivileged_port_start=0',
  // Addresses are usable at once; on a hairpin bridge port duplicate address detection would find itself.
  'net.ipv6.conf.all.accept_dad=0',
  'net.ipv6.conf.default.accept_dad=0',
  'net.ipv6.conf.default.accept_ra=0',
]

const NODE_SYSCTLS = [
  ...POD_SYSCTLS,
  'net.ipv4.ip_forward=1',
  'net.ipv6.conf.all.forwarding=1',
  'net.ipv4.conf.all.send_redirects=0',
  'net.ipv4.conf.default.send_redirects=0',
  // kube-proxy's rules must see what the bridge passes from Pod to Pod.
  'net.bridge.bridge-nf-call-iptables=1',
  'net.bridge.bridge-nf-call-ip6tables=1',
]

/** An address's canonical form; throws `lab-address`. */
export function canonicalAddress(text: string): string {
  const bytes = parseAddress(text)
  if (bytes === undefined) throw new LabError('lab-address', `"${text}" is no IPv4 or IPv6 address`)
  return formatAddress(bytes)
}

/** Hands out addresses of the Pod networks and remembers those that manifests fix. */
export function createAddressPool(): {
  take(fixed?: readonly string[]): string[]
  free(addresses: readonly string[]): void
} {
  const used = new Set<string>(LAB_ADDRESSES.gateway)
  let last = 1
  const claim = (address: string) => {
    if (used.has(address)) throw new LabError('lab-address', `address ${address} is taken twice`)
    used.add(address)
    return address
  }
  return {
    take(fixed = []) {
      const claimed = fixed.map((address) => claim(canonicalAddress(address)))
      // Pods reach the issuer over IPv4, so one that fixes an IPv6 address alone gets an IPv4 address beside it.
      if (claimed.some((address) => !address.includes(':'))) return claimed
      for (last++; last < 65_000; last++) {
        // The same number in both families, so that a log is read easily.
        const addresses = [`10.244.${last >> 8}.${last & 255}`, `fd00:10:244::${last.toString(16)}`]
        if (addresses.some((address) => used.has(address))) continue
        return claimed.length > 0 ? [...claimed, claim(addresses[0] ?? '')] : addresses.map(claim)
      }
      throw new LabError('lab-address', 'the address space of the lab is used up')
    },
    free(addresses) {
      for (const address of addresses) used.delete(address)
    },
  }
}

async function addNamespace(netns: string, sysctls: readonly string[]): Promise<void> {
  await runCommand('ip', ['netns', 'add', netns])
  await writeSysctls(netns, sysctls)
  await runIpBatch(netns, ['link set lo up'])
}

/** The bridge's netfilter hooks are a module on most machines, and nothing loads it by itself. */
async function loadBridgeNetfilter(): Promise<void> {
  if (existsSync('/proc/sys/net/bridge')) return
  await runCommand('modprobe', ['br_netfilter']).catch((cause: unknown) => {
    const what = 'the kernel module br_netfilter is not loaded and could not be; without it Services do not work'
    throw new LabError('lab-unsupported', what, { cause })
  })
}

/** Makes the node with its bridge, and a network outside of the cluster behind it. */
export async function createNetwork({ runId, mtuBytes = 1500 }: NetworkOptions): Promise<Network> {
  await loadBridgeNetfilter()
  const node = `sgl-${runId}-node`
  const external = `sgl-${runId}-ext`
  await Promise.all([addNamespace(node, NODE_SYSCTLS), addNamespace(external, POD_SYSCTLS)])
  const [gateway4, gateway6] = LAB_ADDRESSES.gateway
  const [node4, node6] = LAB_ADDRESSES.node
  const [uplink4, uplink6] = LAB_ADDRESSES.uplink
  const [external4, external6] = LAB_ADDRESSES.external
  await runIpBatch(node, [
    // Without snooping neighbour discovery works from the first packet on.
    // A fixed MAC address: a bridge otherwise takes the lowest of its ports, and changes it under the Pods.
    `link add cni0 mtu ${mtuBytes} address 02:00:0a:f4:00:01 type bridge mcast_snooping 0 forward_delay 0`,
    'link set cni0 up',
    `addr add ${gateway4}/16 dev cni0`,
    `addr add ${gateway6}/64 dev cni0 nodad`,
    `link add eth0 mtu ${mtuBytes} type veth peer name eth0 netns ${external} mtu ${mtuBytes}`,
    'link set eth0 up',
    `addr add ${node4}/24 dev eth0`,
    `addr add ${node6}/64 dev eth0 nodad`,
  ])
  await runIpBatch(external, [
    'link set eth0 up',
    `addr add ${external4}/32 dev lo`,
    `addr add ${external6}/128 dev lo nodad`,
    `addr add ${uplink4}/24 dev eth0`,
    `addr add ${uplink6}/64 dev eth0 nodad`,
    `route add default via ${node4} src ${external4}`,
    `route add ::/0 via ${node6} src ${external6}`,
  ])
  await runIpBatch(node, [`route add default via ${uplink4}`, `route add ::/0 via ${uplink6}`])

  const pool = createAddressPool()
  let count = 0
  return {
    node,
    external,
    async addPod(fixed) {
      const addresses = pool.take(fixed)
      const index = count++
      const netns = `sgl-${runId}-p${index}`
      await addNamespace(netns, POD_SYSCTLS)
      await runIpBatch(node, [
        `link add pod${index} mtu ${mtuBytes} type veth peer name eth0 netns ${netns} mtu ${mtuBytes}`,
        // Hairpin: a Pod reaches itself through its Service.
        `link set pod${index} master cni0`,
        `link set pod${index} type bridge_slave hairpin on`,
        `link set pod${index} up`,
        ...addresses.filter((address) => !isPoolAddress(address)).map(hostRouteToPod),
      ])
      await runIpBatch(netns, ['link set eth0 up', ...podAddressLines(addresses)])
      return { netns, addresses }
    },
    async removePod(pod) {
      await removeNamespace(pod.netns)
      const routes = pod.addresses.filter((address) => !isPoolAddress(address))
      for (const address of routes) await runCommand('ip', ['-n', node, 'route', 'del', address]).catch(() => undefined)
      pool.free(pod.addresses)
    },
  }
}

function isPoolAddress(address: string): boolean {
  return address.startsWith('10.244.') || /^fd00:10:244::[0-9a-f]{1,4}$/.test(address)
}

function hostRouteToPod(address: string): string {
  return address.includes(':') ? `route add ${address}/128 dev cni0` : `route add ${address}/32 dev cni0`
}

/** A Pod sees its pool as one link; an address from elsewhere stands alone behind the gateway. */
function podAddressLines(addresses: readonly string[]): string[] {
  const [gateway4, gateway6] = LAB_ADDRESSES.gateway
  return addresses.flatMap((address) => {
    if (address.includes(':')) {
      const onLink = isPoolAddress(address)
      return [
        `addr add ${address}/${onLink ? 64 : 128} dev eth0 nodad`,
        ...(onLink ? [] : [`route add ${gateway6}/128 dev eth0`]),
        `route add ::/0 via ${gateway6} dev eth0`,
      ]
    }
    const onLink = isPoolAddress(address)
    return [
      `addr add ${address}/${onLink ? 16 : 32} dev eth0`,
      ...(onLink ? [] : [`route add ${gateway4}/32 dev eth0 scope link`]),
      `route add default via ${gateway4} dev eth0`,
    ]
  })
}
