import type { KeyObject } from 'node:crypto'
import { generateKeyPairSync } from 'node:crypto'
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { V1Namespace, V1Pod } from '@kubernetes/client-node'
import { pino } from 'pino'
import { type AcknowledgeRequest, HEADER_PROOF, HEADER_WIT, type StreamMessage } from '../../../api/identity.ts'
import { LABEL_INJECT } from '../../../api/names.ts'
import { createSigningKey, type SigningKey } from '../../../certs/authority.ts'
import { createRequestProof, createTokenProof } from '../../../certs/possession.ts'
import type { Keyring, RingKey } from '../../../certs/rotation/keyring.ts'
import { createServingAuthority, issueServingCertificate } from '../../../certs/serving.ts'
import { inject } from '../../../webhook/admission/inject.ts'
import type { SpecifiedPod } from '../../../webhook/admission/pod.ts'
import { DEFAULT_INJECTION_SETTINGS, type InjectionSettings } from '../../../webhook/admission/settings.ts'
import type { EventToWrite } from '../../../webhook/events.ts'
import { createAuthority } from '../../../webhook/issuer/authority.ts'
import { createMemoryCluster } from '../../../webhook/memory-cluster.ts'
import { createServer } from '../../../webhook/server.ts'
import { createWebhookSettings, type WebhookSettings } from '../../../webhook/settings.ts'

export const INJECTION: InjectionSettings = {
  ...DEFAULT_INJECTION_SETTINGS,
  image: 'registry.test/sidecar:1',
  issuerUrl: 'https://10.96.0.9:443',
  issuerName: 'localhost',
}
export const NAMESPACE_LABELS = { 'kubernetes.io/metadata.name': 'shop', [LABEL_INJECT]: 'enabled' }

export function namespace(name = 'shop', labels: Record<string, string> = NAMESPACE_LABELS): V1Namespace {
  return { metadata: { name, labels } }
}

export interface PodChanges {
  readonly name?: string
  readonly namespace?: string
  readonly uid?: string
  readonly labels?: Record<string, string>
  readonly annotations?: Record<string, string>
  readonly addresses?: readonly string[]
  readonly phase?: string
  readonly ready?: boolean
  readonly hostNetwork?: boolean
  readonly deletionTimestamp?: Date
}

/** An ordinary Pod, as the API server and the kubelet would show it once it runs. */
export function plainPod(changes: PodChanges = {}): SpecifiedPod {
  const { name = 'web', labels = { app: name }, addresses = ['127.0.0.1'], deletionTimestamp } = changes
  return {
    metadata: {
      name,
      namespace: changes.namespace ?? 'shop',
      uid: changes.uid ?? `uid-${name}`,
      labels,
      ...(changes.annotations === undefined ? {} : { annotations: changes.annotations }),
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    spec: {
      nodeName: 'node-1',
      serviceAccountName: 'web',
      ...(changes.hostNetwork === undefined ? {} : { hostNetwork: changes.hostNetwork }),
      containers: [{ name: 'app', ports: [{ name: 'http', containerPort: 8080 }, { containerPort: 9090 }] }],
    },
    status: {
      phase: changes.phase ?? 'Running',
      podIPs: addresses.map((ip) => ({ ip })),
      conditions: [{ type: 'Ready', status: (changes.ready ?? true) ? 'True' : 'False' }],
    },
  }
}

/** The Pod as our own admission lets it in. */
export function guardedPod(changes: PodChanges = {}): V1Pod {
  const facts = { name: changes.namespace ?? 'shop', labels: NAMESPACE_LABELS, annotations: {} }
  const result = inject(plainPod(changes), facts, INJECTION)
  if (result.kind !== 'injected') throw new Error(`the fixture is not injected: ${result.reason}`)
  return result.pod
}

const seconds = () => Math.floor(Date.now() / 1_000)

/** A CA and a certificate for localhost; RSA keys take their time, so only tests with a server make them, and once. */
function createServing() {
  const times = { now: seconds(), lifetimeSeconds: 3_600 }
  const ca = createServingAuthority(times)
  return { ca, certificate: issueServingCertificate(ca, { names: ['localhost'], addresses: [], ...times }) }
}
let serving: ReturnType<typeof createServing> | undefined

/** What a replica holds of its keys, set by a test. */
function createTestKeys(key: SigningKey) {
  let generation = 1
  let isCurrent = true
  let ring = keyringOf([key], generation)
  return {
    current: () => (isCurrent ? ring : undefined),
    last: () => ring,
    /** The first of them signs. */
    set(keys: readonly SigningKey[], more: Partial<RingKey<SigningKey>> = {}) {
      ring = keyringOf(keys, ++generation, more)
    },
    /** As where the API server was away for too long. */
    setCurrent(value: boolean) {
      isCurrent = value
    },
  }
}

function keyringOf(
  keys: readonly SigningKey[],
  generation: number,
  more: Partial<RingKey<SigningKey>> = {},
): Keyring<SigningKey> {
  const common = { generation, since: 0, lifetimeSeconds: 86_400 }
  const stateOf = (index: number) => (index === 0 ? 'active' : 'previous')
  return {
    generation,
    keys: keys.map((material, index) => {
      return { id: material.kid, material, state: stateOf(index), ...common, ...(index === 0 && more) }
    }),
  }
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: unknown
}

export interface Identity {
  readonly privateKey: KeyObject
  readonly wit: string
}

/** A webhook that listens on 127.0.0.1 over a cluster in memory, and what a sidecar does with it. */
export async function startWebhook(changes: Partial<WebhookSettings> & { podWaitMs?: number } = {}) {
  const { podWaitMs = 100, ...settingChanges } = changes
  serving ??= createServing()
  const { ca, certificate } = serving
  let offsetSeconds = 0
  const now = () => seconds() + offsetSeconds
  const cluster = createMemoryCluster({ now })
  const key = createSigningKey()
  const keys = createTestKeys(key)
  const authority = createAuthority(keys)
  const logLines: string[] = []
  const log = pino({ level: 'debug' }, { write: (line: string) => void logLines.push(line) })
  const settings = createWebhookSettings({
    host: '127.0.0.1',
    port: 0,
    healthPort: 0,
    directoryDelayMs: 5,
    ...settingChanges,
  })
  const acknowledged: (readonly [uid: string, held: AcknowledgeRequest])[] = []
  const acknowledge = (uid: string, held: AcknowledgeRequest) => void acknowledged.push([uid, held])
  const events: EventToWrite[] = []
  const options = {
    cluster,
    authority,
    acknowledge,
    refusals: { record: (event: EventToWrite) => void events.push(event) },
    tls: certificate,
    settings,
    injection: INJECTION,
    log,
    now,
    podWaitMs,
  }
  const server = createServer(options)
  const { port, healthPort } = await server.listen()
  const openStreams = new Set<IncomingMessage>()

  function open(method: string, path: string, more: RequestOptions = {}): Promise<IncomingMessage> {
    const { headers = {}, body, localAddress = '127.0.0.1' } = more
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
    return new Promise((resolve, reject) => {
      const target = { host: '127.0.0.1', port, servername: 'localhost', ca: ca.certificatePem, agent: false }
      const outgoing = httpsRequest({ ...target, localAddress, method, path, headers }, resolve)
      outgoing.on('error', reject)
      outgoing.end(text)
    })
  }

  async function send(method: string, path: string, more: RequestOptions = {}): Promise<Answer> {
    const response = await open(method, path, more)
    const text = (await response.toArray()).join('')
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      body: text === '' ? undefined : JSON.parse(text),
    }
  }

  async function identityBody(token: string, privateKey = createPrivateKey()) {
    return { token, proof: await createTokenProof(privateKey, { token, now: now() }) }
  }

  async function identify(podName = 'web', localAddress = '127.0.0.1'): Promise<Identity> {
    const privateKey = createPrivateKey()
    const token = cluster.mintToken({ namespace: 'shop', podName, audience: 'synguard' })
    const body = await identityBody(token, privateKey)
    const answer = await send('POST', '/v1/identity', { body, localAddress })
    if (answer.status !== 200) throw new Error(`no identity: ${JSON.stringify(answer.body)}`)
    return { privateKey, wit: (answer.body as { wit: string }).wit }
  }

  async function prove({ privateKey, wit }: Identity, htu: string): Promise<OutgoingHttpHeaders> {
    return { [HEADER_WIT]: wit, [HEADER_PROOF]: await createRequestProof(privateKey, { htu, now: now() }) }
  }

  async function stream(identity: Identity, addresses: readonly string[] = [], localAddress = '127.0.0.1') {
    const headers = await prove(identity, '/v1/stream')
    const response = await open('POST', '/v1/stream', { headers, body: { bundle: [], addresses }, localAddress })
    openStreams.add(response)
    return { status: response.statusCode, ...readMessages(response) }
  }

  return {
    cluster,
    certificate,
    caPem: ca.certificatePem,
    authority,
    /** The same key, and others beside it, as a later keyring. */
    setKeys(others: readonly SigningKey[]) {
      keys.set([key, ...others])
      authority.announce()
    },
    keys,
    acknowledged,
    events,
    server,
    settings,
    key,
    port,
    healthPort,
    logLines,
    now,
    passSeconds: (count: number) => {
      offsetSeconds += count
    },
    open,
    send,
    identityBody,
    identify,
    prove,
    stream,
    async close() {
      for (const response of openStreams) response.destroy()
      await server.close()
    },
  }
}
export type Webhook = Awaited<ReturnType<typeof startWebhook>>

export interface RequestOptions {
  readonly headers?: OutgoingHttpHeaders
  readonly body?: unknown
  readonly localAddress?: string
}

export function createPrivateKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

/** The messages of a stream one by one; `ended` resolves at its end. */
function readMessages(response: IncomingMessage) {
  const messages: StreamMessage[] = []
  const waiting: ((message: StreamMessage | undefined) => void)[] = []
  let rest = ''
  response.setEncoding('utf8')
  response.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const message: StreamMessage = JSON.parse(line)
      const next = waiting.shift()
      if (next === undefined) messages.push(message)
      else next(message)
    }
  })
  const ended = new Promise<void>((resolve) => {
    response.on('close', () => {
      for (const next of waiting.splice(0)) next(undefined)
      resolve()
    })
  })
  return {
    ended,
    /** undefined at the stream's end. */
    next: () =>
      new Promise<StreamMessage | undefined>((resolve) => {
        const message = messages.shift()
        if (message !== undefined) resolve(message)
        else if (response.closed) resolve(undefined)
        else waiting.push(resolve)
      }),
    close: () => response.destroy(),
  }
}
