import { createHash } from 'node:crypto'
import { runCommand } from './command.ts'
import type { ServicePortEndpoints } from './endpoints.ts'

export type Family = 4 | 6

/** kube-proxy's default mark of packets to masquerade. */
const MASQUERADE_MARK = '0x4000/0x4000'

/** Chain names as kube-proxy makes them: at most 28 characters. */
function chainName(prefix: string, ...parts: readonly string[]): string {
  const hash = createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 16).toUpperCase()
  return `${prefix}-${hash}`
}

const isFamily = (family: Family) => (address: string) => address.includes(':') === (family === 6)
const prefix = (family: Family) => (family === 6 ? 128 : 32)

function natChains(service: ServicePortEndpoints, family: Family): string[] {
  const protocol = service.protocol.toLowerCase()
  const chain = chainName('KUBE-SVC', service.name, protocol)
  const endpoints = service.endpoints.filter(({ address }) => isFamily(family)(address))
  const addresses = service.clusterIps.filter(isFamily(family))
  if (endpoints.length === 0 || addresses.length === 0) return []
  return [
    `:${chain} - [0:0]`,
    ...addresses.map(
      (address) =>
        `-A KUBE-SERVICES -d ${address}/${prefix(family)} -p ${protocol} --dport ${service.port} -j ${chain}`,
    ),
    ...nodePortRules(service, chain),
    ...endpoints.flatMap(({ address, port }, index) => {
      const endpointChain = chainName('KUBE-SEP', service.name, protocol, address, String(port))
      const left = endpoints.length - index
      const chance = left === 1 ? '' : ` -m statistic --mode random --probability ${(1 / left).toFixed(10)}`
      return [
        `:${endpointChain} - [0:0]`,
        `-A ${chain}${chance} -j ${endpointChain}`,
        // Hairpin: the Pod that is its own backend must get its packets back from another address than its own.
        `-A ${endpointChain} -s ${address}/${prefix(family)} -j KUBE-MARK-MASQ`,
        `-A ${endpointChain} -p ${protocol} -j DNAT --to-destination ${family === 6 ? `[${address}]` : address}:${port}`,
      ]
    }),
  ]
}

/** Pods go the way of the cluster address where the policy is Local, and are masqueraded where it is Cluster. */
function nodePortRules({ protocol, nodePort, keepsSource }: ServicePortEndpoints, chain: string): string[] {
  if (nodePort === undefined) return []
  const rule = `-A KUBE-NODEPORTS -p ${protocol.toLowerCase()} --dport ${nodePort} -j`
  return keepsSource ? [`${rule} ${chain}`] : [`${rule} KUBE-MARK-MASQ`, `${rule} ${chain}`]
}

function refusalOfEmpty(service: ServicePortEndpoints, family: Family): string[] {
  if (service.endpoints.some(({ address }) => isFamily(family)(address))) return []
  return service.clusterIps
    .filter(isFamily(family))
    .map(
      (address) =>
        `-A KUBE-SERVICES -d ${address}/${prefix(family)} -p ${service.protocol.toLowerCase()} --dport ${service.port} -j REJECT`,
    )
}

/**
 * The node's rules for cluster addresses and node ports of Services as text for iptables-restore or ip6tables-restore, in the shape of kube-proxy's
 * iptables mode: DNAT to a random ready endpoint, masquerade for hairpin and node ports only, INVALID dropped in FORWARD
 * (kubernetes/pkg/proxy/iptables/proxier.go). SCTP is left out.
 */
export function serviceRules(services: readonly ServicePortEndpoints[], family: Family): string {
  const proxied = services.filter(({ protocol }) => protocol !== 'SCTP')
  return `${[
    '*filter',
    ':INPUT ACCEPT [0:0]',
    ':FORWARD ACCEPT [0:0]',
    ':OUTPUT ACCEPT [0:0]',
    ':KUBE-SERVICES - [0:0]',
    ':KUBE-FORWARD - [0:0]',
    '-A FORWARD -j KUBE-FORWARD',
    '-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES',
    '-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES',
    '-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP',
    `-A KUBE-FORWARD -m mark --mark ${MASQUERADE_MARK} -j ACCEPT`,
    '-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    ...proxied.flatMap((service) => refusalOfEmpty(service, family)),
    'COMMIT',
    '*nat',
    ':PREROUTING ACCEPT [0:0]',
    ':OUTPUT ACCEPT [0:0]',
    ':POSTROUTING ACCEPT [0:0]',
    ':KUBE-SERVICES - [0:0]',
    ':KUBE-POSTROUTING - [0:0]',
    ':KUBE-MARK-MASQ - [0:0]',
    ':KUBE-NODEPORTS - [0:0]',
    '-A PREROUTING -j KUBE-SERVICES',
    '-A OUTPUT -j KUBE-SERVICES',
    '-A POSTROUTING -j KUBE-POSTROUTING',
    '-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000',
    `-A KUBE-POSTROUTING -m mark ! --mark ${MASQUERADE_MARK} -j RETURN`,
    '-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000',
    '-A KUBE-POSTROUTING -j MASQUERADE --random-fully',
    ...proxied.flatMap((service) => natChains(service, family)),
    '-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
    'COMMIT',
  ].join('\n')}\n`
}

/** Replaces the node's Service rules of both families; running connections keep their translation. */
export async function applyServices(node: string, services: readonly ServicePortEndpoints[]): Promise<void> {
  const restore = (binary: string, family: Family) =>
    runCommand('ip', ['netns', 'exec', node, binary], { stdin: serviceRules(services, family) })
  await restore('iptables-restore', 4)
  await restore('ip6tables-restore', 6)
}
