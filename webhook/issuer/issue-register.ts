import { createHash } from 'node:crypto'
import type { V1Pod } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { PodIdentity } from '../../api/identity.ts'
import { pause } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import type { Cluster } from '../cluster.ts'
import { isLive } from '../directory/pod-identity.ts'
import { WebhookError } from '../errors.ts'
import { persist } from '../kubernetes/retry.ts'
import { REGISTER_SHARDS } from '../limits.ts'
import { putEntries, readEntries } from './config-map.ts'
import { labelsOf, livePods, namespaceOf, type VoidStore } from './void-store.ts'
import type { VoidList } from './voids.ts'

/**
 * Which Pods have a WIT, and what labels the last one names, in ConfigMaps. It tells a replica that starts what nobody saw
 * while none ran: a Pod that ended or was relabelled since.
 */
export interface IssueRegister {
  /** Compares the register with the cluster, and makes the voids that are missing; resolves where that is done. */
  start(): Promise<void>
  synced(): boolean
  /** Resolves once the register has it; a WIT may be handed out only then. Rejects with `cluster-unavailable`. */
  record(identity: PodIdentity): Promise<void>
  stop(): Promise<void>
}

export interface IssueRegisterOptions {
  readonly client: ApiClient
  readonly namespace: string
  /** Of the ConfigMaps, which have a hexadecimal digit behind it. */
  readonly name: string
  readonly cluster: Cluster
  readonly voids: VoidList
  readonly store: Pick<VoidStore, 'settled'>
  readonly log: Logger
  /** Seconds since the epoch. */
  readonly now: () => number
  /** From 0 up to 1. */
  readonly random: () => number
}

/** What the register holds of a Pod: `DIGEST NAMESPACE/NAME`. */
interface Registered {
  readonly uid: string
  readonly digest: string
  readonly namespace: string
  readonly name: string
}

/** Pods of which the API server is asked at once, where the register and the cluster differ. */
const PARALLEL = 8
/** Both replicas see a Pod end; whoever comes later has nothing left to write. */
const FORGET_MS = 2_000
const RESYNC_MS = 30 * 60_000

export function createIssueRegister(options: IssueRegisterOptions): IssueRegister {
  const { client, namespace, name, cluster, voids, store, log, now, random } = options
  const stopping = new AbortController()
  const { signal } = stopping
  /** What this replica wrote or read; another's may be newer, which then is written again. */
  const known = new Map<string, string>()
  const batches = Array.from({ length: REGISTER_SHARDS }, (_, shard) =>
    createBatch((data) => putEntries(client, { namespace, name: shardName(name, shard), data, signal })),
  )
  let compared = false
  let timer: NodeJS.Timeout | undefined

  async function write(uid: string, value: string | null): Promise<void> {
    await batches[shardOf(uid)]?.put(uid, value)
    if (value === null) known.delete(uid)
    else known.set(uid, value)
  }

  async function readShard(shard: number): Promise<Registered[]> {
    const data = (await readEntries(client, { namespace, name: shardName(name, shard), signal })) ?? {}
    return Object.entries(data).map(([uid, value]) => parseRegistered(uid, value))
  }

  /** The Pod as the API server has it: the mirror may be behind what another replica registered. */
  async function readPod({ uid, namespace: at, name: pod }: Registered): Promise<V1Pod | undefined> {
    if (at === '') return livePods(cluster).get(uid)
    const found = await cluster.read('Pod', pod, at)
    return found?.metadata?.uid === uid && isLive(found) ? found : undefined
  }

  /** Voids what differs from the cluster. */
  async function compare(one: Registered): Promise<void> {
    const pod = await readPod(one)
    if (pod === undefined) return voids.merge(one.uid, { ended: now() })
    const labels = labelsOf(pod, await cluster.read('Namespace', pod.metadata?.namespace ?? ''))
    if (digestOf(labels) === one.digest) return
    log.info({ namespace: one.namespace, pod: one.name }, 'labels changed while no replica ran')
    voids.merge(one.uid, { relabelled: now() }, labels)
  }

  async function compareAll(): Promise<void> {
    const shards = await Promise.all(batches.map((_, shard) => readShard(shard)))
    const registered = shards.flat()
    const pods = livePods(cluster)
    const differing = registered.filter((one) => {
      const pod = pods.get(one.uid)
      return pod === undefined || digestOf(labelsOf(pod, namespaceOf(cluster, pod))) !== one.digest
    })
    known.clear()
    for (const { uid, digest, namespace: at, name: pod } of registered) known.set(uid, `${digest} ${at}/${pod}`)
    const next = differing.values()
    const worker = async () => {
      for (const one of next) await compare(one)
    }
    await Promise.all(Array.from({ length: PARALLEL }, worker))
    // All together, as many go into one write.
    await Promise.all(
      differing.map(({ uid }) => (voids.get(uid)?.ended === undefined ? store.settled(uid) : forget(uid))),
    )
    log.info({ registered: registered.length, differing: differing.length }, 'the register is compared')
  }

  /** The void stands first: whoever reads the register between both finds the Pod again. */
  async function forget(uid: string): Promise<void> {
    await store.settled(uid)
    await write(uid, null)
  }

  const unsubscribe = cluster.subscribe(({ kind, before, after }) => {
    if (kind !== 'Pod' || before?.metadata?.uid === undefined) return
    const { uid } = before.metadata
    const ended = after?.metadata?.uid !== uid || (isLive(before) && !isLive(after))
    if (!ended || !compared) return
    void persist('the register', { log, signal, random }, async () => {
      await pause(FORGET_MS * random(), signal)
      await forget(uid)
    })
  })

  return {
    async start() {
      const retry = { log, signal, random }
      await persist('the register of identities', retry, compareAll)
      if (signal.aborted) return
      compared = true
      // Whoever emptied a ConfigMap by hand finds it filled again as Pods renew.
      const again = () => void persist('the register of identities', retry, compareAll)
      timer = setInterval(again, RESYNC_MS * (0.8 + 0.4 * random()))
    },
    synced: () => compared,
    async record(identity) {
      const { uid } = identity
      const value = `${digestOf(identity)} ${identity.namespace}/${identity.name}`
      if (known.get(uid) === value) return
      try {
        // Were this one written first and every replica ended, nobody would know that older WITs say something else.
        await store.settled(uid)
        await write(uid, value)
      } catch (error) {
        if (error instanceof WebhookError) throw error
        throw new WebhookError('cluster-unavailable', 'The identity could not be registered.', { cause: error })
      }
    },
    async stop() {
      stopping.abort()
      clearInterval(timer)
      unsubscribe()
    },
  }
}

function shardName(name: string, shard: number): string {
  return `${name}-${shard.toString(16)}`
}

function shardOf(uid: string): number {
  const digit = Number.parseInt(uid.charAt(0), 16)
  return Number.isNaN(digit) ? 0 : digit % REGISTER_SHARDS
}

/** What cannot be read has no digest, which fits no labels: it is looked at again. */
function parseRegistered(uid: string, value: string): Registered {
  const {
    digest = '',
    namespace = '',
    name = '',
  } = /^(?<digest>[\w-]{22}) (?<namespace>[a-z0-9-]+)\/(?<name>[a-z0-9.-]+)$/.exec(value)?.groups ?? {}
  return { uid, digest, namespace, name }
}

/** The labels of Pod and namespace in 128 bits, in whatever order. */
function digestOf({ labels, namespaceLabels }: Pick<PodIdentity, 'labels' | 'namespaceLabels'>): string {
  const sorted = (from: PodIdentity['labels']) => Object.entries(from).sort(([one], [other]) => (one < other ? -1 : 1))
  const text = JSON.stringify([sorted(labels), sorted(namespaceLabels)])
  return createHash('sha256').update(text).digest().subarray(0, 16).toString('base64url')
}

/** Writes of one ConfigMap: what comes while one is under way goes out together after it. */
function createBatch(write: (data: Readonly<Record<string, string | null>>) => Promise<void>) {
  let running: Promise<void> | undefined
  let next: { readonly data: Record<string, string | null>; readonly done: Promise<void> } | undefined

  async function run(data: Readonly<Record<string, string | null>>, before: Promise<void> | undefined): Promise<void> {
    // Whoever waits for that one hears of its failure.
    await before?.catch(() => {})
    next = undefined
    running = write(data)
    await running
  }

  return {
    put(key: string, value: string | null): Promise<void> {
      if (next === undefined) {
        const data = { [key]: value }
        next = { data, done: run(data, running) }
      } else next.data[key] = value
      return next.done
    },
  }
}
