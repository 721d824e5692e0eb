/** Tells the issuer what was refused, which writes Events: for people who look at a Pod and not into logs. */
import type { RefusalsRequest, ToldRefusal } from '../../api/reports.ts'
import type { DenialRow } from '../datapath/denials.ts'
import type { LogSink } from './log.ts'

/** The first refusals are told together. */
const FIRST_MS = 5_000
/** Then at most once in this time: Events are counted, not one for each. */
const INTERVAL_MS = 60_000
/** The issuer takes as many; a peer has one of them, so that one that scans ports leaves room for others. */
const TOLD_AT_ONCE = 8
const POLICIES = 16

export interface RefusalEventsOptions {
  /** The table of denials. */
  readonly denials: () => Promise<readonly DenialRow[]>
  readonly send: (request: RefusalsRequest) => Promise<unknown>
  readonly now: () => number
  readonly log: Pick<LogSink, 'warn'>
  /** Of the first telling, and between two. */
  readonly delaysMs?: readonly [number, number]
}

export interface RefusalEvents {
  /** Something was refused: it is told soon. */
  noted(): void
}

/** Chooses what is told of refusals that came since the last time. */
export interface RefusalChoice {
  next(rows: readonly DenialRow[]): ToldRefusal[]
}

export function createRefusalEvents(options: RefusalEventsOptions): RefusalEvents {
  const { now, log, delaysMs: [firstMs, intervalMs] = [FIRST_MS, INTERVAL_MS] } = options
  const choice = createRefusalChoice()
  let timer: NodeJS.Timeout | undefined
  let toldAt = Number.NEGATIVE_INFINITY

  async function tell(): Promise<void> {
    // What comes from here on may be too late for this time.
    timer = undefined
    toldAt = now()
    try {
      const refusals = choice.next(await options.denials())
      if (refusals.length > 0) await options.send({ refusals })
    } catch (error) {
      log.warn({ error: (error as Error).message }, 'refusals not told to the issuer: no Events')
    }
  }

  return {
    noted() {
      if (timer !== undefined) return
      timer = setTimeout(() => void tell(), Math.max(firstMs, toldAt + intervalMs - now())).unref()
    },
  }
}

/** Whom a WIT or the API server names goes before addresses, and who was not told of yet before who was. */
export function createRefusalChoice(): RefusalChoice {
  let told = new Map<string, number>()

  return {
    next(rows) {
      const refused = rows.filter(({ enforced }) => enforced)
      const again = new Map<string, number>()
      const byPeer = new Map<string, { row: DenialRow; key: string; since: number; isNew: boolean }>()
      for (const row of refused) {
        const { direction, refusal, protocol, port } = row
        const key = [direction, refusal, protocol, port, peerOf(row)].join(' ')
        const before = told.get(key)
        // What a worker counted that has died since begins anew.
        const since = before === undefined || before > row.count ? row.count : row.count - before
        if (before !== undefined) again.set(key, row.count - since)
        if (since === 0) continue
        const known = byPeer.get(peerOf(row))
        if (known === undefined || known.since < since) {
          byPeer.set(peerOf(row), { row, key, since, isNew: before === undefined })
        }
      }
      const chosen = [...byPeer.values()].sort((a, b) => rank(a) - rank(b) || b.since - a.since).slice(0, TOLD_AT_ONCE)
      for (const { row, key } of chosen) again.set(key, row.count)
      told = again
      return chosen.map(({ row, since }) => ({
        direction: row.direction,
        reason: row.refusal,
        protocol: row.protocol,
        port: row.port,
        peer: peerOf(row),
        identified: row.identified,
        policies: row.policies.slice(0, POLICIES),
        count: since,
      }))
    },
  }
}

function rank({ row, isNew }: { readonly row: DenialRow; readonly isNew: boolean }): number {
  return (row.pod === undefined ? 2 : 0) + (isNew ? 0 : 1)
}

function peerOf({ pod, address }: DenialRow): string {
  return pod === undefined ? address : `${pod.namespace}/${pod.name}`
}
