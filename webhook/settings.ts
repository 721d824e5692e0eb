import { LABEL_INJECT } from '../api/names.ts'
import { SKEW_SECONDS, WIT_LIFETIME_MAX_SECONDS, WIT_LIFETIME_MIN_SECONDS } from '../certs/limits.ts'
import { WebhookError } from './errors.ts'

export interface WebhookSettings {
  /** The address to listen on; `::` takes IPv4 too. */
  readonly host: string
  /** HTTPS; 0 takes any free port. */
  readonly port: number
  /** Plain HTTP for /healthz, /readyz and /metrics; 0 takes any free port. */
  readonly healthPort: number
  readonly trustDomain: string
  /** The iss claim of WITs. */
  readonly issuer: string
  readonly witLifetimeSeconds: number
  readonly skewSeconds: number
  /** Selects the namespaces whose Pods get identities, as in the injection settings. */
  readonly namespaceLabel: { readonly key: string; readonly value?: string }
  readonly streamPingMs: number
  /** A stream ends after this, +-20 %, so that streams spread over replicas again. */
  readonly streamLifetimeMs: number
  /** Directory changes within this time go out together. */
  readonly directoryDelayMs: number
}

export const DEFAULT_WEBHOOK_SETTINGS: WebhookSettings = {
  host: '::',
  port: 8443,
  healthPort: 8080,
  trustDomain: 'cluster.local',
  issuer: 'https://synguard-webhook.synguard-system.svc',
  witLifetimeSeconds: 3_600,
  skewSeconds: SKEW_SECONDS,
  namespaceLabel: { key: LABEL_INJECT, value: 'enabled' },
  streamPingMs: 10_000,
  streamLifetimeMs: 30 * 60_000,
  directoryDelayMs: 50,
}

/** The defaults with `changes`. Throws WebhookError `setting-invalid` that names the setting and its bounds. */
export function createWebhookSettings(changes: Partial<WebhookSettings> = {}): WebhookSettings {
  const settings = { ...DEFAULT_WEBHOOK_SETTINGS, ...changes }
  const bounds: readonly (readonly [keyof WebhookSettings, number, number])[] = [
    ['port', 0, 65_535],
    ['healthPort', 0, 65_535],
    ['witLifetimeSeconds', WIT_LIFETIME_MIN_SECONDS, WIT_LIFETIME_MAX_SECONDS],
    ['skewSeconds', 1, 600],
    ['streamPingMs', 10, 60_000],
    ['streamLifetimeMs', 100, 86_400_000],
    ['directoryDelayMs', 0, 10_000],
  ]
  for (const [name, min, max] of bounds) {
    const value = settings[name]
    if (!Number.isInteger(value) || Number(value) < min || Number(value) > max) {
      throw new WebhookError('setting-invalid', `${name} must be an integer from ${min} to ${max}.`)
    }
  }
  if (settings.issuer === '') throw new WebhookError('setting-invalid', 'issuer must not be empty.')
  if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(settings.trustDomain)) {
    throw new WebhookError('setting-invalid', 'trustDomain must be a DNS name in small letters.')
  }
  return settings
}
