/** The rounds: in each, every variant once at parallel 1, once at parallel 64, and two bulk transfers. */
import { runCommand } from '../../lab/command.ts'
import { inside } from '../lab/programs.ts'
import type { Field, Variant } from './field.ts'
import { bulk, connect, type LoadFigures } from './load.ts'
import type { BenchOptions, VariantName } from './options.ts'
import { processorMicroseconds } from './process-cost.ts'

export const PARALLEL = [1, 64] as const
export type Parallel = (typeof PARALLEL)[number]
/** Of each of the two transfers of a round. */
const BULK_SECONDS = 0.7

/** What one load cost. */
export interface LoadSample extends LoadFigures {
  /** Packets that both ends queued. */
  readonly queued: number
  /** Processor time of each sidecar in microseconds. */
  readonly processor: { readonly client: number; readonly server: number }
}

export interface RoundSample {
  readonly loads: Readonly<Record<Parallel, LoadSample>>
  readonly bulkGigabits: number
}

/** A round's samples by variant. */
export type Round = ReadonlyMap<VariantName, RoundSample>

/** The sum of all queues' packet numbers: packets queued in a network namespace since its queues were bound. */
async function queuedIn(variant: Variant): Promise<number> {
  let sum = 0
  for (const pod of [variant.target.client, variant.server]) {
    const text = await runCommand('ip', inside(pod, 'cat', '/proc/net/netfilter/nfnetlink_queue'))
    // Columns as of seq_show in net/netfilter/nfnetlink_queue.c; the eighth is id_sequence.
    for (const line of text.split('\n').filter(Boolean)) sum += Number(line.trim().split(/\s+/)[7])
  }
  return sum
}

function processorOf({ sidecars }: Variant): { client: number; server: number } {
  if (sidecars === undefined) return { client: 0, server: 0 }
  return { client: processorMicroseconds(sidecars.client), server: processorMicroseconds(sidecars.server) }
}

async function measureLoad(field: Field, variant: Variant, count: number, parallel: Parallel): Promise<LoadSample> {
  const [queuedBefore, before] = [await queuedIn(variant), processorOf(variant)]
  const figures = await connect(field.load, variant.target, count, parallel)
  const after = processorOf(variant)
  return {
    ...figures,
    queued: (await queuedIn(variant)) - queuedBefore,
    processor: { client: after.client - before.client, server: after.server - before.server },
  }
}

export function connectionsOf({ share }: Variant, { connections }: BenchOptions, parallel: Parallel): number {
  return Math.max(Math.round(connections * share * (parallel === 1 ? 0.25 : 1)), 1)
}

/** Lets every program reach its steady state, and Pods learn each other's link addresses. */
export async function warmUp(field: Field, options: BenchOptions): Promise<void> {
  for (const variant of field.variants) {
    for (const parallel of PARALLEL) {
      await connect(field.load, variant.target, connectionsOf(variant, options, parallel), parallel)
    }
    if (variant.name !== 'synguard' || field.trainer === undefined) continue
    const trainer = { ...variant.target, address: field.trainer.network.addresses[0] ?? '' }
    await connect(field.load, trainer, connectionsOf(variant, options, 64), 64)
  }
}

/** One round; each begins with another variant, so that none always comes after the same. */
export async function measureRound(field: Field, options: BenchOptions, round: number): Promise<Round> {
  const first = round % field.variants.length
  const order = [...field.variants.slice(first), ...field.variants.slice(0, first)]
  const loads = new Map<string, LoadSample>()
  for (const parallel of PARALLEL) {
    for (const variant of order) {
      const count = connectionsOf(variant, options, parallel)
      loads.set(`${variant.name} ${parallel}`, await measureLoad(field, variant, count, parallel))
    }
  }
  // There and back, so that a drift of the machine weighs on all alike.
  const bulks = new Map<string, number>()
  for (const { name, target } of [...order, ...order.toReversed()]) {
    bulks.set(name, (bulks.get(name) ?? 0) + (await bulk(field.load, target, BULK_SECONDS)) / 2)
  }
  const loadOf = (name: string, parallel: Parallel): LoadSample => {
    const sample = loads.get(`${name} ${parallel}`)
    if (sample === undefined) throw new Error(`${name} was not measured`)
    return sample
  }
  return new Map(
    field.variants.map(({ name }) => [
      name,
      { loads: { 1: loadOf(name, 1), 64: loadOf(name, 64) }, bulkGigabits: bulks.get(name) ?? 0 },
    ]),
  )
}
