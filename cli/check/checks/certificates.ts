import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { CONFIGMAP_CA } from '../../../api/names.ts'
import { type Facts, type InstallationFacts, known, type ServedCertificate } from '../facts.ts'
import { type Check, count, type Found, firstUnseen, listNames, mend, note, notSeen, ofSeen, ok } from '../finding.ts'
import { WEBHOOK } from '../installation.ts'

const DAY_MS = 86_400_000
/** A CA that ends sooner than this needs somebody's plan. */
const CA_LEAST_MS = 60 * DAY_MS

/** The certificates of a PEM text; undefined where one of them is none. */
export function parseBundle(pem: string): readonly X509Certificate[] | undefined {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? []
  try {
    return blocks.map((block) => new X509Certificate(block))
  } catch {
    return undefined
  }
}

/** caBundle of our webhooks, decoded; each once. */
function bundlesOf({ configurations }: InstallationFacts): string[] {
  const webhooks = (known(configurations) ?? []).flatMap(({ webhooks: all = [] }) => all)
  const ours = webhooks.filter(({ name }) => name === WEBHOOK)
  return [...new Set(ours.map(({ clientConfig }) => Buffer.from(clientConfig.caBundle ?? '', 'base64').toString()))]
}

const days = (ms: number): string => count(Math.floor(ms / DAY_MS), 'day')
const endOf = (certificate: X509Certificate): number => Date.parse(certificate.validTo)
const startOf = (certificate: X509Certificate): number => Date.parse(certificate.validFrom)
const ageOf = (certificate: X509Certificate, atMs: number): string =>
  `${days(Math.max(0, atMs - startOf(certificate)))} old, ${days(Math.max(0, endOf(certificate) - atMs))} left`

function checkBundle({ installation, atMs }: Facts): readonly Found[] {
  const { namespace } = installation
  return ofSeen('caBundle', installation.configurations, (configurations) => {
    if (configurations.length === 0) return []
    const certificates = bundlesOf(installation).map(parseBundle)
    const logs = `the webhook fills it in: kubectl -n ${namespace} logs deployment/synguard-webhook`
    if (certificates.some((bundle) => bundle === undefined)) return [mend('caBundle holds no certificates', logs)]
    const all = certificates.flatMap((bundle) => bundle ?? [])
    if (all.length === 0) return [mend('caBundle is empty, so the API server trusts no webhook', logs)]
    const valid = all.filter((one) => endOf(one) > atMs && startOf(one) <= atMs)
    const [longest] = valid.toSorted((one, other) => endOf(other) - endOf(one))
    if (longest === undefined) {
      return [mend(`no CA in caBundle is valid now: the last ended ${all.at(-1)?.validTo}`, 'renew the serving CA')]
    }
    const message = `${count(all.length, 'CA')} in caBundle, ${ageOf(longest, atMs)}`
    return [endOf(longest) - atMs < CA_LEAST_MS ? mend(message, 'renew the serving CA in time') : ok(message)]
  })
}

function isFor(certificate: X509Certificate, name: string): boolean {
  return (isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)) !== undefined
}

/** What is wrong with a replica's certificate. */
function faultOf(served: ServedCertificate, bundle: readonly X509Certificate[], atMs: number): string | undefined {
  const pem = known(served.certificatePem)
  const certificate = pem === undefined ? undefined : parseBundle(pem)?.[0]
  if (certificate === undefined) return undefined
  const isOurs = bundle.some((ca) => certificate.checkIssued(ca) && certificate.verify(ca.publicKey))
  if (!isOurs) return 'is not signed by a CA in caBundle'
  if (endOf(certificate) <= atMs) return `ended ${certificate.validTo}`
  if (startOf(certificate) > atMs) return `is valid only from ${certificate.validFrom} on`
  const isNamed = served.names.some((name) => isFor(certificate, name))
  if (!isNamed) return `is not for ${served.names.join(' or ')}`
  // It is renewed at half of its life.
  if (endOf(certificate) - atMs < (endOf(certificate) - startOf(certificate)) / 4) return 'should have been renewed'
  return undefined
}

function checkServing({ installation, atMs }: Facts): readonly Found[] {
  if (!installation.configurations.seen) return [notSeen('caBundle', installation.configurations.reason)]
  if (installation.configurations.value.length === 0) return []
  return ofSeen("the replicas' certificates", installation.certificates, (certificates) => {
    const bundle = bundlesOf(installation).flatMap((pem) => parseBundle(pem) ?? [])
    const shown = certificates.filter(({ certificatePem }) => certificatePem.seen)
    if (shown.length === 0) {
      const reason = firstUnseen(certificates.map(({ certificatePem }) => certificatePem))?.reason ?? ''
      return [notSeen("the replicas' certificates", reason)]
    }
    if (bundle.length === 0) return [note('with an empty caBundle no certificate can be judged')]
    const faults = shown.flatMap((served) => {
      const fault = faultOf(served, bundle, atMs)
      return fault === undefined ? [] : [`the certificate of ${served.replica} ${fault}`]
    })
    const fix = `kubectl -n ${installation.namespace} rollout restart deployment/synguard-webhook`
    if (faults.length > 0) return [mend(faults.join('; '), fix)]
    const ages = shown.map(({ certificatePem }) => parseBundle(known(certificatePem) ?? '')?.[0])
    const [oldest] = ages.filter((one) => one !== undefined).toSorted((one, other) => startOf(one) - startOf(other))
    const age = oldest === undefined ? '' : `, the oldest ${ageOf(oldest, atMs)}`
    return [ok(`${count(shown.length, 'replica')} with a certificate by caBundle${age}`)]
  })
}

const fingerprints = (bundle: readonly X509Certificate[] | undefined): string =>
  (bundle ?? [])
    .map(({ fingerprint256 }) => fingerprint256)
    .toSorted()
    .join(' ')

function checkConfigMaps({ installation, namespaces }: Facts): readonly Found[] {
  return ofSeen('the labelled namespaces', namespaces, (all) => {
    if (all.length === 0) return []
    if (!installation.configurations.seen) return [notSeen('caBundle', installation.configurations.reason)]
    const wanted = fingerprints(bundlesOf(installation).flatMap((pem) => parseBundle(pem) ?? []))
    const findings: Found[] = []
    const place = (differing: typeof all) => listNames(differing.map(({ namespace }) => namespace.metadata?.name ?? ''))
    const logs = `kubectl -n ${installation.namespace} logs deployment/synguard-webhook`
    const missing = all.filter(({ ca }) => ca.seen && ca.value?.data?.['ca.crt'] === undefined)
    if (missing.length > 0) {
      findings.push(mend(`${place(missing)}: no ConfigMap ${CONFIGMAP_CA}, so Pods there do not start`, logs))
    }
    const differing = all.filter(({ ca }) => {
      const text = known(ca)?.data?.['ca.crt']
      return wanted !== '' && text !== undefined && fingerprints(parseBundle(text)) !== wanted
    })
    if (differing.length > 0) {
      findings.push(mend(`${place(differing)}: ConfigMap ${CONFIGMAP_CA} is not what caBundle is`, logs))
    }
    const blind = firstUnseen(all.map(({ ca }) => ca))
    if (blind !== undefined) findings.push(notSeen(`ConfigMap ${CONFIGMAP_CA}`, blind.reason))
    if (findings.length > 0) return findings
    if (wanted === '') return [note(`with an empty caBundle ConfigMap ${CONFIGMAP_CA} cannot be judged`)]
    return [ok(`${count(all.length, 'labelled namespace')} with the CA that is in caBundle`)]
  })
}

export const CERTIFICATE_CHECKS: readonly Check[] = [
  { name: 'ca-bundle', needsInstallation: true, run: checkBundle },
  { name: 'serving-certificate', needsInstallation: true, run: checkServing },
  { name: 'namespace-ca', needsInstallation: true, run: checkConfigMaps },
]
