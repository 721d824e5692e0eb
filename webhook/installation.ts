import { hostname } from 'node:os'
import { parse } from 'yaml'
import { ROTATION_KINDS, type RotationKind } from '../api/rotation.ts'
import { rotationTiming } from '../certs/rotation/facts.ts'
import { checkSchedule } from '../certs/rotation/progress.ts'
import { canonicalAddress } from '../policy/address.ts'
import { DEFAULT_INJECTION_SETTINGS, type InjectionSettings, parseInjectionSettings } from './admission/settings.ts'
import { WebhookError } from './errors.ts'
import { LOG_LEVELS, type LogLevel } from './log.ts'
import { createWebhookSettings, DEFAULT_WEBHOOK_SETTINGS, type WebhookSettings } from './settings.ts'

/** What an installation chooses: the settings file, and what only its Pod knows. */
export interface Installation {
  /** The webhook's own namespace. */
  readonly namespace: string
  readonly replica: string
  readonly logLevel: LogLevel
  /** Absent in a Pod, which has a service account. */
  readonly kubeconfigPath?: string
  readonly names: InstallationNames
  readonly webhook: WebhookSettings
  /** How Pods are injected, by the address at which sidecars reach the issuer. Throws AdmissionError. */
  readonly injection: (issuerUrl: string) => InjectionSettings
  /** `https://ADDRESS:PORT` where it is not the Service's. */
  readonly issuerUrl?: string
  /** Further names and addresses in the serving certificate. */
  readonly certificateNames: readonly string[]
  readonly certificateAddresses: readonly string[]
  /** How often keys are rotated by themselves; by request alone where a kind is left out. */
  readonly rotateEverySeconds: { readonly [Kind in RotationKind]?: number }
  /** How long requests are still answered after SIGTERM, until everybody has heard that this replica goes. */
  readonly drainMs: number
}

/** Objects that the manifests make, all but the Secret's content. */
export interface InstallationNames {
  readonly service: string
  readonly secret: string
  readonly webhookConfiguration: string
  /** The ConfigMap with the void list. */
  readonly voids: string
  /** The ConfigMaps with who has an identity, each with a hexadecimal digit behind it. */
  readonly register: string
}

const DEFAULT_NAMES: InstallationNames = {
  service: 'synguard-webhook',
  secret: 'synguard-authority',
  webhookConfiguration: 'synguard',
  voids: 'synguard-voids',
  register: 'synguard-issued',
}
const DEFAULT_DRAIN_MS = 5_000
/** The kubelet waits 30 s where a Pod does not say otherwise. */
const MAX_DRAIN_MS = 25_000
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/

type Fields = Readonly<Record<string, unknown>>

const bad = (field: string, rule: string) => new WebhookError('setting-invalid', `${field} ${rule}.`)

/** The text of the settings file (YAML), and the environment; throws WebhookError `setting-invalid` or AdmissionError. */
export function parseInstallation(text: string, environment: NodeJS.ProcessEnv): Installation {
  const fields = readFields(parseYaml(text), 'settings', [
    'webhook',
    'injection',
    'names',
    'trustDomain',
    'namespaceLabel',
    'issuerUrl',
    'certificateNames',
    'certificateAddresses',
    'drainMs',
    'rotateEvery',
  ])
  const namespace = readName(environment.SYNGUARD_NAMESPACE, 'SYNGUARD_NAMESPACE')
  const names = readNames(fields.names)
  const issuerName = `${names.service}.${namespace}.svc`
  const shared = { trustDomain: fields.trustDomain, namespaceLabel: fields.namespaceLabel }
  const injection = (issuerUrl: string) =>
    parseInjectionSettings({
      issuerName,
      ...readFields(fields.injection, 'injection', INJECTION),
      ...shared,
      issuerUrl,
    })
  // Once now, with an address that will do: a mistake shall end the process at its start.
  const { trustDomain, namespaceLabel } = injection('https://192.0.2.1:443')
  const webhook = readWebhook(fields.webhook, { trustDomain, namespaceLabel, issuer: `https://${issuerName}` })
  return {
    namespace,
    replica: environment.SYNGUARD_POD_NAME ?? hostname(),
    logLevel: readLogLevel(environment.SYNGUARD_LOG_LEVEL),
    ...(environment.KUBECONFIG && { kubeconfigPath: environment.KUBECONFIG }),
    names,
    webhook,
    injection,
    ...(fields.issuerUrl !== undefined && { issuerUrl: injection(String(fields.issuerUrl)).issuerUrl }),
    certificateNames: readList(
      fields.certificateNames,
      'certificateNames',
      (name) => DNS_NAME.test(name),
      'a DNS name',
    ),
    certificateAddresses: readList(
      fields.certificateAddresses,
      'certificateAddresses',
      (address) => canonicalAddress(address) !== undefined,
      'an IP address',
    ),
    rotateEverySeconds: readSchedule(fields.rotateEvery, webhook),
    drainMs: readInteger(fields.drainMs, 'drainMs', DEFAULT_DRAIN_MS, MAX_DRAIN_MS),
  }
}

/** What is shared with the issuer, or known only later, has no place in the injection's own section. */
const SHARED: readonly string[] = ['trustDomain', 'namespaceLabel']
const INJECTION = [...Object.keys(DEFAULT_INJECTION_SETTINGS), 'image', 'issuerName'].filter(
  (name) => !SHARED.includes(name),
)
const WEBHOOK = Object.keys(DEFAULT_WEBHOOK_SETTINGS).filter((name) => !SHARED.includes(name))

function parseYaml(text: string): unknown {
  try {
    return parse(text) ?? {}
  } catch (error) {
    const [line = ''] = (error as Error).message.split('\n', 1)
    throw bad('The settings file', `is no YAML: ${line}`)
  }
}

function readFields(value: unknown, at: string, known: readonly string[]): Fields {
  if (value === undefined || value === null) return {}
  if (typeof value !== 'object' || Array.isArray(value)) throw bad(at, 'must be an object')
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw bad(`${at}.${key}`, `is unknown; known fields are ${known.join(', ')}`)
  }
  return value as Fields
}

function readWebhook(value: unknown, shared: Partial<WebhookSettings>): WebhookSettings {
  const fields = readFields(value, 'webhook', WEBHOOK)
  for (const [name, given] of Object.entries(fields)) {
    const wanted = typeof DEFAULT_WEBHOOK_SETTINGS[name as keyof WebhookSettings]
    if (typeof given !== wanted) throw bad(`webhook.${name}`, `must be a ${wanted}`)
  }
  return createWebhookSettings({ ...shared, ...(fields as Partial<WebhookSettings>) })
}

function readNames(value: unknown): InstallationNames {
  const fields = readFields(value, 'names', Object.keys(DEFAULT_NAMES))
  const read = (name: keyof InstallationNames) => readName(fields[name] ?? DEFAULT_NAMES[name], `names.${name}`)
  return {
    service: read('service'),
    secret: read('secret'),
    webhookConfiguration: read('webhookConfiguration'),
    voids: read('voids'),
    register: read('register'),
  }
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { h: 3_600, d: 86_400 }

/** `{ identity: 30d, serving: 8760h }`, each as long at least as one rotation may take. */
function readSchedule(value: unknown, webhook: WebhookSettings): Installation['rotateEverySeconds'] {
  const fields = readFields(value, 'rotateEvery', ROTATION_KINDS)
  const timing = rotationTiming(webhook.witLifetimeSeconds, webhook.skewSeconds)
  const schedule = Object.entries(fields).map(([kind, text]) => {
    const [, count = '', unit = ''] = /^([1-9]\d{0,5})([hd])$/.exec(String(text)) ?? []
    const seconds = Number(count) * (UNIT_SECONDS[unit] ?? 0)
    if (seconds === 0) throw bad(`rotateEvery.${kind}`, 'must be hours or days, such as 720h or 30d')
    const refusal = checkSchedule(seconds, timing)
    if (refusal !== undefined) throw bad(`rotateEvery.${kind}`, `is too short. ${refusal.message.replace(/\.$/, '')}`)
    return [kind, seconds]
  })
  return Object.fromEntries(schedule) as Installation['rotateEverySeconds']
}

function readName(value: unknown, at: string): string {
  if (typeof value !== 'string' || !DNS_NAME.test(value)) throw bad(at, 'must be the name of a Kubernetes object')
  return value
}

function readList(value: unknown, at: string, accepts: (item: string) => boolean, rule: string): readonly string[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw bad(at, 'must be a list')
  return value.map((item: unknown, index) => {
    if (typeof item !== 'string' || !accepts(item)) throw bad(`${at}[${index}]`, `must be ${rule}`)
    return item
  })
}

function readInteger(value: unknown, at: string, fallback: number, most: number): number {
  const chosen = value ?? fallback
  if (typeof chosen !== 'number' || !Number.isInteger(chosen) || chosen < 0 || chosen > most) {
    throw bad(at, `must be a whole number from 0 to ${most}`)
  }
  return chosen
}

function readLogLevel(value: string | undefined): LogLevel {
  const level = LOG_LEVELS.find((known) => known === (value ?? 'info'))
  if (level === undefined) throw bad('SYNGUARD_LOG_LEVEL', `must be one of ${LOG_LEVELS.join(', ')}`)
  return level
}
