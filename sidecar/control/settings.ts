import { isAbsolute } from 'node:path'
import { API_SERVER_ENVIRONMENT, ENVIRONMENT } from '../../api/environment.ts'
import type { Mode, Protocol } from '../../api/identity.ts'
import { SIDECAR_HEALTH_PORT } from '../../api/names.ts'
import { type Cidr, canonicalAddress, parseCidr } from '../../policy/address.ts'
import { ControlError } from './errors.ts'
import { LOG_LEVELS, type LogLevel } from './log.ts'

/** A port of a declared probe or lifecycle hook. */
export interface ProbePort {
  readonly protocol: Protocol
  readonly port: number
}

/** Policies come from the API server at that address, or from files. */
export type PolicySourceSetting =
  | { readonly kind: 'api'; readonly address: string; readonly port: number }
  | { readonly kind: 'directory'; readonly path: string }

/** The sidecar's settings, complete and valid. Addresses are canonical text. */
export interface SidecarSettings {
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string; readonly nodeName: string }
  readonly podAddresses: readonly string[]
  readonly hostAddresses: readonly string[]
  /** Where the issuer is, and the name that its certificate must carry. */
  readonly issuer: { readonly address: string; readonly port: number; readonly name: string }
  readonly trustDomain: string
  readonly policySource: PolicySourceSetting
  readonly clusterNetworks: readonly Cidr[]
  readonly nodeAddresses: readonly string[]
  readonly mode: Mode
  readonly peersWithoutIdentity: 'resolve' | 'deny'
  readonly nodeAccess: 'probes' | 'all'
  readonly refusal: 'reset' | 'drop'
  readonly probePorts: readonly ProbePort[]
  readonly healthPort: number
  readonly logLevel: LogLevel
}

/** Where frames may go without a setting: RFC 1918, RFC 6598 (carrier NAT, used by some Pod networks), RFC 4193. */
const DEFAULT_CLUSTER_NETWORKS = '10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7'

const MODES = ['enforce', 'audit', 'off'] as const
const PEERS = ['resolve', 'deny'] as const
const NODE_ACCESS = ['probes', 'all'] as const
const REFUSALS = ['reset', 'drop'] as const
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const

const DNS_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
/** RFC 1123 subdomain, as Kubernetes names Pods and nodes. */
const DNS_SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/
/** SPIFFE-ID, 2.1: the characters of a trust domain. */
const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/
const UID = /^[A-Za-z0-9-]{1,64}$/

type Environment = Readonly<Record<string, string | undefined>>
const VARIABLES = { ...ENVIRONMENT, ...API_SERVER_ENVIRONMENT }
type Key = keyof typeof VARIABLES

/** Reads variables and collects what is wrong, so that one start names every mistake. */
function createReader(environment: Environment, problems: string[]) {
  function value(key: Key): string | undefined {
    const text = environment[VARIABLES[key]]?.trim()
    return text === '' ? undefined : text
  }

  function problem(key: Key, found: string, fix: string): undefined {
    problems.push(`${VARIABLES[key]} ${found}: ${fix}`)
  }

  function required(key: Key, source: string): string | undefined {
    return value(key) ?? problem(key, 'is missing', `set it to ${source}`)
  }

  function matching(key: Key, pattern: RegExp, source: string): string {
    const text = required(key, source)
    if (text !== undefined && !pattern.test(text)) problem(key, `is ${show(text)}`, `set it to ${source}`)
    return text ?? ''
  }

  function oneOf<const T extends string>(key: Key, allowed: readonly T[], fallback: T): T {
    const text = value(key) ?? fallback
    const found = allowed.find((candidate) => candidate === text)
    if (found === undefined) problem(key, `is ${show(text)}`, `use one of ${allowed.join(', ')}`)
    return found ?? fallback
  }

  function list<T>(
    key: Key,
    text: string | undefined,
    parse: (item: string) => T | undefined,
    form: string,
  ): readonly T[] {
    if (text === undefined) return []
    const parsed: T[] = []
    for (const item of text.split(',')) {
      const result = parse(item.trim())
      if (result === undefined) problem(key, `holds ${show(item.trim())}`, `separate by commas ${form}`)
      else parsed.push(result)
    }
    return parsed
  }

  return { value, problem, required, matching, oneOf, list }
}

/** A value for an error message, bounded: the variable may hold anything. */
function show(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}

function parsePort(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0
  return port >= 1 && port <= 65_535 ? port : undefined
}

function parseProbePort(item: string): ProbePort | undefined {
  const [protocolText, portText = '', ...rest] = item.split('/')
  const protocol = PROTOCOLS.find((candidate) => candidate === protocolText)
  const port = parsePort(portText)
  return protocol === undefined || port === undefined || rest.length > 0 ? undefined : { protocol, port }
}

/** The address and port of `https://ADDRESS:PORT` (IPv6 in brackets; port 443 by default), undefined for anything else. */
function parseIssuerUrl(text: string): { address: string; port: number } | undefined {
  const url = URL.parse(text)
  if (url === null || url.protocol !== 'https:' || url.username !== '' || url.password !== '') return undefined
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') return undefined
  const address = canonicalAddress(url.hostname.replace(/^\[(.*)\]$/, '$1'))
  const port = parsePort(url.port === '' ? '443' : url.port)
  return address === undefined || port === undefined ? undefined : { address, port }
}

function readPolicySource(read: ReturnType<typeof createReader>): PolicySourceSetting {
  const form = '`api`, or `directory:` and an absolute path'
  const text = read.required('policySource', form) ?? ''
  const path = text.startsWith('directory:') ? text.slice('directory:'.length) : ''
  if (text === 'api') return { kind: 'api', ...readApiServer(read) }
  if (text !== '' && !isAbsolute(path)) read.problem('policySource', `is ${show(text)}`, `use ${form}`)
  return { kind: 'directory', path }
}

function readApiServer(read: ReturnType<typeof createReader>): { address: string; port: number } {
  const addressForm = "the address of the API server's Service, and no name, since no DNS is asked"
  const addressText = read.required('apiServerAddress', addressForm)
  const address = addressText === undefined ? '' : canonicalAddress(addressText)
  if (address === undefined) {
    read.problem('apiServerAddress', `is ${show(addressText ?? '')}`, `set it to ${addressForm}`)
  }
  const portText = read.value('apiServerPort') ?? '443'
  const port = parsePort(portText)
  if (port === undefined) read.problem('apiServerPort', `is ${show(portText)}`, 'use a port, 1 to 65535')
  return { address: address ?? '', port: port ?? 0 }
}

/**
 * The sidecar's settings from its environment (api/environment.ts; the kubelet writes some of it). An empty variable
 * counts as absent. Throws one ControlError `settings-invalid` that names every variable that is wrong, with what to set.
 */
export function parseSettings(environment: Environment): SidecarSettings {
  const problems: string[] = []
  const read = createReader(environment, problems)

  const issuerForm = "`https://ADDRESS:PORT` of the issuer's Service, an address and no name, since no DNS is asked"
  const issuerText = read.required('issuerUrl', issuerForm)
  const issuerUrl = issuerText === undefined ? undefined : parseIssuerUrl(issuerText)
  if (issuerText !== undefined && issuerUrl === undefined) {
    read.problem('issuerUrl', `is ${show(issuerText)}`, `set it to ${issuerForm}`)
  }

  const healthText = read.value('healthPort')
  const healthPort = healthText === undefined ? SIDECAR_HEALTH_PORT : parsePort(healthText)
  if (healthPort === undefined) read.problem('healthPort', `is ${show(healthText ?? '')}`, 'use a port, 1 to 65535')

  const podIps = read.required('podIps', 'the field status.podIPs')
  const hostIps = read.required('hostIps', 'the field status.hostIPs')
  const settings: SidecarSettings = {
    pod: {
      namespace: read.matching('podNamespace', DNS_LABEL, 'the field metadata.namespace'),
      name: read.matching('podName', DNS_SUBDOMAIN, 'the field metadata.name'),
      uid: read.matching('podUid', UID, 'the field metadata.uid'),
      nodeName: read.matching('nodeName', DNS_SUBDOMAIN, 'the field spec.nodeName'),
    },
    podAddresses: read.list('podIps', podIps, canonicalAddress, 'the IP addresses of the field status.podIPs'),
    hostAddresses: read.list('hostIps', hostIps, canonicalAddress, 'the IP addresses of the field status.hostIPs'),
    issuer: {
      address: issuerUrl?.address ?? '',
      port: issuerUrl?.port ?? 0,
      name: read.matching('issuerName', DNS_SUBDOMAIN, "the DNS name in the issuer's certificate"),
    },
    trustDomain: read.matching('trustDomain', TRUST_DOMAIN, 'the trust domain, such as cluster.local'),
    policySource: readPolicySource(read),
    clusterNetworks: read.list(
      'clusterNetworks',
      read.value('clusterNetworks') ?? DEFAULT_CLUSTER_NETWORKS,
      parseCidr,
      'CIDRs such as 10.0.0.0/8',
    ),
    nodeAddresses: read.list('nodeAddresses', read.value('nodeAddresses'), canonicalAddress, 'IP addresses'),
    mode: read.oneOf('mode', MODES, 'enforce'),
    peersWithoutIdentity: read.oneOf('peersWithoutIdentity', PEERS, 'resolve'),
    nodeAccess: read.oneOf('nodeAccess', NODE_ACCESS, 'probes'),
    refusal: read.oneOf('refusal', REFUSALS, 'reset'),
    probePorts: read.list('probePorts', read.value('probePorts'), parseProbePort, 'ports such as TCP/8080'),
    healthPort: healthPort ?? SIDECAR_HEALTH_PORT,
    logLevel: read.oneOf('logLevel', LOG_LEVELS, 'info'),
  }
  if (problems.length > 0) throw new ControlError('settings-invalid', problems.join('; '))
  return settings
}
