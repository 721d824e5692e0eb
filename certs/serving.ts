import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import forge from 'node-forge'
import { AuthorityError } from './errors.ts'

/** The CA of the webhook's TLS certificate. RSA, for node-forge makes no ECDSA certificates. */
export interface ServingAuthority {
  readonly certificatePem: string
  readonly privateKeyPem: string
}

export interface ServingCertificate {
  readonly certificatePem: string
  readonly privateKeyPem: string
}

const RSA_BITS = 2048
/** A certificate is valid from this long before it is made: clients whose clocks are late still accept it. */
const BACKDATE_SECONDS = 300
const COMMON_NAME = 'synguard'

/** A fresh self-signed CA, valid for `lifetimeSeconds` from `now` (seconds since the epoch). */
export function createServingAuthority(options: { now: number; lifetimeSeconds: number }): ServingAuthority {
  const keys = createKeyPair()
  const certificate = prepareCertificate(keys.publicKey, options)
  // The key's hash in the name: an old and a new CA that are both trusted while one replaces the other differ in it.
  const suffix = createHash('sha256').update(keys.publicKeyPem).digest('hex').slice(0, 8)
  const name = [{ name: 'commonName', value: `${COMMON_NAME} serving CA ${suffix}` }]
  certificate.setSubject(name)
  certificate.setIssuer(name)
  certificate.setExtensions([
    { name: 'basicConstraints', critical: true, cA: true, pathLenConstraint: 0 },
    { name: 'keyUsage', critical: true, keyCertSign: true, cRLSign: true },
    { name: 'subjectKeyIdentifier' },
  ])
  certificate.sign(keys.privateKey, forge.md.sha256.create())
  return { certificatePem: forge.pki.certificateToPem(certificate), privateKeyPem: keys.privateKeyPem }
}

/**
 * A TLS server certificate with a fresh key for the DNS names and IP addresses given, valid for `lifetimeSeconds` from
 * `now` (seconds since the epoch). Throws AuthorityError `authority-serving`.
 */
export function issueServingCertificate(
  authority: ServingAuthority,
  options: { names: readonly string[]; addresses: readonly string[]; now: number; lifetimeSeconds: number },
): ServingCertificate {
  if (options.names.length + options.addresses.length === 0) {
    throw new AuthorityError('authority-serving', 'names and addresses are both empty; give at least one.')
  }
  const wrong = options.addresses.find((address) => isIP(address) === 0 || address.includes('%'))
  if (wrong !== undefined) throw new AuthorityError('authority-serving', `addresses: ${wrong} is no IP address.`)
  const { certificate: caCertificate, privateKey: caKey } = parseAuthority(authority)
  const keys = createKeyPair()
  const certificate = prepareCertificate(keys.publicKey, options)
  certificate.setSubject([{ name: 'commonName', value: COMMON_NAME }])
  certificate.setIssuer(caCertificate.subject.attributes)
  certificate.setExtensions([
    { name: 'basicConstraints', critical: true, cA: false },
    { name: 'keyUsage', critical: true, digitalSignature: true, keyEncipherment: true },
    { name: 'extKeyUsage', serverAuth: true },
    {
      name: 'subjectAltName',
      altNames: [
        ...options.names.map((value) => ({ type: 2, value })),
        ...options.addresses.map((ip) => ({ type: 7, ip })),
      ],
    },
    { name: 'subjectKeyIdentifier' },
    { name: 'authorityKeyIdentifier', keyIdentifier: caCertificate.generateSubjectKeyIdentifier().getBytes() },
  ])
  certificate.sign(caKey, forge.md.sha256.create())
  return { certificatePem: forge.pki.certificateToPem(certificate), privateKeyPem: keys.privateKeyPem }
}

function parseAuthority(authority: ServingAuthority) {
  try {
    return {
      certificate: forge.pki.certificateFromPem(authority.certificatePem),
      privateKey: forge.pki.privateKeyFromPem(authority.privateKeyPem),
    }
  } catch {
    // No cause: it may quote the key.
    throw new AuthorityError('authority-serving', 'The serving CA is not a PEM certificate and RSA private key.')
  }
}

function createKeyPair() {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', {
    modulusLength: RSA_BITS,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
  return {
    publicKey: forge.pki.publicKeyFromPem(publicKey),
    publicKeyPem: publicKey,
    privateKey: forge.pki.privateKeyFromPem(privateKey),
    privateKeyPem: privateKey,
  }
}

function prepareCertificate(
  publicKey: forge.pki.rsa.PublicKey,
  options: { now: number; lifetimeSeconds: number },
): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = publicKey
  certificate.serialNumber = createSerial()
  certificate.validity.notBefore = new Date((options.now - BACKDATE_SECONDS) * 1_000)
  certificate.validity.notAfter = new Date((options.now + options.lifetimeSeconds) * 1_000)
  return certificate
}

/** 16 random bytes in hex: positive (RFC 5280, section 4.1.2.2), and without a leading zero byte, as DER wants it. */
function createSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}
