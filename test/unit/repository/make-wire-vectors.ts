/**
 * Writes test/fixtures/handshake/vectors.json anew: `node test/unit/repository/make-wire-vectors.ts`. Needed only where
 * the wire format changes, which is a new version. Keys and secrets are fixed; ES256 signatures differ from run to run.
 */
import { createHash, createPrivateKey } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { PodIdentity } from '../../../api/identity.ts'
import { exportPublicJwk, parseSigningKey, trustBundle } from '../../../certs/authority.ts'
import { issueWit } from '../../../certs/wit.ts'
import { CHECKOUT } from './checkout.ts'
import { computeVectors, type Given } from './wire-vectors.ts'

const ISSUED_AT = 1_800_000_000
const TRUST_DOMAIN = 'cluster.local'
const ISSUER = 'https://synguard-webhook.synguard-system.svc'

const digest = (text: string): Buffer => createHash('sha256').update(`synguard vector ${text}`).digest()

/** A P-256 key whose private number is the hash of a text: DER after RFC 5915, wrapped as RFC 5958 says. */
function fixedKey(text: string): Record<string, string> {
  const der = Buffer.concat([
    Buffer.from(
      '304102010030130607 2a8648ce3d0201 06082a8648ce3d030107 0427 3025020101 0420'.replaceAll(' ', ''),
      'hex',
    ),
    digest(text),
  ])
  const jwk = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ format: 'jwk' })
  return jwk as Record<string, string>
}

const authorityJwk = fixedKey('authority')
const { kty, crv, x, y } = authorityJwk
const thumbprint = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url')
const authority = parseSigningKey(JSON.stringify({ ...authorityJwk, kid: thumbprint }))

async function createPod(name: string, addresses: readonly string[]) {
  const privateKey = fixedKey(`${name} cnf`)
  const identity: PodIdentity = {
    namespace: 'shop',
    name: `${name}-0`,
    uid: `00000000-0000-4000-8000-${digest(name).toString('hex').slice(0, 12)}`,
    serviceAccount: name,
    labels: { app: name },
    namespaceLabels: { 'kubernetes.io/metadata.name': 'shop' },
    addresses,
    ports: name === 'server' ? [{ name: 'http', port: 8080, protocol: 'TCP' }] : [],
  }
  const wit = await issueWit(authority, {
    identity,
    cnf: exportPublicJwk(createPrivateKey({ key: privateKey, format: 'jwk' })),
    trustDomain: TRUST_DOMAIN,
    issuer: ISSUER,
    issuedAt: ISSUED_AT,
    lifetimeSeconds: 3_600,
    jti: `vector-${name}-0000000`,
  })
  return { privateKey, wit, nonceSecret: digest(`${name} nonces`).toString('hex') }
}

const sequenceNumbers = { clientIsn: 0xfffffff0, serverIsn: 0x01020304 }
const given: Given = {
  about: 'Test vectors of docs/wire.md. The private keys are for tests alone. Bytes are hex.',
  issuedAt: ISSUED_AT,
  trustDomain: TRUST_DOMAIN,
  issuer: ISSUER,
  bundle: trustBundle([authority]),
  client: await createPod('client', ['10.244.0.5', 'fd00:10:244::5']),
  server: await createPod('server', ['10.244.0.6', 'fd00:10:244::6']),
  connections: [
    {
      family: 4,
      client: { address: '10.244.0.5', port: 40_000 },
      server: { address: '10.244.0.6', port: 8_080 },
      ...sequenceNumbers,
    },
    {
      family: 6,
      client: { address: 'fd00:10:244::5', port: 40_001 },
      server: { address: 'fd00:10:244::6', port: 8_080 },
      ...sequenceNumbers,
    },
  ],
}

const path = join(CHECKOUT, 'test', 'fixtures', 'handshake', 'vectors.json')
mkdirSync(dirname(path), { recursive: true })
writeFileSync(path, `${JSON.stringify(computeVectors(given), undefined, 2)}\n`)
