import type { Logger } from 'pino'
import { createCertificateKeeper } from './bootstrap/serving.ts'
import type { Trust } from './bootstrap/trust.ts'
import type { Cluster } from './cluster.ts'
import { WebhookError } from './errors.ts'
import type { HealthServer } from './health.ts'
import type { Installation } from './installation.ts'
import { createAuthority } from './issuer/authority.ts'
import { createServer, type ServerOptions } from './server.ts'

/** The webhook's server with the keys of a trust. */
export interface Serving {
  /** Signs and serves by other keys from now on, without a restart. */
  setTrust(trust: Trust): void
  close(): Promise<void>
}

export interface ServeOptions extends Pick<ServerOptions, 'voids' | 'ledger' | 'events' | 'metrics'> {
  readonly installation: Installation
  readonly cluster: Cluster
  readonly health: HealthServer
  readonly log: Logger
  /** Seconds since the epoch. */
  readonly now: () => number
}

/** How often a certificate is looked at for its renewal. */
const RENEWAL_CHECK_MS = 3_600_000

/** Resolves once it listens. Rejects where a port is taken or settings contradict each other. */
export async function serve(options: ServeOptions, issuerUrl: string, first: Trust): Promise<Serving> {
  const { installation, cluster, health, log, now } = options
  const injection = installation.injection(issuerUrl)
  const certificateOf = createCertificateKeeper({
    ...certificateSubjects(installation, injection.issuerName, issuerUrl),
    now,
  })
  const authority = createAuthority(first.signingKeys, first.signingKey)
  let trust = first
  let certificate = certificateOf(trust.servingAuthority)
  const settings = installation.webhook
  const { voids, ledger, events, metrics } = options
  const shared = {
    ...(voids && { voids }),
    ...(ledger && { ledger }),
    ...(events && { events }),
    ...(metrics && { metrics }),
  }
  const server = createServer({ cluster, authority, tls: certificate, settings, injection, log, health, ...shared })
  const { port } = await server.listen()
  log.info({ port, issuerUrl }, 'listening')

  function renew(): void {
    const next = certificateOf(trust.servingAuthority)
    if (next === certificate) return
    certificate = next
    server.setCertificate(next)
    log.info('serving with a new certificate')
  }
  const timer = setInterval(renew, RENEWAL_CHECK_MS)
  return {
    setTrust(next) {
      trust = next
      authority.setKeys(next.signingKeys, next.signingKey)
      renew()
    },
    async close() {
      clearInterval(timer)
      await server.close()
    },
  }
}

/** Every name and address by which API servers and sidecars may call us. */
function certificateSubjects(installation: Installation, issuerName: string, issuerUrl: string) {
  const { namespace, names, certificateNames, certificateAddresses } = installation
  const service = `${names.service}.${namespace}.svc`
  const address = new URL(issuerUrl).hostname.replace(/^\[|\]$/g, '')
  return {
    names: [...new Set([issuerName, service, `${service}.cluster.local`, ...certificateNames])],
    addresses: [...new Set([address, ...certificateAddresses])],
  }
}

/**
 * The address at which sidecars reach the issuer: the Service's, so that they need no DNS. Throws WebhookError
 * `cluster-unavailable` while it is not known.
 */
export function findIssuerUrl({ issuerUrl, namespace, names }: Installation, cluster: Cluster): string {
  if (issuerUrl !== undefined) return issuerUrl
  if (!cluster.synced()) throw new WebhookError('cluster-unavailable', 'The cluster is not known yet.')
  const { clusterIP, ports = [] } = cluster.get('Service', names.service, namespace)?.spec ?? {}
  const port = (ports.find(({ name }) => name === 'https') ?? ports[0])?.port
  if (clusterIP === undefined || clusterIP === 'None' || port === undefined) {
    const place = `Service ${namespace}/${names.service}`
    throw new WebhookError('cluster-unavailable', `${place} is missing, or has no cluster address or port.`)
  }
  return clusterIP.includes(':') ? `https://[${clusterIP}]:${port}` : `https://${clusterIP}:${port}`
}
