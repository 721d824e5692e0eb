import { X509Certificate } from 'node:crypto'
import { issueServingCertificate, type ServingAuthority, type ServingCertificate } from '../../certs/serving.ts'

export interface CertificateOptions {
  readonly names: readonly string[]
  readonly addresses: readonly string[]
  /** Seconds since the epoch. */
  readonly now: () => number
}

/** Renewed at half of it; each replica makes its own, and none is stored. */
export const SERVING_LIFETIME_SECONDS = 30 * 86_400

/** This replica's certificate: made when asked for the first time, and anew once its CA changed or half its life is over. */
export function createCertificateKeeper({ names, addresses, now }: CertificateOptions) {
  let current: { authority: ServingAuthority; certificate: ServingCertificate; renewAt: number } | undefined
  return (authority: ServingAuthority): ServingCertificate => {
    const isSame = current?.authority.certificatePem === authority.certificatePem
    if (current !== undefined && isSame && now() < current.renewAt) return current.certificate
    const caEnd = Date.parse(new X509Certificate(authority.certificatePem).validTo) / 1_000
    // A certificate that outlives its CA would look good until the last day.
    const lifetimeSeconds = Math.max(60, Math.min(SERVING_LIFETIME_SECONDS, Math.floor(caEnd - now())))
    const certificate = issueServingCertificate(authority, { names, addresses, now: now(), lifetimeSeconds })
    current = { authority, certificate, renewAt: now() + lifetimeSeconds / 2 }
    return certificate
  }
}
