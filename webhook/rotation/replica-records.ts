import type { ApiClient } from '../../kubernetes/client.ts'
import { putEntries, readEntries } from '../issuer/config-map.ts'
import type { Acknowledged, ReplicaRecord } from './store.ts'

/**
 * What replicas say of themselves, in two ConfigMaps with an entry for each: what it acts by, written at each turn; and
 * what its sidecars have acknowledged, of some 40 bytes for each, written where that changed. Neither holds a key.
 */
export interface ReplicaRecordsOptions {
  readonly client: ApiClient
  readonly namespace: string
  readonly names: { readonly replicas: string; readonly acknowledged: string }
  /** Before a replica's name: what the keyring is called. */
  readonly prefix: string
  readonly signal: AbortSignal
}

const FORGET_MS = 2_000

export function createReplicaRecords(options: ReplicaRecordsOptions) {
  const { client, namespace, names, prefix, signal } = options
  let written: string | undefined

  const put = (name: string, data: Readonly<Record<string, string | null>>) =>
    putEntries(client, { namespace, name, data, signal })
  const read = async (name: string) => Object.entries((await readEntries(client, { namespace, name, signal })) ?? {})
  const keyOf = (replica: string) => `${prefix}.${replica}`

  return {
    async publish({ name, beat, generation, acknowledged }: ReplicaRecord): Promise<void> {
      const text = formatAcknowledged(acknowledged)
      if (text !== written) {
        await put(names.acknowledged, { [keyOf(name)]: text })
        written = text
      }
      await put(names.replicas, { [keyOf(name)]: `${generation} ${beat}` })
    },

    async readRecords(): Promise<readonly ReplicaRecord[]> {
      const [replicas, acknowledged] = await Promise.all([read(names.replicas), read(names.acknowledged)])
      const acknowledgedBy = new Map(acknowledged)
      return replicas
        .filter(([key]) => key.startsWith(`${prefix}.`))
        .map(([key, text]) => ({
          name: key.slice(prefix.length + 1),
          ...parseRecord(text),
          acknowledged: parseAcknowledged(acknowledgedBy.get(key) ?? ''),
        }))
    },

    async forget(replicas: readonly string[]): Promise<void> {
      const data = Object.fromEntries(replicas.map((name) => [keyOf(name), null]))
      // Also of a replica that ends, whose own requests are cut.
      const patch = { namespace, data, signal: AbortSignal.timeout(FORGET_MS) }
      await putEntries(client, { ...patch, name: names.replicas })
      await putEntries(client, { ...patch, name: names.acknowledged })
    },
  }
}

/** What nobody can read stands for a replica that acts by nothing yet: it is waited for, until it is silent for long. */
function parseRecord(text: string): Pick<ReplicaRecord, 'beat' | 'generation'> {
  const generation = Number(/^\d+(?= )/.exec(text)?.[0] ?? 0)
  return { beat: text, generation: Number.isSafeInteger(generation) ? generation : 0 }
}

/** `GENERATION UID UID …`, a line for each generation. */
export function formatAcknowledged(acknowledged: Acknowledged): string {
  const byGeneration = new Map<number, string[]>()
  for (const [uid, generation] of acknowledged) {
    const uids = byGeneration.get(generation)
    if (uids === undefined) byGeneration.set(generation, [uid])
    else uids.push(uid)
  }
  return [...byGeneration].map(([generation, uids]) => [generation, ...uids].join(' ')).join('\n')
}

/** A line that nobody can read acknowledges nothing. */
export function parseAcknowledged(text: string): Acknowledged {
  return text.split('\n').flatMap((line) => {
    const [generation = '', ...uids] = line.split(' ')
    return /^\d{1,15}$/.test(generation) ? uids.map((uid) => [uid, Number(generation)] as const) : []
  })
}
