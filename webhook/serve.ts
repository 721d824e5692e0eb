import { X509Certificate } from 'node:crypto'
import type { Logger } from 'pino'
import { activeKey } from '../certs/rotation/keyring.ts'
import type { ServingAuthority } from '../certs/serving.ts'
import { createCertificateKeeper } from './bootstrap/serving.ts'
import type { Cluster } from './cluster.ts'
import { WebhookError } from './errors.ts'
import type { HealthServer } from './health.ts'
import type { Installation } from './installation.ts'
import type { KeyringHolder } from './rotation/holder.ts'
import { createServer, type ServerOptions } from './server.ts'

/** The webhook's server with a certificate by the serving CA. */
export interface Serving {
  /** Serves by a certificate of the CA that is active now, without a restart. */
  renewCertificate(): void
  /** When the certificate ends, in seconds since the epoch. */
  certificateEnd(): number
  close(): Promise<void>
}

export interface ServeOptions
  extends Pick<ServerOptions, 'authority' | 'acknowledge' | 'voids' | 'ledger' | 'events' | 'refusals' | 'metrics'> {
  /** Has a keyring already. */
  readonly serving: Pick<KeyringHolder<ServingAuthority>, 'last'>
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
export async function serve(options: ServeOptions, issuerUrl: string): Promise<Serving> {
  const { installation, authority, serving, cluster, health, log, now } = options
  const injection = installation.injection(issuerUrl)
  const certificateOf = createCertificateKeeper({
    ...certificateSubjects(installation, injection.issuerName, issuerUrl),
    now,
  })
  function currentCertificate() {
    const ring = serving.last()
    const active = ring && activeKey(ring)
    if (active === undefined) throw new TypeError('there is no serving CA yet')
    return certificateOf(active.material)
  }
  let certificate = currentCertificate()
  const settings = installation.webhook
  const { acknowledge, voids, ledger, events, refusals, metrics } = options
  const shared = {
    ...(acknowledge && { acknowledge }),
    ...(voids && { voids }),
    ...(ledger && { ledger }),
    ...(events && { events }),
    ...(refusals && { refusals }),
    ...(metrics && { metrics }),
  }
  const server = createServer({ cluster, authority, tls: certificate, settings, injection, log, health, ...shared })
  const { port } = await server.listen()
  log.info({ port, issuerUrl }, 'listening')

  function renew(): void {
    const next = currentCertificate()
    if (next === certificate) return
    certificate = next
    server.setCertificate(next)
    log.info('serving with a new certificate')
  }
  const timer = setInterval(renew, RENEWAL_CHECK_MS)
  return {
    renewCertificate: renew,
    certificateEnd: () => Date.parse(new X509Certificate(certificate.certificatePem).validTo) / 1_000,
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
