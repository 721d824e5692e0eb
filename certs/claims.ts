import type { KeyObject } from 'node:crypto'
import { isIPv4, isIPv6 } from 'node:net'
import type { Labels, NamedPort, PodIdentity, Protocol } from '../api/identity.ts'
import { canonicalAddress } from '../policy/address.ts'
import type { PublicJwk } from './authority.ts'
import { readPublicJwk } from './authority.ts'
import { WitError } from './errors.ts'
import { DEGRADED_MAX, LABELS_MAX, PORTS_MAX, WIT_LIFETIME_MAX_SECONDS } from './limits.ts'

/** What a WIT's payload says. Times are seconds since the epoch (RFC 7519, NumericDate). */
export interface WitClaims {
  readonly issuer: string
  readonly trustDomain: string
  readonly identity: PodIdentity
  readonly cnf: PublicJwk
  readonly issuedAt: number
  readonly expiresAt: number
  readonly jti: string
}

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/
const DNS_SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
/** Kubernetes label names and values (apimachinery, IsQualifiedName and IsValidLabelValue). */
const LABEL_NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const PORT_NAME = /^[a-z0-9-]{1,15}$/
const UID = /^[A-Za-z0-9-]{1,64}$/
const JTI = /^[A-Za-z0-9_-]{16,64}$/
const SUBJECT = /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/([^/]+)$/
const PROTOCOLS: ReadonlySet<unknown> = new Set<Protocol>(['TCP', 'UDP', 'SCTP'])

/** The SPIFFE ID of a service account: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. */
export function spiffeId(trustDomain: string, namespace: string, serviceAccount: string): string {
  return `spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`
}

/** The JSON payload of a WIT. Namespace and service account stand in `sub` alone. */
export function encodeClaims(claims: WitClaims): Buffer {
  const { identity, cnf } = claims
  return Buffer.from(
    JSON.stringify({
      iss: claims.issuer,
      sub: spiffeId(claims.trustDomain, identity.namespace, identity.serviceAccount),
      iat: claims.issuedAt,
      exp: claims.expiresAt,
      jti: claims.jti,
      cnf: { jwk: { kty: cnf.kty, crv: cnf.crv, x: cnf.x, y: cnf.y } },
      pod: {
        name: identity.name,
        uid: identity.uid,
        addresses: identity.addresses,
        labels: identity.labels,
        namespaceLabels: identity.namespaceLabels,
        ports: identity.ports.map(({ name, port, protocol }) => ({ name, port, protocol })),
        ...(identity.degraded === undefined ? {} : { degraded: identity.degraded }),
      },
    }),
  )
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * The claims in a WIT's inflated payload. Throws WitError `wit-claims`, which names the claim, unless every claim has
 * its type, syntax and bounds, and there is no other.
 */
export function parseClaims(bytes: Buffer): WitClaims & { readonly cnfKey: KeyObject } {
  let value: unknown
  try {
    value = JSON.parse(utf8.decode(bytes))
  } catch {
    throw refuse('payload', 'JSON')
  }
  const claims = record(value, 'payload', ['iss', 'sub', 'iat', 'exp', 'jti', 'cnf', 'pod'])
  const { trustDomain, namespace, serviceAccount } = parseSubject(claims.sub)
  const issuedAt = integer(claims.iat, 'iat', 0, Number.MAX_SAFE_INTEGER)
  const expiresAt = integer(claims.exp, 'exp', issuedAt + 1, issuedAt + WIT_LIFETIME_MAX_SECONDS)
  const cnf = readPublicJwk(record(record(claims.cnf, 'cnf', ['jwk']).jwk, 'cnf.jwk', ['kty', 'crv', 'x', 'y']))
  if (cnf === undefined) throw refuse('cnf.jwk', 'a P-256 public key')
  return {
    issuer: text(claims.iss, 'iss', (value) => value.length > 0 && value.length <= 255),
    trustDomain,
    identity: { namespace, serviceAccount, ...parsePod(claims.pod) },
    cnf: cnf.jwk,
    cnfKey: cnf.key,
    issuedAt,
    expiresAt,
    jti: text(claims.jti, 'jti', (value) => JTI.test(value)),
  }
}

function parseSubject(value: unknown): { trustDomain: string; namespace: string; serviceAccount: string } {
  const match = typeof value === 'string' ? SUBJECT.exec(value) : null
  const [, trustDomain = '', namespace = '', serviceAccount = ''] = match ?? []
  if (!isSubdomain(trustDomain) || !DNS_LABEL.test(namespace) || !isSubdomain(serviceAccount)) {
    throw refuse('sub', 'spiffe://<trust domain>/ns/<namespace>/sa/<service account>')
  }
  return { trustDomain, namespace, serviceAccount }
}

function parsePod(value: unknown): Omit<PodIdentity, 'namespace' | 'serviceAccount'> {
  const required = ['name', 'uid', 'addresses', 'labels', 'namespaceLabels', 'ports']
  const pod = record(value, 'pod', required, ['degraded'])
  return {
    name: text(pod.name, 'pod.name', isSubdomain),
    uid: text(pod.uid, 'pod.uid', (value) => UID.test(value)),
    addresses: parseAddresses(pod.addresses),
    labels: parseLabels(pod.labels, 'pod.labels'),
    namespaceLabels: parseLabels(pod.namespaceLabels, 'pod.namespaceLabels'),
    ports: list(pod.ports, 'pod.ports', 0, PORTS_MAX).map(parsePort),
    ...(pod.degraded === undefined
      ? {}
      : {
          degraded: list(pod.degraded, 'pod.degraded', 1, DEGRADED_MAX).map((reason) =>
            text(reason, 'pod.degraded', (value) => value.length > 0 && value.length <= 128),
          ),
        }),
  }
}

function parseAddresses(value: unknown): string[] {
  const addresses = list(value, 'pod.addresses', 1, 2).map((address) =>
    text(address, 'pod.addresses', (value) => canonicalAddress(value) === value),
  )
  if (addresses.filter(isIPv4).length > 1 || addresses.filter(isIPv6).length > 1) {
    throw refuse('pod.addresses', 'at most one address of each family')
  }
  return addresses
}

function parseLabels(value: unknown, claim: string): Labels {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse(claim, 'an object')
  const entries = Object.entries(value)
  if (entries.length > LABELS_MAX) throw refuse(claim, `at most ${LABELS_MAX} labels`)
  for (const [key, label] of entries) {
    if (!isLabelKey(key) || typeof label !== 'string' || !(label === '' || LABEL_NAME.test(label))) {
      throw refuse(claim, 'Kubernetes label keys and values')
    }
  }
  return value as Labels
}

function isLabelKey(key: string): boolean {
  const slash = key.indexOf('/')
  return LABEL_NAME.test(key.slice(slash + 1)) && (slash < 0 || isSubdomain(key.slice(0, slash)))
}

function isSubdomain(value: string): boolean {
  return value.length <= 253 && DNS_SUBDOMAIN.test(value)
}

function parsePort(value: unknown): NamedPort {
  const port = record(value, 'pod.ports', ['name', 'port', 'protocol'])
  if (!PROTOCOLS.has(port.protocol)) throw refuse('pod.ports', 'a protocol of TCP, UDP or SCTP')
  return {
    name: text(port.name, 'pod.ports', (name) => PORT_NAME.test(name)),
    port: integer(port.port, 'pod.ports', 1, 65_535),
    protocol: port.protocol as Protocol,
  }
}

function record(value: unknown, claim: string, required: string[], optional: string[] = []): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse(claim, 'an object')
  const keys = Object.keys(value)
  const known = keys.every((key) => required.includes(key) || optional.includes(key))
  if (!known || !required.every((key) => keys.includes(key))) {
    throw refuse(claim, `an object with ${required.join(', ')}`)
  }
  return value as Record<string, unknown>
}

function list(value: unknown, claim: string, min: number, max: number): unknown[] {
  if (!Array.isArray(value) || value.length < min || value.length > max) {
    throw refuse(claim, `a list of ${min} to ${max}`)
  }
  return value
}

function integer(value: unknown, claim: string, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
    throw refuse(claim, `an integer from ${min} to ${max}`)
  }
  return value
}

function text(value: unknown, claim: string, isValid: (value: string) => boolean): string {
  if (typeof value !== 'string' || !isValid(value)) throw refuse(claim, 'a string of its syntax')
  return value
}

function refuse(claim: string, expected: string): WitError {
  return new WitError('wit-claims', `The token's claim ${claim} is not ${expected}.`)
}
