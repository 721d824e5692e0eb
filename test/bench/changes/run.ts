/** Policies and labels that change under load: how soon that counts, and what it costs those who stay allowed. */
import { median } from '../statistics.ts'
import { type ClientName, type Field, LABELS, type Paced, REMOVED, type StreamReport } from './field.ts'

export interface ChangeOptions {
  /** How often a policy is removed and added again. */
  readonly policies: number
  /** How often a Pod's labels change; every second change gives back what the one before took. */
  readonly labels: number
  readonly say: (line: string) => void
}

/** Milliseconds from the write, of each change. */
export interface Times {
  /** Until the last denied connection had ended, at both ends. */
  readonly ended: number[]
  /** Until a new connection was refused. */
  readonly refused: number[]
  /** Until one was let in again. */
  readonly allowed: number[]
}

export interface ChangeResults {
  readonly policies: Times
  readonly labels: Times
  /** Connections that stayed open throughout, and how many of them ended. */
  readonly held: { readonly open: number; readonly ended: number }
  /** New ones, all of which both policies allow. */
  readonly paced: Paced & { readonly perSecond: number }
  readonly streams: StreamReport
  /** What must not be; empty where nothing was. */
  readonly reasons: readonly string[]
}

/** The targets in milliseconds; a run is broken at ten times them. */
export const TARGET_MILLISECONDS = { policies: 1_000, labels: 2_000 } as const
const TOLERANCE = 10

const HELD = 1_000
const STREAMS = 10
const PER_SECOND = 500
/** pace.c looks at each of its connections again and again. */
const PACED_AT_ONCE = 2_500
/** A denied client has so many when its permission goes, and opens so many more at that moment. */
const STANDING = 50
const MEANWHILE = 250
/** A denied client asks so often whether it is denied still. */
const PROBES = 3
const POLL_MILLISECONDS = 10

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))
const monotonicMilliseconds = () => Number(process.hrtime.bigint() / 1_000n) / 1_000

/** One client whose permission is taken and given back, again and again. */
async function takeAndGive(
  field: Field,
  client: ClientName,
  limit: number,
  times: Times,
  reasons: string[],
  set: (allowed: boolean) => void,
): Promise<void> {
  const flows = field.flows.get(client)
  if (flows === undefined) throw new Error(`${client} has no connections`)
  const within = async (begun: number, what: string, holds: () => Promise<boolean>): Promise<number> => {
    while (!(await holds())) {
      if (monotonicMilliseconds() - begun > limit) throw new Error(`${client}: not ${what} within ${limit} ms`)
      await pause(POLL_MILLISECONDS)
    }
    return monotonicMilliseconds() - begun
  }

  const { open } = await flows.client.ask(`open ${STANDING}`)
  if (open !== STANDING) reasons.push(`${client}: ${open} of ${STANDING} connections opened while it was allowed`)
  const taken = monotonicMilliseconds()
  set(false)
  // Handshakes under way as the permission goes: what is released by what was must end too.
  const opening = flows.client.ask(`open ${MEANWHILE}`)
  times.refused.push(await within(taken, 'refused', async () => !(await field.reaches(client))))
  await opening
  let last = 0
  await within(taken, 'ended', async () => {
    const ends = [await flows.client.ask('state'), await flows.server.ask('state')]
    last = Math.max(...ends.map(({ lastEnded }) => lastEnded)) / 1_000
    return ends.every((end) => end.open === 0)
  })
  times.ended.push(last - taken)
  for (let probe = 0; probe < PROBES; probe++) {
    if (await field.reaches(client)) reasons.push(`${client}: a connection was let in while it was denied`)
  }
  const given = monotonicMilliseconds()
  set(true)
  times.allowed.push(await within(given, 'allowed', () => field.reaches(client)))
}

/** Connections of who stays allowed, one after the other at a steady rate, until `isOver`. */
async function paceUntil(field: Field, isOver: () => boolean): Promise<Paced[]> {
  const rounds: Paced[] = []
  while (!isOver()) rounds.push(await field.pace(PER_SECOND, PACED_AT_ONCE))
  return rounds
}

function sumOf(rounds: readonly Paced[]): Paced {
  const sum = (pick: (round: Paced) => number) => rounds.reduce((total, round) => total + pick(round), 0)
  return {
    opened: sum(({ opened }) => opened),
    succeeded: sum(({ succeeded }) => succeeded),
    stalls: sum(({ stalls }) => stalls),
    p50: median(rounds.map(({ p50 }) => p50)),
    p99: median(rounds.map(({ p99 }) => p99)),
    slowest: Math.max(...rounds.map(({ slowest }) => slowest)),
    firstError: rounds.find(({ firstError }) => firstError !== '')?.firstError ?? '',
  }
}

const noTimes = (): Times => ({ ended: [], refused: [], allowed: [] })

/** Runs the changes beside the load. Throws where a change does not count within ten times its target. */
export async function runChanges(field: Field, { policies, labels, say }: ChangeOptions): Promise<ChangeResults> {
  const [ofPolicies, ofLabels] = [noTimes(), noTimes()]
  const reasons: string[] = []
  const steady = field.flows.get('steady')
  if (steady === undefined) throw new Error('nobody is steady')
  const { open: held } = await steady.client.ask(`open ${HELD}`)
  if (held !== HELD) throw new Error(`${held} of ${HELD} connections are open`)
  const report = await field.stream(STREAMS)

  const changePolicies = async () => {
    for (let round = 0; round < policies; round++) {
      const which = REMOVED[round % REMOVED.length] ?? 'ingress'
      const limit = TARGET_MILLISECONDS.policies * TOLERANCE
      await takeAndGive(field, 'turned', limit, ofPolicies, reasons, (allowed) => field.putTurned(which, allowed))
      if (round % 10 === 9) say(`${round + 1} of ${policies} policies removed and added`)
    }
  }
  const changeLabels = async () => {
    for (let round = 0; round < labels; round += 2) {
      const limit = TARGET_MILLISECONDS.labels * TOLERANCE
      await takeAndGive(field, 'labelled', limit, ofLabels, reasons, (allowed) => {
        void field.lab.relabelPod('guarded/labelled', allowed ? LABELS.allowed : LABELS.denied)
      })
    }
  }
  let isOver = false
  const changes = Promise.all([changePolicies(), changeLabels()]).finally(() => {
    isOver = true
  })
  const [rounds] = await Promise.all([paceUntil(field, () => isOver), changes])

  const paced = sumOf(rounds)
  const [{ open, ended }, streams] = [await steady.client.ask('state'), await report()]
  if (open !== HELD) reasons.push(`${ended} of ${HELD} open connections that both policies allow ended`)
  if (paced.succeeded !== paced.opened) {
    reasons.push(
      `${paced.opened - paced.succeeded} of ${paced.opened} new connections that both policies allow failed: ${paced.firstError}`,
    )
  }
  if (streams.open !== STREAMS || streams.wrong > 0) {
    reasons.push(`of ${STREAMS} streams ${streams.ended} ended and ${streams.wrong} numbers came back wrong`)
  }
  return {
    policies: ofPolicies,
    labels: ofLabels,
    held: { open, ended },
    paced: { ...paced, perSecond: PER_SECOND },
    streams,
    reasons,
  }
}
