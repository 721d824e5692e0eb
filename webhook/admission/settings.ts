import type { Mode } from '../../api/identity.ts'
import { LABEL_INJECT, SIDECAR_HEALTH_PORT } from '../../api/names.ts'
import { canonicalAddress, parseAddress, parseCidr } from '../../policy/address.ts'
import { AdmissionError } from './errors.ts'
import { parseQuantity } from './quantity.ts'
import { isJsonObject } from './shape.ts'

export type PolicySource = { readonly kind: 'api' } | { readonly kind: 'directory'; readonly hostPath: string }

/** What namespaces and Pods choose by annotation, and what holds where a namespace says nothing. */
export interface Choices {
  readonly mode: Mode
  readonly peersWithoutIdentity: 'resolve' | 'deny'
  readonly nodeAccess: 'probes' | 'all'
  readonly refusal: 'reset' | 'drop'
}

/** Kubernetes quantities. */
export interface SidecarResources {
  readonly cpuRequest: string
  /** Only in Guaranteed Pods (where it is the request too) and where the namespace needs one. */
  readonly cpuLimit: string
  readonly memoryRequest: string
  /** In Guaranteed Pods the request too. */
  readonly memoryLimit: string
}

export interface InjectionSettings {
  readonly image: string
  readonly imagePullPolicy: 'Always' | 'IfNotPresent' | 'Never'
  /** `https://ADDRESS:PORT` */
  readonly issuerUrl: string
  readonly issuerName: string
  readonly trustDomain: string
  /** CIDRs of Pods and Services. */
  readonly clusterNetworks: readonly string[]
  readonly nodeAddresses: readonly string[]
  readonly policySource: PolicySource
  readonly healthPort: number
  readonly logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error'
  readonly resources: SidecarResources
  /** Selects namespaces; without a value the label's presence is enough. */
  readonly namespaceLabel: { readonly key: string; readonly value?: string }
  readonly defaults: Choices
  /** Lifetime of both projected tokens; Kubernetes' least is 600. */
  readonly tokenExpirationSeconds: number
  /** Exec form: a shell between would lose the file capabilities. */
  readonly command: { readonly init: readonly string[]; readonly sidecar: readonly string[] }
}

/**
 * SIGUSR1 would open Node's inspector on loopback, which the whole Pod shares; the semi-space size and V8's care for
 * memory save 5 MB each; on a thread of its own, garbage collection and compilation take the processor from packets that
 * wait.
 * NODE_OPTIONS is no way to say so: a binary with file capabilities ignores it.
 */
export const NODE_FLAGS = [
  '--disable-sigusr1',
  '--max-semi-space-size=1',
  '--optimize-for-size',
  '--single-threaded',
] as const
const NODE = ['/usr/bin/node', ...NODE_FLAGS]

/** Every setting but those that only the installation knows. */
export const DEFAULT_INJECTION_SETTINGS = {
  imagePullPolicy: 'IfNotPresent',
  trustDomain: 'cluster.local',
  clusterNetworks: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'],
  nodeAddresses: [],
  policySource: { kind: 'api' },
  healthPort: SIDECAR_HEALTH_PORT,
  logLevel: 'info',
  resources: { cpuRequest: '25m', cpuLimit: '250m', memoryRequest: '64Mi', memoryLimit: '192Mi' },
  namespaceLabel: { key: LABEL_INJECT, value: 'enabled' },
  defaults: { mode: 'enforce', peersWithoutIdentity: 'resolve', nodeAccess: 'probes', refusal: 'reset' },
  tokenExpirationSeconds: 3600,
  command: { init: [...NODE, '/app/init.js'], sidecar: [...NODE, '/app/sidecar.js'] },
} as const satisfies Omit<InjectionSettings, 'image' | 'issuerUrl' | 'issuerName'>

/** RFC 1123. The sidecar reads its variables as strictly: what it refuses must not get into a Pod. */
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/

type Fields = Readonly<Record<string, unknown>>

function bad(field: string, rule: string): AdmissionError {
  return new AdmissionError('bad-setting', `injection settings: ${field} ${rule}`)
}

/** The object's fields; a field that is not among `known` is an error, as it is most likely misspelt. */
function fieldsOf(value: unknown, field: string, known: readonly string[]): Fields {
  if (!isJsonObject(value)) throw bad(field, 'must be an object')
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw bad(`${field}.${key}`, `is unknown; known fields are ${known.join(', ')}`)
  }
  return value
}

function readText(value: unknown, field: string, pattern: RegExp, rule: string, fallback?: string): string {
  const chosen = value ?? fallback
  if (typeof chosen !== 'string' || !pattern.test(chosen)) throw bad(field, `must be ${rule}`)
  return chosen
}

function readOneOf<T extends string>(value: unknown, field: string, allowed: readonly T[], fallback: T): T {
  const found = allowed.find((candidate) => candidate === (value ?? fallback))
  if (found === undefined) throw bad(field, `must be one of ${allowed.join(', ')}`)
  return found
}

function readInteger(value: unknown, field: string, least: number, most: number, fallback: number): number {
  const chosen = value ?? fallback
  if (typeof chosen !== 'number' || !Number.isInteger(chosen) || chosen < least || chosen > most) {
    throw bad(field, `must be a whole number from ${least} to ${most}`)
  }
  return chosen
}

function readList(
  value: unknown,
  field: string,
  accepts: (item: string) => boolean,
  rule: string,
  fallback: readonly string[],
): readonly string[] {
  const chosen = value ?? fallback
  if (!Array.isArray(chosen)) throw bad(field, 'must be a list')
  return chosen.map((item: unknown, index) => {
    if (typeof item !== 'string' || !accepts(item)) throw bad(`${field}[${index}]`, `must be ${rule}`)
    return item
  })
}

function isAddress(text: string): boolean {
  return parseAddress(text) !== undefined
}

function readIssuerUrl(value: unknown): string {
  const rule = 'must be https://ADDRESS:PORT with an IP address, so that sidecars need no DNS'
  if (typeof value !== 'string' || !URL.canParse(value)) throw bad('issuerUrl', rule)
  const url = new URL(value)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const extras = url.username + url.password + url.search + url.hash
  if (url.protocol !== 'https:' || canonicalAddress(host) === undefined || url.pathname !== '/' || extras !== '') {
    throw bad('issuerUrl', rule)
  }
  // WHATWG URLs leave out the scheme's own port; the sidecar wants one.
  return `https://${url.hostname}:${url.port === '' ? 443 : url.port}`
}

function readPolicySource(value: unknown): PolicySource {
  const fields = fieldsOf(value ?? DEFAULT_INJECTION_SETTINGS.policySource, 'policySource', ['kind', 'hostPath'])
  const kind = readOneOf(fields.kind, 'policySource.kind', ['api', 'directory'], 'api')
  if (kind === 'api') return { kind }
  return {
    kind,
    hostPath: readText(fields.hostPath, 'policySource.hostPath', /^\/(?!.*\.\.)/, 'an absolute path without ".."'),
  }
}

function readResources(value: unknown): SidecarResources {
  const defaults = DEFAULT_INJECTION_SETTINGS.resources
  const fields = fieldsOf(value ?? {}, 'resources', Object.keys(defaults))
  const read = (name: keyof SidecarResources) => {
    const quantity = fields[name] ?? defaults[name]
    if (typeof quantity !== 'string' || (parseQuantity(quantity) ?? 0n) <= 0n) {
      throw bad(`resources.${name}`, 'must be a Kubernetes quantity above zero, such as 25m or 64Mi')
    }
    return quantity
  }
  const parsed: SidecarResources = {
    cpuRequest: read('cpuRequest'),
    cpuLimit: read('cpuLimit'),
    memoryRequest: read('memoryRequest'),
    memoryLimit: read('memoryLimit'),
  }
  for (const [request, limit] of [
    ['cpuRequest', 'cpuLimit'],
    ['memoryRequest', 'memoryLimit'],
  ] as const) {
    if ((parseQuantity(parsed[request]) ?? 0n) > (parseQuantity(parsed[limit]) ?? 0n)) {
      throw bad(`resources.${request}`, `must not be above resources.${limit}`)
    }
  }
  return parsed
}

function readNamespaceLabel(value: unknown): InjectionSettings['namespaceLabel'] {
  if (value === undefined || value === null) return DEFAULT_INJECTION_SETTINGS.namespaceLabel
  const fields = fieldsOf(value, 'namespaceLabel', ['key', 'value'])
  const name = /^([a-z0-9.-]{1,253}\/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/
  const key = readText(fields.key, 'namespaceLabel.key', name, 'a label key')
  if (fields.value === undefined || fields.value === null) return { key }
  const pattern = /^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/
  return { key, value: readText(fields.value, 'namespaceLabel.value', pattern, 'a label value') }
}

function readChoices(value: unknown): Choices {
  const defaults = DEFAULT_INJECTION_SETTINGS.defaults
  const f = fieldsOf(value ?? {}, 'defaults', Object.keys(defaults))
  const at = 'defaults'
  return {
    mode: readOneOf(f.mode, `${at}.mode`, ['enforce', 'audit', 'off'], defaults.mode),
    peersWithoutIdentity: readOneOf(
      f.peersWithoutIdentity,
      `${at}.peersWithoutIdentity`,
      ['resolve', 'deny'],
      defaults.peersWithoutIdentity,
    ),
    nodeAccess: readOneOf(f.nodeAccess, `${at}.nodeAccess`, ['probes', 'all'], defaults.nodeAccess),
    refusal: readOneOf(f.refusal, `${at}.refusal`, ['reset', 'drop'], defaults.refusal),
  }
}

function readCommand(value: unknown): InjectionSettings['command'] {
  const defaults = DEFAULT_INJECTION_SETTINGS.command
  const fields = fieldsOf(value ?? {}, 'command', ['init', 'sidecar'])
  const read = (name: 'init' | 'sidecar') => {
    const words = readList(fields[name], `command.${name}`, (word) => word !== '', 'text', defaults[name])
    if (words[0] === undefined) throw bad(`command.${name}`, 'must name a program')
    return words
  }
  return { init: read('init'), sidecar: read('sidecar') }
}

/**
 * Returns complete settings from parsed JSON or YAML; `image`, `issuerUrl` and `issuerName` are required, the rest has
 * defaults. Throws AdmissionError `bad-setting` that names the field and what it must be.
 */
export function parseInjectionSettings(value: unknown): InjectionSettings {
  const d = DEFAULT_INJECTION_SETTINGS
  const f = fieldsOf(value, 'settings', ['image', 'issuerUrl', 'issuerName', ...Object.keys(d)])
  return {
    image: readText(f.image, 'image', /^[^\s]{1,1024}$/, 'an image reference'),
    imagePullPolicy: readOneOf(
      f.imagePullPolicy,
      'imagePullPolicy',
      ['Always', 'IfNotPresent', 'Never'],
      d.imagePullPolicy,
    ),
    issuerUrl: readIssuerUrl(f.issuerUrl),
    issuerName: readText(f.issuerName, 'issuerName', DNS_NAME, "the DNS name in the issuer's certificate"),
    trustDomain: readText(f.trustDomain, 'trustDomain', DNS_NAME, 'a SPIFFE trust domain in lower case', d.trustDomain),
    clusterNetworks: readList(
      f.clusterNetworks,
      'clusterNetworks',
      (block) => parseCidr(block) !== undefined,
      'a CIDR',
      d.clusterNetworks,
    ),
    nodeAddresses: readList(f.nodeAddresses, 'nodeAddresses', isAddress, 'an IP address', d.nodeAddresses),
    policySource: readPolicySource(f.policySource),
    healthPort: readInteger(f.healthPort, 'healthPort', 1024, 65535, d.healthPort),
    logLevel: readOneOf(f.logLevel, 'logLevel', ['trace', 'debug', 'info', 'warn', 'error'], d.logLevel),
    resources: readResources(f.resources),
    namespaceLabel: readNamespaceLabel(f.namespaceLabel),
    defaults: readChoices(f.defaults),
    // Kubernetes takes 600 s to 2^32 s.
    tokenExpirationSeconds: readInteger(
      f.tokenExpirationSeconds,
      'tokenExpirationSeconds',
      600,
      2 ** 32,
      d.tokenExpirationSeconds,
    ),
    command: readCommand(f.command),
  }
}
