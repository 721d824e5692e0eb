import type { KeyObject } from 'node:crypto'
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { deflateRawSync } from 'node:zlib'
import type { PodIdentity } from '../../../api/identity.ts'
import type { PublicJwk, SigningKey } from '../../../certs/authority.ts'
import { exportPublicJwk } from '../../../certs/authority.ts'

export const NOW = 1_790_000_000
export const EXPECTED = { now: NOW, trustDomain: 'cluster.local', issuer: 'https://synguard.test', skewSeconds: 120 }

/** A Pod as Helm makes it, in a namespace with six labels. */
export const PAYMENTS: PodIdentity = {
  namespace: 'shop-production',
  name: 'payments-7d9c5b8f6d-x2k9q',
  uid: '4a1c6e9f-1b5f-4f37-9c0e-6a4f4c3b2a10',
  serviceAccount: 'payments',
  labels: {
    'app.kubernetes.io/name': 'payments',
    'app.kubernetes.io/instance': 'payments-prod',
    'app.kubernetes.io/version': '2.14.3',
    'app.kubernetes.io/component': 'backend',
    'app.kubernetes.io/part-of': 'shop',
    'app.kubernetes.io/managed-by': 'Helm',
    'helm.sh/chart': 'payments-2.14.3',
    'pod-template-hash': '7d9c5b8f6d',
  },
  namespaceLabels: {
    'kubernetes.io/metadata.name': 'shop-production',
    'synguard.io/inject': 'enabled',
    'pod-security.kubernetes.io/enforce': 'privileged',
    environment: 'production',
    team: 'payments',
    'cost-center': 'cc-4711',
  },
  addresses: ['10.244.3.17', 'fd00:10:244:3::11'],
  ports: [
    { name: 'http', port: 8080, protocol: 'TCP' },
    { name: 'metrics', port: 9090, protocol: 'TCP' },
  ],
}

export function createKey(): { privateKey: KeyObject; jwk: PublicJwk } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { privateKey, jwk: exportPublicJwk(privateKey) }
}

export function createJti(): string {
  return randomBytes(16).toString('base64url')
}

/** A JWS of any header and payload under an ES256 key: what a broken or hostile holder of that key could sign. */
export function signAnything(privateKey: KeyObject, header: object, payload: Buffer): string {
  const input = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${payload.toString('base64url')}`
  const signature = sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** A WIT under the authority's key with claims of any shape. */
export function signClaims(key: SigningKey, claims: unknown, header: object = {}): string {
  const payload = deflateRawSync(Buffer.from(JSON.stringify(claims)))
  return signAnything(key.privateKey, { alg: 'ES256', kid: key.kid, typ: 'wit+jwt', zip: 'DEF', ...header }, payload)
}
