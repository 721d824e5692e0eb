import type { RotationAnswer, RotationCondition, RotationRequest, RotationStatus } from '../../api/rotation.ts'
import { AuthorityError } from '../../certs/errors.ts'
import type { RotationRefusal } from '../../certs/rotation/errors.ts'
import type { ReplicaFact, RotationFacts, RotationTiming } from '../../certs/rotation/facts.ts'
import { activeKey, EMPTY_KEYRING, type Keyring, phaseOf } from '../../certs/rotation/keyring.ts'
import { nextStep } from '../../certs/rotation/progress.ts'
import { advance, type FreshKey, ROTATION_STEPS, type RotationEvent } from '../../certs/rotation/transitions.ts'
import { reportRotation } from './report.ts'
import type { ExpectedPods, ReplicaRecord, RotationStore } from './store.ts'

export interface ReconcilerOptions<Material> {
  readonly store: RotationStore<Material>
  readonly timing: RotationTiming
  /** How long what a fresh key signs may live. */
  readonly lifetimeSeconds: number
  readonly createMaterial: () => { readonly id: string; readonly material: Material }
  /** When the next rotation begins by itself, in seconds since the epoch; without it, by request alone. */
  readonly dueAt?: (ring: Keyring<Material>) => number | undefined
  /** What this replica read last, for the status where the keyring cannot be read. */
  readonly last?: () => Keyring<Material> | undefined
  /** Seconds since the epoch. */
  readonly now: () => number
  /** Seconds on a clock that only runs. */
  readonly elapsed: () => number
}

/** What a step came to: the event that was written, or none where nothing was to do or somebody else wrote first. */
export interface Reconciled {
  readonly wrote?: RotationEvent<unknown>['type']
  /** The request that was answered by it, and why it was refused, where it was. */
  readonly request?: RotationRequest
  readonly refusal?: RotationRefusal
  /** As it was written for operators. */
  readonly status?: RotationStatus
}

interface Taken<Material> extends Reconciled {
  readonly ring: Keyring<Material>
}

/** After so long a replica that says nothing is gone; its sidecars have acknowledged to another one long before. */
const FORGOTTEN_SECONDS = 600
/** A Pod that nobody knows: whatever is taken though it lacks a key is taken whoever else lacks it. */
const NOBODY = ''

/** Takes at most one step of a rotation each time it is called, for whoever holds the lease. */
export function createReconciler<Material>(options: ReconcilerOptions<Material>): () => Promise<Reconciled> {
  const { store, timing, lifetimeSeconds, createMaterial, now } = options
  const observe = createObserver(options.elapsed)
  let answer: RotationAnswer | undefined

  async function reconcile(): Promise<Reconciled> {
    // First, and all else after it: the order is what makes the facts ones of this keyring.
    const { value: ring, version } = await store.readKeyring().catch(tellOfDamage)
    const { request, problems } = await store.readRequest()
    let pods = store.seenExpected()
    let facts = await readFacts(ring, pods)
    let taken = decide(ring, request, facts)
    if (dependsOnSidecars(taken, ring, request, facts)) {
      // The watch may not have shown a sidecar yet that lacks a key.
      pods = await store.listExpected()
      facts = { ...facts, now: now(), expected: [...pods.keys()] }
      taken = decide(ring, request, facts)
    }
    const isWritten = taken !== undefined && (await store.writeKeyring(taken.ring, version))
    if (taken !== undefined && !isWritten) return {}
    if (taken?.request !== undefined) answer = answerOf(taken.request, taken.refusal)
    const conditions = problems.map((message) => ({ code: 'rotation-request', message }))
    const status = await writeStatus(taken?.ring ?? ring, facts, pods, conditions)
    if (taken === undefined) return { status }
    const { ring: _, ...result } = taken
    return { ...result, status }
  }

  async function readFacts(ring: Keyring<Material>, pods: ExpectedPods): Promise<RotationFacts> {
    const askedAt = options.elapsed()
    const records = await store.readRecords()
    const replicas = observe(records, askedAt)
    const gone = replicas.filter(({ silentSeconds }) => silentSeconds >= FORGOTTEN_SECONDS).map(({ name }) => name)
    if (gone.length > 0) await store.forget(gone)
    const published = await store.readPublished(ring)
    const acknowledged = joinAcknowledgements(records)
    return { now: now(), replicas, published, expected: [...pods.keys()], acknowledged, timing }
  }

  function dependsOnSidecars(
    taken: Taken<Material> | undefined,
    ring: Keyring<Material>,
    request: RotationRequest | undefined,
    facts: RotationFacts,
  ): boolean {
    if (!ROTATION_STEPS.some((step) => step === taken?.wrote)) return false
    const others = decide(ring, request, { ...facts, expected: [...facts.expected, NOBODY] })
    return others?.wrote !== taken?.wrote || others?.ring.keys.length !== taken?.ring.keys.length
  }

  function decide(ring: Keyring<Material>, request: RotationRequest | undefined, facts: RotationFacts) {
    const take = (event: RotationEvent<Material>): Taken<Material> | RotationRefusal | undefined => {
      const result = advance(ring, event, facts)
      if ('refused' in result) return result
      return result.writes.length === 0 ? undefined : { ring: result.ring, wrote: event.type }
    }
    if (phaseOf(ring) === 'none') return taken(take({ type: 'bootstrap', fresh: freshKey() }))
    const above = Math.max(...facts.replicas.map(({ generation }) => generation), 0)
    if (above > ring.generation) return taken(take({ type: 'restore', above }))
    if ((activeKey(ring)?.lifetimeSeconds ?? 0) < lifetimeSeconds) {
      return taken(take({ type: 'lifetime', seconds: lifetimeSeconds }))
    }
    if (request !== undefined && request.id !== ring.request) {
      const result = take(eventOf(request))
      if (result === undefined || !('refused' in result)) return result && { ...result, request }
      const dismissed = taken(take({ type: 'dismiss', request: request.id }))
      return dismissed && { ...dismissed, request, refusal: result }
    }
    const next = nextStep(ring, facts)
    if ('step' in next) return { ring: next.ring, wrote: next.step }
    const dueAt = options.dueAt?.(ring)
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

  async function writeStatus(
    ring: Keyring<Material>,
    facts: RotationFacts,
    pods: ExpectedPods,
    conditions: readonly RotationCondition[],
  ): Promise<RotationStatus> {
    const answered = await answerTo(ring.request)
    const status = reportRotation({ ring, facts, pods, answered, conditions, scheduledAt: options.dueAt?.(ring) })
    await store.writeStatus(status)
    return status
  }

  /** The answer may be by another replica, which wrote it into the status, or ended before it did. */
  async function answerTo(request: string | undefined): Promise<RotationAnswer | undefined> {
    if (request === undefined) return undefined
    if (answer?.request !== request) {
      const written = (await store.readStatus())?.answered
      answer = written?.request === request ? written : { request, outcome: 'unknown' }
    }
    return answer
  }

  /** What is damaged is never replaced, but told. */
  async function tellOfDamage(error: unknown): Promise<never> {
    if (error instanceof AuthorityError) {
      const ring = options.last?.() ?? EMPTY_KEYRING
      const facts = { now: now(), replicas: [], published: false, expected: [], acknowledged: new Map(), timing }
      const conditions = [{ code: error.code, message: error.message }]
      const answered = await answerTo(ring.request)
      const status = reportRotation({ ring, facts, pods: new Map(), answered, conditions, scheduledAt: undefined })
      // Nothing is known of what a step waits for, and none is taken.
      await store.writeStatus({ ...status, waits: [] })
    }
    throw error
  }

  return reconcile
}

function answerOf({ id: request }: RotationRequest, refusal: RotationRefusal | undefined): RotationAnswer {
  if (refusal === undefined) return { request, outcome: 'taken' }
  return { request, outcome: 'refused', code: refusal.refused, message: refusal.message }
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
