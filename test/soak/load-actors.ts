/** The load of one part: every client at once, and each of their batches again between plain Pods. */
import type { Random } from '../fuzz/random.ts'
import { type Incident, isDeniedThroughout } from './account.ts'
import type { Disturbances } from './disturbances.ts'
import { CLIENTS, type ClientName, type Field } from './field.ts'
import { type Path, runBatch } from './load.ts'

/** What one kind of Pods did. */
export interface LoadTotals {
  attempted: number
  succeeded: number
  readonly byParallel: Record<number, number>
  readonly incidents: Incident[]
}

export interface LoadResults {
  readonly guarded: LoadTotals
  readonly plain: LoadTotals
  /** Connections of a client that was denied throughout which succeeded all the same. */
  readonly openedThoughDenied: string[]
}

const BATCHES = [
  { parallel: 1, count: 400 },
  { parallel: 8, count: 1_200 },
  { parallel: 64, count: 3_000 },
] as const
/** So large are batches from this many connections a part on; below they shrink, so that all paths get some. */
const FULL_PART = 50_000
/** Of a denied client, and once a part has its connections while something is still being done to the Pods. */
const SMALL_BATCH = 50
const SMALL_PAUSE_MILLISECONDS = 100

const createTotals = (): LoadTotals => ({ attempted: 0, succeeded: 0, byParallel: {}, incidents: [] })

export const createLoadResults = (): LoadResults => ({
  guarded: createTotals(),
  plain: createTotals(),
  openedThoughDenied: [],
})

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

interface Twin {
  readonly path: Path
  readonly count: number
  readonly parallel: number
}

/**
 * Loads until `connections` more were attempted between guarded Pods and `isOver` says so, or `isLate` does; returns
 * once the plain Pods have done as much.
 */
export async function runLoad(
  field: Field,
  disturbances: Disturbances,
  results: LoadResults,
  random: Random,
  connections: number,
  isOver: () => boolean,
  isLate: () => boolean,
): Promise<void> {
  const twins: Twin[] = []
  const { guarded, plain } = results
  const goal = guarded.attempted + connections
  let planned = guarded.attempted
  const scale = Math.min(Math.max(connections / FULL_PART, 0.05), 1)

  async function loadGuarded(name: ClientName): Promise<void> {
    const pod = field.guarded.get(name)
    if (pod === undefined) throw new Error(`no Pod ${name}`)
    while (!isLate() && !(planned >= goal && isOver())) {
      const path = random.pick(field.paths)
      const { parallel, count: full } = random.pick(BATCHES)
      const isSmall = planned >= goal || disturbances.isDenied(name)
      const count = isSmall ? SMALL_BATCH : Math.ceil(full * scale)
      planned += count
      const batch = await runBatch(field.load, pod, path, count, parallel)
      add(guarded, batch, parallel)
      twins.push({ path, count, parallel })
      if (batch.succeeded > 0 && isDeniedThroughout(name, batch, disturbances.denials)) {
        results.openedThoughDenied.push(`${name}: ${batch.succeeded} connections over ${path.name} while it was denied`)
      }
      if (isSmall) await pause(SMALL_PAUSE_MILLISECONDS)
    }
  }

  function add(totals: LoadTotals, batch: Awaited<ReturnType<typeof runBatch>>, parallel: number): void {
    totals.attempted += batch.attempted
    totals.succeeded += batch.succeeded
    totals.byParallel[parallel] = (totals.byParallel[parallel] ?? 0) + batch.attempted
    totals.incidents.push(...batch.incidents)
  }

  let isGuardedDone = false
  async function loadPlain(): Promise<void> {
    while (!isGuardedDone || twins.length > 0) {
      const twin = twins.shift()
      if (twin === undefined) {
        await pause(10)
        continue
      }
      const path = field.plainPaths.get(twin.path.name) ?? twin.path
      add(plain, await runBatch(field.load, field.plainClient, path, twin.count, twin.parallel), twin.parallel)
    }
  }

  const guardedDone = Promise.all(CLIENTS.map(loadGuarded)).finally(() => {
    isGuardedDone = true
  })
  await Promise.all([guardedDone, loadPlain()])
}
