import type { Cidr } from '../../../policy/address.ts'
import { cidrContains, parseAddress, parseCidr } from '../../../policy/address.ts'
import { type Facts, type KubeProxyFacts, known, type PathFacts } from '../facts.ts'
import { type Check, count, type Found, listNames, mend, notSeen, ok } from '../finding.ts'

/** A sidecar refuses a server that sees it at an address that is not its own: `relayed`. */
const CONSEQUENCE = 'so sidecars refuse each other, as if relayed'

/** Addresses of Pods of labelled namespaces that kube-proxy takes for strangers; one family is enough to be wrong. */
function findStrangers({ namespaces }: Facts, { clusterCidrs }: KubeProxyFacts): string[] {
  const cidrs = clusterCidrs.map(parseCidr).filter((cidr): cidr is Cidr => cidr !== undefined)
  if (cidrs.length === 0) return []
  const pods = (known(namespaces) ?? []).flatMap(({ pods: list }) => known(list) ?? [])
  const addresses = pods
    .filter(({ spec }) => spec?.hostNetwork !== true)
    .flatMap(({ status }) => status?.podIPs ?? [])
    .map(({ ip }) => ip)
  return addresses.filter((text) => {
    const address = parseAddress(text)
    const sameFamily = cidrs.filter((cidr) => cidr.bytes.length === address?.length)
    return address !== undefined && sameFamily.length > 0 && !sameFamily.some((cidr) => cidrContains(cidr, address))
  })
}

function judgeConfiguration(facts: Facts, proxy: KubeProxyFacts): Found {
  if (proxy.masqueradeAll) {
    const fix = 'set masqueradeAll to false and restart kube-proxy'
    return mend(`${proxy.source} has masqueradeAll on: Services hide who connects, ${CONSEQUENCE}`, fix)
  }
  const strangers = findStrangers(facts, proxy)
  if (strangers.length > 0) {
    const message = `${proxy.source} has clusterCIDR ${proxy.clusterCidrs.join(',')}, and Pods have ${listNames(strangers, 3)}`
    return mend(`${message}: Services hide who connects, ${CONSEQUENCE}`, 'set clusterCIDR to the range of all Pods')
  }
  return ok(`${proxy.source} masquerades nothing between Pods`)
}

/** What Pods saw of each other; why nothing where none reached another. */
function judgePaths(paths: readonly PathFacts[]): Found | string {
  const tried = paths.flatMap(({ seenAs, ...path }) => (seenAs.seen ? [{ ...path, seenAs: seenAs.value }] : []))
  const translated = tried.filter(({ from, seenAs }) => !from.includes(seenAs))
  const [first] = translated
  if (first !== undefined) {
    const message = `${first.path}, through ${first.through}: ${first.from.join(' or ')} was seen as ${first.seenAs}`
    const fix = 'turn source translation between Pods off in kube-proxy or the network'
    return mend(`${message}, ${CONSEQUENCE}`, fix)
  }
  const lost = paths.find(({ seenAs }) => !seenAs.seen)?.seenAs
  if (tried.length === 0) return lost?.seen === false ? `no Pod reached another: ${lost.reason}` : 'no Pod was run'
  return ok(
    `Pods are seen by their own addresses, directly and through a Service (${count(tried.length, 'path')} tried)`,
  )
}

function checkTranslation(facts: Facts): readonly Found[] {
  const proxy = facts.cluster.kubeProxy
  const { paths } = facts.pods
  const configured = proxy.seen ? judgeConfiguration(facts, proxy.value) : proxy.reason
  const tried = paths.seen ? judgePaths(paths.value) : paths.reason
  const found = [tried, configured].filter((one) => typeof one !== 'string')
  const faults = found.filter(({ status }) => status === 'fix')
  if (faults.length > 0) return faults
  // What Pods saw goes before what a configuration says.
  const [best] = found
  if (best !== undefined) return [best]
  return [notSeen('source translation between Pods', `${configured}; ${tried}`)]
}

export const PATH_CHECKS: readonly Check[] = [{ name: 'source-translation', run: checkTranslation }]
