/** Revocations as requests in the void list's ConfigMap, which replicas of the webhook answer (docs/revocation.md). */
import type { V1ConfigMap, V1Pod } from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
import { isGuarded } from '../../webhook/admission/pod.ts'
import { isLive } from '../../webhook/directory/pod-identity.ts'
import {
  cleanReason,
  formatEntry,
  parseEntries,
  type VoidEntries,
  type VoidNote,
  type VoidRequest,
} from '../../webhook/issuer/void-entries.ts'
import { isBlocked, type VoidRecord } from '../../webhook/issuer/void-record.ts'
import { pathOfObject } from '../../webhook/kubernetes/objects.ts'
import { CliError } from '../errors.ts'

export interface Named {
  readonly namespace: string
  readonly name: string
}

/** A Pod that gets no identity until it is restored. */
export interface Revoked {
  /** `namespace/name`; absent where nobody noted it. */
  readonly pod?: string
  readonly uid: string
  /** As in 2026-01-31T12:00:00Z. */
  readonly since: string
  readonly reason?: string
  /** Whether the Pod is finished or gone. */
  readonly ended: boolean
}

export interface Revocations {
  /** Resolves once a replica has taken it in. Rejects with CliError `revoke-unknown`, `revoke-unanswered`, or ApiError. */
  revoke(pod: Named, reason: string): Promise<{ readonly since: string }>
  /** The same for its undo; false where the Pod was not revoked. */
  restore(pod: Named, reason: string): Promise<boolean>
  list(): Promise<readonly Revoked[]>
}

export interface RevocationsOptions {
  readonly client: ApiClient
  /** The installation's. */
  readonly namespace: string
  /** How long a replica may take; ANSWER_MS without it. */
  readonly answerMs?: number
}

/** A replica hears of the request at once, and lists anew within some seconds where its watch broke. */
const ANSWER_MS = 15_000
const LOOK_EVERY_MS = 200
/** Somebody else may write at the same time, replicas above all. */
const ATTEMPTS = 20
const NAME = 'synguard-voids'

export function createRevocations({ client, namespace, answerMs = ANSWER_MS }: RevocationsOptions): Revocations {
  const path = `/api/v1/namespaces/${namespace}/configmaps/${NAME}`

  async function read(): Promise<{ entries: VoidEntries; version: string }> {
    try {
      const { data = {}, metadata } = await client.send<V1ConfigMap>({ method: 'GET', path })
      const entries = parseEntries(data, { now: Math.floor(Date.now() / 1_000), findPod: () => undefined })
      return { entries, version: metadata?.resourceVersion ?? '' }
    } catch (error) {
      if (!hasStatus(error, 404)) throw error
      throw new CliError(
        'revoke-unknown',
        `there is no ConfigMap ${NAME} in namespace ${namespace}: give the installation's by -n`,
      )
    }
  }

  /** Asks beside what stands there: were no replica running, a record that is lost would not come back. */
  async function ask(uid: string, request: VoidRequest, { words, reason = '' }: VoidNote): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const { entries, version } = await read()
      const record = entries.records.get(uid) ?? {}
      const known = entries.notes.get(uid)
      const why = cleanReason(reason) || known?.reason
      const note = {
        words: [...new Set([...(known?.words ?? []), ...words])],
        ...(why !== undefined && { reason: why }),
      }
      const body = { metadata: { resourceVersion: version }, data: { [uid]: formatEntry(record, note, request) } }
      try {
        await client.send({ method: 'PATCH', path, contentType: 'application/merge-patch+json', body })
        return
      } catch (error) {
        if (!hasStatus(error, 409) || attempt === ATTEMPTS) throw error
        await pause(LOOK_EVERY_MS * Math.random())
      }
    }
  }

  /** The record of the Pod once no request for it waits. */
  async function awaitAnswer(uid: string): Promise<VoidRecord> {
    const end = Date.now() + answerMs
    for (;;) {
      const { entries } = await read()
      if (!entries.requests.some((request) => request.uid === uid)) return entries.records.get(uid) ?? {}
      if (Date.now() > end) {
        const stands = `the request stands in ConfigMap ${namespace}/${NAME}, and is taken in once one runs`
        throw new CliError('revoke-unanswered', `no replica of the webhook answered: ${stands}`)
      }
      await pause(LOOK_EVERY_MS)
    }
  }

  async function findPod({ namespace: at, name }: Named): Promise<V1Pod | undefined> {
    try {
      return await client.send<V1Pod>({ method: 'GET', path: pathOfObject('Pod', name, at) })
    } catch (error) {
      if (hasStatus(error, 404)) return undefined
      throw error
    }
  }

  return {
    async revoke(named, reason) {
      const name = nameOf(named)
      const pod = await findPod(named)
      const uid = pod?.metadata?.uid
      if (pod === undefined || uid === undefined) throw new CliError('revoke-unknown', `there is no Pod ${name}`)
      if (!isLive(pod)) throw new CliError('revoke-unknown', `Pod ${name} is finished: its identities are void already`)
      if (pod.spec === undefined || !isGuarded(pod.spec)) {
        throw new CliError('revoke-unknown', `Pod ${name} has no sidecar, so it has no identity to revoke`)
      }
      await ask(uid, 'revoke', { words: [name], reason })
      const { revoked, restored } = await awaitAnswer(uid)
      if (revoked === undefined || !isBlocked({ revoked, ...(restored !== undefined && { restored }) })) {
        throw new CliError('revoke-unanswered', `somebody restored ${name} at the same time`)
      }
      return { since: formatTime(revoked) }
    },
    async restore(named, reason) {
      const name = nameOf(named)
      const { entries } = await read()
      const uid = (await findPod(named))?.metadata?.uid ?? findNoted(entries, name)
      const isAsked = entries.requests.some((request) => request.uid === uid && request.request === 'revoke')
      if (uid === undefined || !(isAsked || isBlocked(entries.records.get(uid) ?? {}))) return false
      await ask(uid, 'restore', { words: [name], reason })
      if (isBlocked(await awaitAnswer(uid))) {
        throw new CliError('revoke-unanswered', `somebody revoked ${name} at the same time`)
      }
      return true
    },
    async list() {
      const { entries } = await read()
      return listRevoked(entries)
    },
  }
}

/** The Pod of that name which is gone, and still revoked. */
function findNoted({ records, notes }: VoidEntries, name: string): string | undefined {
  return [...records].find(([uid, record]) => isBlocked(record) && notes.get(uid)?.words.includes(name))?.[0]
}

/** Those that get no identity, the latest last. */
export function listRevoked({ records, notes }: VoidEntries): Revoked[] {
  const revoked = [...records].filter(([, record]) => isBlocked(record))
  revoked.sort(([, one], [, other]) => (one.revoked ?? 0) - (other.revoked ?? 0))
  return revoked.map(([uid, { revoked: since = 0, ended }]) => {
    const { words: [pod] = [], reason } = notes.get(uid) ?? {}
    return {
      ...(pod !== undefined && { pod }),
      uid,
      since: formatTime(since),
      ...(reason !== undefined && { reason }),
      ended: ended !== undefined,
    }
  })
}

/** One line a Pod. */
export function formatRevoked(revoked: readonly Revoked[]): string {
  if (revoked.length === 0) return 'No Pod is revoked'
  const widest = Math.max(...revoked.map(({ pod = '' }) => pod.length))
  const lines = revoked.map(({ pod = '', uid, since, reason = '', ended }) =>
    [pod.padEnd(widest), uid, since, ended ? 'ended' : 'lives', reason].join('  ').trimEnd(),
  )
  return lines.join('\n')
}

function nameOf({ namespace, name }: Named): string {
  return `${namespace}/${name}`
}

function formatTime(seconds: number): string {
  return new Date(seconds * 1_000).toISOString().replace('.000', '')
}

const pause = (milliseconds: number): Promise<void> => new Promise((done) => setTimeout(done, milliseconds))
