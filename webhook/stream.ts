import type { ServerResponse } from 'node:http'
import type { V1Pod } from '@kubernetes/client-node'
import type { AcknowledgeRequest, Mode, PodIdentity, StreamMessage, StreamRequest, VoidEntry } from '../api/identity.ts'
import { ROTATION_KEYS_MAX } from '../certs/limits.ts'
import type { VerifiedWit } from '../certs/wit.ts'
import { canonicalAddress } from '../policy/address.ts'
import type { Cluster } from './cluster.ts'
import type { Directory } from './directory/directory.ts'
import { isLive, podIdentity } from './directory/pod-identity.ts'
import { WebhookError } from './errors.ts'
import type { Authority } from './issuer/authority.ts'
import { sameLabels } from './issuer/outdated.ts'
import type { VoidList } from './issuer/voids.ts'
import {
  HELLO_VOIDS_CHARACTERS,
  STREAM_ADDRESSES,
  STREAM_BACKLOG_BYTES,
  STREAM_KIDS,
  STREAMS,
  STREAMS_PER_POD,
} from './limits.ts'
import { stricterMode } from './mode.ts'
import type { WebhookSettings } from './settings.ts'

/** The open streams of sidecars: each hears what concerns its Pod and the addresses it asked for. */
export interface Streams {
  /** Answers a request with a stream. Throws WebhookError, with nothing written. */
  open(caller: VerifiedWit, request: StreamRequest, response: ServerResponse): void
  /** Lets the Pod's streams on this replica hear of an address that it asked for. */
  watch(uid: string, address: string): void
  count(): number
  /** Ends every stream and hears of nothing more. */
  close(): void
}

export interface StreamsOptions {
  readonly cluster: Cluster
  readonly directory: Directory
  readonly authority: Authority
  readonly voids: VoidList
  readonly settings: WebhookSettings
  /** Where a namespace says nothing. */
  readonly defaultMode: Mode
  readonly random: () => number
  /** Hears which keys a Pod's sidecar holds. */
  readonly acknowledge: (uid: string, held: AcknowledgeRequest) => void
}

interface Stream {
  readonly uid: string
  readonly namespace: string
  readonly podName: string
  readonly response: ServerResponse
  /** What the directory last said of each address that this stream asked for; undefined before it was sent. */
  readonly sent: Map<string, string | undefined>
  /** Addresses whose entry may have changed since. */
  readonly dirty: Set<string>
  identity: PodIdentity
  mode: Mode
}

/** Spread of a stream's life, so that streams opened together do not end together. */
const LIFETIME_JITTER = 0.2

export function createStreams(options: StreamsOptions): Streams {
  const { cluster, directory, authority, voids, settings, defaultMode, random, acknowledge } = options
  const byUid = new Map<string, Set<Stream>>()
  const watchers = new Map<string, Set<Stream>>()
  const dirtyStreams = new Set<Stream>()
  let count = 0
  let flushTimer: NodeJS.Timeout | undefined

  function send(stream: Stream, message: StreamMessage): void {
    if (stream.response.writableEnded) return
    stream.response.write(`${JSON.stringify(message)}\n`)
    // Messages other than directory entries must not be lost; who does not read them starts again with a hello.
    if (stream.response.writableLength > STREAM_BACKLOG_BYTES) stream.response.destroy()
  }

  function broadcast(message: StreamMessage): void {
    for (const stream of all()) send(stream, message)
  }

  function all(): Stream[] {
    return [...byUid.values()].flatMap((streams) => [...streams])
  }

  function watchAddress(stream: Stream, address: string): void {
    if (stream.sent.has(address)) return
    // A sidecar that asks for more starts a new stream with the addresses that it still needs.
    if (stream.sent.size >= STREAM_ADDRESSES) {
      endStream(stream)
      return
    }
    stream.sent.set(address, undefined)
    const streams = watchers.get(address)
    if (streams === undefined) watchers.set(address, new Set([stream]))
    else streams.add(stream)
  }

  function markDirty(stream: Stream, address: string): void {
    stream.dirty.add(address)
    dirtyStreams.add(stream)
    flushTimer ??= setTimeout(flush, settings.directoryDelayMs)
  }

  function flush(): void {
    flushTimer = undefined
    for (const stream of [...dirtyStreams]) sendEntries(stream)
  }

  /** Sends changed entries as far as the connection takes them, the rest when it drains. */
  function sendEntries(stream: Stream): void {
    for (const address of [...stream.dirty]) {
      if (stream.response.writableNeedDrain) return
      stream.dirty.delete(address)
      const entry = directory.lookup(address)
      const text = JSON.stringify(entry)
      if (stream.sent.get(address) === text) continue
      stream.sent.set(address, text)
      send(stream, { type: 'directory', address, entry })
    }
    dirtyStreams.delete(stream)
  }

  function remove(stream: Stream): void {
    const streams = byUid.get(stream.uid)
    if (streams?.delete(stream) !== true) return
    count--
    if (streams.size === 0) byUid.delete(stream.uid)
    for (const address of stream.sent.keys()) {
      const others = watchers.get(address)
      others?.delete(stream)
      if (others?.size === 0) watchers.delete(address)
    }
    dirtyStreams.delete(stream)
  }

  function endStream(stream: Stream): void {
    remove(stream)
    stream.response.end()
  }

  /** What changed about the Pod of a stream goes to it; a stream without its Pod ends. */
  function review(stream: Stream): void {
    const found = findPod(stream.namespace, stream.podName, stream.uid)
    if (found === undefined) {
      endStream(stream)
      return
    }
    if (needsRenewal(stream.identity, found.identity)) send(stream, { type: 'renew' })
    if (found.mode !== stream.mode) send(stream, { type: 'mode', mode: found.mode })
    stream.identity = found.identity
    stream.mode = found.mode
  }

  function findPod(namespaceName: string, name: string, uid: string) {
    const pod = cluster.get('Pod', name, namespaceName)
    const namespace = cluster.get('Namespace', namespaceName)
    if (pod === undefined || namespace === undefined || pod.metadata?.uid !== uid || !isLive(pod)) return undefined
    const ofNamespace = namespace.metadata?.annotations
    const mode = stricterMode(pod.metadata.annotations, ofNamespace, defaultMode)
    return { identity: podIdentity(pod, namespace, true), mode }
  }

  const subscriptions = [
    cluster.subscribe(({ kind, before, after }) => {
      if (kind === 'Pod') {
        const uids = [(before as V1Pod | undefined)?.metadata?.uid, (after as V1Pod | undefined)?.metadata?.uid]
        for (const uid of new Set(uids)) for (const stream of [...(byUid.get(uid ?? '') ?? [])]) review(stream)
      } else if (kind === 'Namespace') {
        const name = (after ?? before)?.metadata?.name
        for (const stream of all()) if (stream.namespace === name) review(stream)
      }
    }),
    directory.subscribe((addresses) => {
      for (const address of addresses) for (const stream of watchers.get(address) ?? []) markDirty(stream, address)
    }),
    authority.subscribe((bundle) => broadcast({ type: 'bundle', bundle })),
    voids.subscribe((entry) => {
      broadcast({ type: 'void', void: entry })
      // Its WIT is worth nothing any more: the Pod authenticates anew, and is told so by the void itself.
      if (entry.labels !== undefined || entry.namespaceLabels !== undefined) return
      for (const stream of [...(byUid.get(entry.uid) ?? [])]) endStream(stream)
    }),
  ]

  return {
    open(caller, request, response) {
      const { namespace, name: podName, uid } = caller.identity
      const found = findPod(namespace, podName, uid)
      if (found === undefined) throw new WebhookError('pod-unknown', 'The Pod of this identity is gone.')
      if (count >= STREAMS) throw new WebhookError('busy', 'Too many streams are open.')
      const bundle = authority.bundle()
      if (request.acknowledge !== undefined) acknowledge(uid, request.acknowledge)
      const streams = byUid.get(uid) ?? new Set<Stream>()
      const [oldest] = streams
      if (streams.size >= STREAMS_PER_POD && oldest !== undefined) {
        endStream(oldest)
      }
      const stream: Stream = { uid, namespace, podName, response, sent: new Map(), dirty: new Set(), ...found }
      byUid.set(uid, streams.add(stream))
      count++
      const ping = setInterval(() => send(stream, { type: 'ping' }), settings.streamPingMs)
      const lifetimeMs = settings.streamLifetimeMs * (1 + LIFETIME_JITTER * (2 * random() - 1))
      const end = setTimeout(() => endStream(stream), lifetimeMs)
      const stop = () => {
        clearInterval(ping)
        clearTimeout(end)
        remove(stream)
      }
      response.on('close', stop).on('error', stop)
      response.on('drain', () => sendEntries(stream))
      response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
      const [first, rest] = splitVoids(voids.entries())
      send(stream, { type: 'hello', bundle, voids: first, mode: found.mode })
      for (const entry of rest) send(stream, { type: 'void', void: entry })
      if (needsRenewal(caller.identity, found.identity)) send(stream, { type: 'renew' })
      for (const address of request.addresses) {
        watchAddress(stream, address)
        markDirty(stream, address)
      }
    },
    watch(uid, address) {
      for (const stream of [...(byUid.get(uid) ?? [])]) watchAddress(stream, address)
    },
    count: () => count,
    close() {
      for (const unsubscribe of subscriptions) unsubscribe()
      clearTimeout(flushTimer)
      for (const stream of all()) endStream(stream)
    },
  }
}

/** What fits into the line of a hello, and the rest; revocations come first. */
function splitVoids(entries: readonly VoidEntry[]): readonly [VoidEntry[], VoidEntry[]] {
  const sorted = [...entries].sort(
    (one, other) => Number(one.labels !== undefined) - Number(other.labels !== undefined),
  )
  let characters = 0
  const end = sorted.findIndex((entry) => {
    characters += JSON.stringify(entry).length + 1
    return characters > HELLO_VOIDS_CHARACTERS
  })
  return end < 0 ? [sorted, []] : [sorted.slice(0, end), sorted.slice(end)]
}

/** A StreamRequest out of JSON. Throws WebhookError `request-invalid`. */
export function parseStreamRequest(body: unknown): StreamRequest {
  const { bundle, addresses, acknowledge } = asFields(body)
  if (!isTextList(bundle, STREAM_KIDS)) {
    throw new WebhookError('request-invalid', `bundle must be a list of at most ${STREAM_KIDS} kids.`)
  }
  if (!isTextList(addresses, STREAM_ADDRESSES)) {
    throw new WebhookError('request-invalid', `addresses must be a list of at most ${STREAM_ADDRESSES} addresses.`)
  }
  if (addresses.some((address) => canonicalAddress(address) !== address)) {
    throw new WebhookError('request-invalid', 'addresses must be IP addresses in canonical text.')
  }
  return { bundle, addresses, ...(acknowledge !== undefined && { acknowledge: parseAcknowledgeRequest(acknowledge) }) }
}

/** An AcknowledgeRequest out of JSON. Throws WebhookError `request-invalid`. */
export function parseAcknowledgeRequest(body: unknown): AcknowledgeRequest {
  const { generation, authorities } = asFields(body)
  if (!isTextList(authorities, ROTATION_KEYS_MAX) || !authorities.every((id) => /^[0-9a-f]{64}$/.test(id))) {
    throw new WebhookError(
      'request-invalid',
      `authorities must be a list of at most ${ROTATION_KEYS_MAX} fingerprints.`,
    )
  }
  return { authorities, ...(generation !== undefined && { generation: readGeneration(generation) }) }
}

function asFields(body: unknown): Record<string, unknown> {
  return (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
}

function readGeneration(value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw new WebhookError('request-invalid', 'generation must be a whole number from 0 on.')
}

function isTextList(value: unknown, max: number): value is string[] {
  return Array.isArray(value) && value.length <= max && value.every((item) => typeof item === 'string')
}

function needsRenewal(shown: PodIdentity, current: PodIdentity): boolean {
  return !(
    sameLabels(shown.labels, current.labels) &&
    sameLabels(shown.namespaceLabels, current.namespaceLabels) &&
    JSON.stringify([shown.ports, shown.addresses, shown.degraded]) ===
      JSON.stringify([current.ports, current.addresses, current.degraded])
  )
}
