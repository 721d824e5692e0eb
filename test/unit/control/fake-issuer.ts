import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { IdentityRequest, PodIdentity } from '../../../api/identity.ts'
import { createSigningKey, type SigningKey, trustBundle } from '../../../certs/authority.ts'
import { verifyTokenProof } from '../../../certs/possession.ts'
import type { ServingAuthority, ServingCertificate } from '../../../certs/serving.ts'
import { issueWit } from '../../../certs/wit.ts'
import { createIssuerHttp, type IssuerHttp } from '../../../sidecar/control/issuer-http.ts'
import type { LogSink } from '../../../sidecar/control/log.ts'

export const ISSUER_NAME = 'synguard-webhook.synguard-system.svc'
export const ISSUER = 'https://issuer.test'
export const TRUST_DOMAIN = 'cluster.local'
export const TOKEN = 'projected-token-1'

const seconds = () => Math.floor(Date.now() / 1000)

interface Made {
  readonly authority: ServingAuthority
  readonly other: ServingAuthority
  readonly certificates: readonly ServingCertificate[]
}

const program = fileURLToPath(new URL('./make-certificates.ts', import.meta.url))
const made = JSON.parse(
  execFileSync(process.execPath, ['--no-warnings', program, ISSUER_NAME, 'other.test'], { encoding: 'utf8' }),
) as Made

/** The authority that the client trusts, and one that it does not. */
export const { authority, other } = made

export const podIdentity: PodIdentity = {
  namespace: 'shop',
  name: 'api-0',
  uid: 'uid-api-0',
  serviceAccount: 'api',
  labels: { app: 'api' },
  namespaceLabels: { team: 'shop' },
  addresses: ['10.244.0.7'],
  ports: [],
}

export type Handler = (request: IncomingMessage, response: ServerResponse, body: string) => void | Promise<void>

export interface FakeIssuer {
  readonly port: number
  /** Folder as the projected volume is: token, ca.crt. */
  readonly credentials: string
  readonly http: IssuerHttp
  /** `endpoint code` of each request. */
  readonly results: string[]
  handle(handler: Handler): void
  close(): Promise<void>
}

/** A real HTTPS server on 127.0.0.1 with a certificate of ISSUER_NAME, and a client that trusts it. */
export async function startFakeIssuer(options: { otherName?: boolean } = {}): Promise<FakeIssuer> {
  const serving = made.certificates[options.otherName === true ? 1 : 0]
  if (serving === undefined) throw new Error('no certificate was made')
  let current: Handler = (_, response) => void response.writeHead(500).end()
  const server = createServer({ key: serving.privateKeyPem, cert: serving.certificatePem }, (request, response) => {
    let body = ''
    request.setEncoding('utf8').on('data', (part: string) => {
      body += part
    })
    request.on('end', () => void current(request, response, body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const credentials = mkdtempSync(join(tmpdir(), 'synguard-control-'))
  writeFileSync(join(credentials, 'token'), `${TOKEN}\n`)
  writeFileSync(join(credentials, 'ca.crt'), authority.certificatePem)
  const results: string[] = []
  const http = createIssuerHttp({
    address: '127.0.0.1',
    port,
    name: ISSUER_NAME,
    caPath: join(credentials, 'ca.crt'),
    now: Date.now,
    onResult: (endpoint, code) => void results.push(`${endpoint} ${code}`),
  })
  return {
    port,
    credentials,
    http,
    results,
    handle(handler) {
      current = handler
    },
    async close() {
      http.close()
      await new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
      rmSync(credentials, { recursive: true })
    },
  }
}

export function json(
  response: ServerResponse,
  body: unknown,
  status = 200,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}

/** A handler of /v1/identity that checks token and proof, and signs for the proof's key. */
export function issueIdentity(
  key: SigningKey,
  changes: { identity?: PodIdentity; lifetimeSeconds?: number } = {},
): Handler {
  let count = 0
  return async (request, response, body) => {
    const { token, proof } = JSON.parse(body) as IdentityRequest
    if (request.method !== 'POST' || request.url !== '/v1/identity' || token !== TOKEN) {
      return json(response, { error: { code: 'token', message: 'not the token' } }, 401)
    }
    const { jwk } = await verifyTokenProof(proof, token, seconds())
    count += 1
    const wit = await issueWit(key, {
      identity: changes.identity ?? podIdentity,
      cnf: jwk,
      trustDomain: TRUST_DOMAIN,
      issuer: ISSUER,
      issuedAt: seconds(),
      lifetimeSeconds: changes.lifetimeSeconds ?? 3600,
      jti: `jti-for-the-test-${count}`,
    })
    json(response, { wit, bundle: trustBundle([key]) })
  }
}

export { createSigningKey }

/** A log that keeps what it is told. */
export function createKeptLog(): { readonly log: LogSink; readonly lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = []
  const keep = (level: string) => (fields: object, msg: string) => void lines.push({ level, ...fields, msg })
  const log = { info: keep('info'), warn: keep('warn'), error: keep('error') } as unknown as LogSink
  return { log, lines }
}

/** Waits, at most 5 s, until `holds`. */
export async function until(holds: () => boolean): Promise<void> {
  const end = Date.now() + 5000
  while (!holds()) {
    if (Date.now() > end) throw new Error('what the test waits for did not come within 5 s')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
