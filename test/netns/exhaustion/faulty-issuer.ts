/**
 * Loaded into the lab's webhook before all else: puts a fault before the issuer's answers, with the right certificate
 * and at the right place. Which one stands in the file that the module's URL names (`?fault=PATH`); empty is none.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import https from 'node:https'
import { syncBuiltinESMExports } from 'node:module'
import type { IdentityRequest, PodIdentity } from '../../../api/identity.ts'
import { createSigningKey, trustBundle } from '../../../certs/authority.ts'
import { verifyTokenProof } from '../../../certs/possession.ts'
import { issueWit } from '../../../certs/wit.ts'

export const FAULTS = [
  'slow',
  'status',
  'garbage',
  'wrong-key',
  'wrong-issuer',
  'other-pod',
  'endless-body',
  'endless-line',
  'silent',
] as const
export type Fault = (typeof FAULTS)[number]

const SLOW_MILLISECONDS = 10_000
const CHUNK = Buffer.alloc(64 << 10, ' ')
/** The lab's own. */
const TRUST = { trustDomain: 'cluster.local', issuer: 'https://synguard-webhook.synguard-system.svc' }

const key = createSigningKey()
const another = createSigningKey()

function currentFault(path: string): Fault | undefined {
  const text = readFileSync(path, 'utf8').trim()
  return FAULTS.find((fault) => fault === text)
}

/** Writes as fast as it is read, until the other end has had enough. */
function writeForEver(response: ServerResponse): void {
  const more = (): void => {
    while (!response.destroyed && response.write(CHUNK));
  }
  response.on('drain', more)
  more()
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

/** Each wrong answer is wrong in one thing that is looked at before the Pod that it names. */
const SOMEBODY: PodIdentity = {
  namespace: 'guarded',
  name: 'somebody-else',
  uid: 'another-uid',
  serviceAccount: 'default',
  labels: { app: 'known' },
  namespaceLabels: {},
  addresses: ['10.244.77.77'],
  ports: [],
}

async function answerWrongly(fault: Fault, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { token, proof } = JSON.parse(await readBody(request)) as IdentityRequest
  const issuedAt = Math.floor(Date.now() / 1_000)
  const { jwk } = await verifyTokenProof(proof, token, issuedAt)
  const wit = await issueWit(key, {
    identity: SOMEBODY,
    cnf: jwk,
    ...TRUST,
    ...(fault === 'wrong-issuer' && { issuer: 'https://somebody.else' }),
    issuedAt,
    lifetimeSeconds: 3_600,
    jti: createHash('sha256').update(proof).digest('base64url'),
  })
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ wit, bundle: trustBundle([fault === 'wrong-key' ? another : key]) }))
}

function misbehave(fault: Fault, request: IncomingMessage, response: ServerResponse, well: () => void): void {
  const isStream = request.url === '/v1/stream'
  if (fault === 'slow') return void setTimeout(well, SLOW_MILLISECONDS)
  if (fault === 'silent') return
  if (fault === 'endless-line') {
    if (!isStream) return well()
    response.writeHead(200, { 'content-type': 'application/x-ndjson' }).write('{"type":"hello"')
    return writeForEver(response)
  }
  // The others concern the identity alone.
  if (request.url !== '/v1/identity') return well()
  if (fault === 'status') return void response.writeHead(500, { 'content-type': 'text/html' }).end('<h1>no</h1>')
  if (fault === 'garbage') return void response.writeHead(200).end('{"wit": "not quite')
  if (fault === 'endless-body') {
    response.writeHead(200, { 'content-type': 'application/json' })
    return writeForEver(response)
  }
  answerWrongly(fault, request, response).catch((error) => response.destroy(error as Error))
}

const path = new URL(import.meta.url).searchParams.get('fault')
if (path !== null) {
  const streams = new Set<ServerResponse>()
  let last: Fault | undefined
  // Streams that are open would not notice: they end where a fault for them begins.
  setInterval(() => {
    const fault = currentFault(path)
    if (fault !== last && (fault === 'endless-line' || fault === 'silent'))
      for (const stream of streams) stream.destroy()
    last = fault
  }, 50).unref()
  const createServer = https.createServer
  https.createServer = ((options: https.ServerOptions, listener: RequestListener) =>
    createServer(options, (request, response) => {
      if (request.url === '/v1/stream') {
        streams.add(response)
        response.on('close', () => streams.delete(response))
      }
      const well = (): void => void listener(request, response)
      const fault = request.url?.startsWith('/v1/') ? currentFault(path) : undefined
      if (fault === undefined) well()
      else misbehave(fault, request, response, well)
    })) as typeof https.createServer
  syncBuiltinESMExports()
}
