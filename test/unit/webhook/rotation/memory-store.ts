import type { RotationRequest, RotationStatus } from '../../../../api/rotation.ts'
import { EMPTY_KEYRING, type Keyring } from '../../../../certs/rotation/keyring.ts'
import { scheduledAt } from '../../../../certs/rotation/progress.ts'
import { createKeyringHolder, type KeyringHolder } from '../../../../webhook/rotation/holder.ts'
import { createLease } from '../../../../webhook/rotation/lease.ts'
import { createReconciler } from '../../../../webhook/rotation/reconciler.ts'
import type { LeaseRecord, LeaseStore, ReplicaRecord, RotationStore } from '../../../../webhook/rotation/store.ts'
import { createTurn } from '../../../../webhook/rotation/turn.ts'

/** An API server in memory, with two replicas that may crash or stall at any call of theirs. */
export interface Stage {
  /** Seconds on a clock that only runs. */
  elapsed: number
  ring: Keyring<string>
  version: number
  lease: LeaseRecord | undefined
  leaseVersion: number
  request: RotationRequest | undefined
  problems: string[]
  published: boolean
  expected: string[]
  keys: number
  readonly records: Map<string, ReplicaRecord>
  /** Everything that was written but the keyring. */
  readonly told: unknown[]
  readonly history: Keyring<string>[]
  status: RotationStatus | undefined
  /** Pods that the API server has and the watch has not shown. */
  unseen: string[]
}

export const WIT_LIFETIME_SECONDS = 3_600
export const TIMING = {
  witLifetimeSeconds: WIT_LIFETIME_SECONDS,
  skewSeconds: 120,
  replicaSilentSeconds: 60,
  cutSeconds: 60,
}
const EPOCH = 1_800_000_000
const LEASE_SECONDS = 15

export function createStage(): Stage {
  return {
    ...{
      elapsed: 0,
      ring: EMPTY_KEYRING,
      version: 0,
      lease: undefined,
      leaseVersion: 0,
      request: undefined,
      problems: [],
    },
    ...{
      published: true,
      expected: [],
      keys: 0,
      records: new Map(),
      told: [],
      history: [],
      status: undefined,
      unseen: [],
    },
  }
}

/** Decides what becomes of a call before it reaches the API server: a rejection, or a wait. */
export type Before = (call: string) => Promise<void> | undefined

export function createStore(stage: Stage, before: Before): RotationStore<string> & LeaseStore {
  async function call<Result>(name: string, work: () => Result): Promise<Result> {
    await before(name)
    return work()
  }
  return {
    readKeyring: () => call('readKeyring', () => ({ value: stage.ring, version: String(stage.version) })),
    writeKeyring: (ring, version) =>
      call('writeKeyring', () => {
        if (version !== String(stage.version)) return false
        stage.ring = ring
        stage.version++
        stage.history.push(ring)
        return true
      }),
    publish: (record) =>
      call('publish', () => {
        stage.told.push(record)
        stage.records.set(record.name, record)
      }),
    readRecords: () => call('readRecords', () => [...stage.records.values()]),
    forget: (names) =>
      call('forget', () => {
        for (const name of names) stage.records.delete(name)
      }),
    readRequest: () =>
      call('readRequest', () => ({ ...(stage.request && { request: stage.request }), problems: [...stage.problems] })),
    listExpected: () => call('listExpected', () => named([...stage.expected, ...stage.unseen])),
    seenExpected: () => named(stage.expected),
    readStatus: () => call('readStatus', () => stage.status),
    readPublished: () => call('readPublished', () => stage.published),
    writeStatus: (status) =>
      call('writeStatus', () => {
        stage.told.push(status)
        stage.status = status
      }),
    readLease: () => call('readLease', () => ({ value: stage.lease, version: String(stage.leaseVersion) })),
    writeLease: (lease, version) =>
      call('writeLease', () => {
        if (version !== String(stage.leaseVersion)) return false
        stage.lease = lease
        stage.leaseVersion++
        stage.told.push(lease)
        return true
      }),
  }
}

const named = (uids: readonly string[]) => new Map(uids.map((uid) => [uid, `shop/${uid}`]))

export interface TestReplica {
  readonly name: string
  readonly holder: KeyringHolder<string>
  readonly reconcile: ReturnType<typeof createReconciler>
  readonly turn: ReturnType<typeof createTurn>
}

let incarnations = 0

/** A fresh process of a replica whose clock is ahead by `clock` seconds. */
export function startReplica(
  stage: Stage,
  name: string,
  options: { clock?: number; before?: Before; rotateEverySeconds?: number; lifetimeSeconds?: number } = {},
): TestReplica {
  const { clock = 0, before = () => undefined, rotateEverySeconds, lifetimeSeconds = WIT_LIFETIME_SECONDS } = options
  const store = createStore(stage, before)
  const elapsed = () => stage.elapsed
  const incarnation = String(incarnations++)
  const holder = createKeyringHolder({ store, name, incarnation, elapsed, onKeyring: () => {} })
  const reconcile = createReconciler({
    ...{ store, timing: TIMING, lifetimeSeconds, elapsed },
    now: () => EPOCH + stage.elapsed + clock,
    createMaterial: () => {
      const id = `key-${stage.keys++}`
      return { id, material: `private half of ${id}` }
    },
    last: holder.last,
    ...(rotateEverySeconds !== undefined && {
      dueAt: (ring: Keyring<string>) => scheduledAt(ring, rotateEverySeconds),
    }),
  })
  const hold = createLease({ store, name, elapsed, seconds: LEASE_SECONDS })
  return { name, holder, reconcile, turn: createTurn({ holder, hold, reconcile }) }
}
