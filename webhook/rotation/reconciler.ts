import type { RotationRefusal } from '../../certs/rotation/errors.ts'
import type { ReplicaFact, RotationFacts, RotationTiming } from '../../certs/rotation/facts.ts'
import { activeKey, type Keyring, phaseOf } from '../../certs/rotation/keyring.ts'
import { nextStep, rotationStatus, scheduledAt } from '../../certs/rotation/progress.ts'
import { advance, type FreshKey, type RotationEvent } from '../../certs/rotation/transitions.ts'
import type { ReplicaRecord, RotationRequest, RotationStore } from './store.ts'

export interface ReconcilerOptions<Material> {
  readonly store: RotationStore<Material>
  readonly timing: RotationTiming
  /** How long what a fresh key signs may live. */
  readonly lifetimeSeconds: number
  readonly createMaterial: () => { readonly id: string; readonly material: Material }
  /** undefined: by request alone. */
  readonly rotateEverySeconds?: number
  /** Seconds since the epoch. */
  readonly now: () => number
  /** Seconds on a clock that only runs. */
  readonly elapsed: () => number
}

/** What a step came to: the event that was written, or none where nothing was to do or somebody else wrote first. */
export interface Reconciled {
  readonly wrote?: RotationEvent<unknown>['type']
  /** A request that was refused. */
  readonly refusal?: RotationRefusal
}

interface Taken<Material> extends Reconciled {
  readonly ring: Keyring<Material>
}

/** Takes at most one step of a rotation each time it is called, for whoever holds the lease. */
export function createReconciler<Material>(options: ReconcilerOptions<Material>): () => Promise<Reconciled> {
  const { store, timing, lifetimeSeconds, createMaterial, rotateEverySeconds, now } = options
  const observe = createObserver(options.elapsed)
  let lastRefusal: { readonly request: string; readonly refusal: RotationRefusal } | undefined

  async function reconcile(): Promise<Reconciled> {
    // First, and all else after it: the order is what makes the facts ones of this keyring.
    const { value: ring, version } = await store.readKeyring()
    const request = await store.readRequest()
    const facts = await readFacts(ring)
    const taken = decide(ring, request, facts)
    const isWritten = taken !== undefined && (await store.writeKeyring(taken.ring, version))
    if (taken !== undefined && !isWritten) return {}
    if (taken?.refusal !== undefined && request !== undefined) {
      lastRefusal = { request: request.id, refusal: taken.refusal }
    }
    await writeStatus(taken?.ring ?? ring, facts)
    if (taken === undefined) return {}
    const { ring: _, ...result } = taken
    return result
  }

  async function readFacts(ring: Keyring<Material>): Promise<RotationFacts> {
    const askedAt = options.elapsed()
    const records = await store.readRecords()
    const replicas = observe(records, askedAt)
    const published = await store.readPublished(ring)
    const expected = await store.listExpected()
    return { now: now(), replicas, published, expected, acknowledged: joinAcknowledgements(records), timing }
  }

  function decide(ring: Keyring<Material>, request: RotationRequest | undefined, facts: RotationFacts) {
    const take = (event: RotationEvent<Material>): Taken<Material> | RotationRefusal | undefined => {
      const result = advance(ring, event, facts)
      if ('refused' in result) return result
      return result.writes.length === 0 ? undefined : { ring: result.ring, wrote: event.type }
    }
    if (phaseOf(ring) === 'none') return taken(take({ type: 'bootstrap', fresh: freshKey() }))
    if ((activeKey(ring)?.lifetimeSeconds ?? 0) < lifetimeSeconds) {
      return taken(take({ type: 'lifetime', seconds: lifetimeSeconds }))
    }
    if (request !== undefined && request.id !== ring.request) {
      const result = take(eventOf(request))
      if (result === undefined || !('refused' in result)) return result
      const dismissed = taken(take({ type: 'dismiss', request: request.id }))
      return dismissed && { ...dismissed, refusal: result }
    }
    const next = nextStep(ring, facts)
    if ('step' in next) return { ring: next.ring, wrote: next.step }
    const dueAt = rotateEverySeconds === undefined ? undefined : scheduledAt(ring, rotateEverySeconds)
    return dueAt !== undefined && dueAt <= facts.now ? taken(take({ type: 'rotate', fresh: freshKey() })) : undefined
  }

  function eventOf({ id: request, type, force }: RotationRequest): RotationEvent<Material> {
    if (type === 'force' || type === 'abort') return { type, request }
    const event = { fresh: freshKey(), request }
    return type === 'rotate' ? { type, ...event, ...(force === true && { force }) } : { type, ...event }
  }

  function freshKey(): FreshKey<Material> {
    return { ...createMaterial(), lifetimeSeconds }
  }

  async function writeStatus(ring: Keyring<Material>, facts: RotationFacts): Promise<void> {
    const { request } = ring
    await store.writeStatus({
      ...rotationStatus(ring, facts),
      ...(request !== undefined && { request }),
      ...(lastRefusal !== undefined && lastRefusal.request === request && { refusal: lastRefusal.refusal }),
    })
  }

  return reconcile
}

/** What was refused is nothing to write. */
function taken<Material>(result: Taken<Material> | RotationRefusal | undefined): Taken<Material> | undefined {
  return result === undefined || 'refused' in result ? undefined : result
}

/**
 * How long each replica was silent when the records were asked for, counted from when this one first saw its last record: a
 * pause of this process, wherever it falls, makes nobody look silent.
 */
function createObserver(elapsed: () => number) {
  let seen = new Map<string, { readonly beat: string; readonly at: number }>()
  return (records: readonly ReplicaRecord[], askedAt: number): readonly ReplicaFact[] => {
    const before = seen
    seen = new Map(
      records.map(({ name, beat }) => {
        const known = before.get(name)
        return [name, known?.beat === beat ? known : { beat, at: elapsed() }]
      }),
    )
    return records.map(({ name, generation }) => ({
      name,
      generation,
      silentSeconds: Math.max(0, askedAt - (seen.get(name)?.at ?? askedAt)),
    }))
  }
}

/** The highest generation of each uid, whichever replica heard it. */
function joinAcknowledgements(records: readonly ReplicaRecord[]): ReadonlyMap<string, number> {
  const joined = new Map<string, number>()
  for (const [uid, generation] of records.flatMap(({ acknowledged }) => acknowledged)) {
    joined.set(uid, Math.max(generation, joined.get(uid) ?? 0))
  }
  return joined
}
