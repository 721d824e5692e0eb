/** What went wrong with connections, laid beside what was done to their Pods at the time. Pure. */

/** One connection that failed, took over a second, or never ended. */
export interface Incident {
  readonly event: 'failure' | 'stall' | 'unfinished'
  readonly client: string
  readonly path: string
  readonly servers: readonly string[]
  readonly parallel: number
  /** Milliseconds since 1970. */
  readonly begunAtMs: number
  /** From its begin to its success or failure, or to when nobody waited longer. */
  readonly microseconds: number
  readonly localPort: number
  readonly error: string
}

/** A sidecar that was killed, until it was ready again. Milliseconds since 1970. */
export interface Kill {
  readonly pod: string
  readonly atMs: number
  readyAtMs: number
}

/** A time in which policies allowed a client nothing. Milliseconds since 1970. */
export interface Denial {
  readonly client: string
  readonly how: 'ingress' | 'egress' | 'labels'
  readonly atMs: number
  /** When every server was seen to refuse; infinite until then. */
  settledAtMs: number
  /** When the client was about to be allowed again; infinite until then. */
  liftedAtMs: number
  /** When every server was seen to answer again; infinite until then. */
  endedAtMs: number
}

/** So long after its sidecar was ready again a failure is still the kill's: a SYN may wait for its next repetition. */
const AFTER_KILL_MILLISECONDS = 5_000
/** Times come from two processes, and a restart or a denial is seen some time after it happened. */
const CLOCK_MILLISECONDS = 100
/** The denial is seen to end over one address family of each server; its other paths may follow. */
const AFTER_DENIAL_MILLISECONDS = 1_000

export type Cause = 'kill' | 'denial' | 'none'

function overlaps({ begunAtMs, microseconds }: Incident, from: number, to: number): boolean {
  return begunAtMs <= to && begunAtMs + microseconds / 1000 >= from
}

/** What explains an incident: the kill of a sidecar of either end, or a denial of its client. */
export function causeOf(incident: Incident, kills: readonly Kill[], denials: readonly Denial[]): Cause {
  const isDenied = denials.some(
    ({ client, atMs, endedAtMs }) =>
      client === incident.client &&
      overlaps(incident, atMs - CLOCK_MILLISECONDS, endedAtMs + AFTER_DENIAL_MILLISECONDS),
  )
  if (isDenied && incident.event !== 'unfinished') return 'denial'
  const isKilled = kills.some(
    ({ pod, atMs, readyAtMs }) =>
      (pod === incident.client || incident.servers.includes(pod)) &&
      overlaps(incident, atMs - CLOCK_MILLISECONDS, readyAtMs + AFTER_KILL_MILLISECONDS),
  )
  return isKilled ? 'kill' : 'none'
}

/** Whether a batch ran from begin to end in a time in which its client was denied and every server knew it. */
export function isDeniedThroughout(
  client: string,
  { begunAtMs, endedAtMs }: { readonly begunAtMs: number; readonly endedAtMs: number },
  denials: readonly Denial[],
): boolean {
  return denials.some(
    (denial) => denial.client === client && begunAtMs >= denial.settledAtMs && endedAtMs <= denial.liftedAtMs,
  )
}

/** Incidents by what explains them. */
export interface Causes {
  readonly kill: readonly Incident[]
  readonly denial: readonly Incident[]
  readonly none: readonly Incident[]
}

export interface Account {
  readonly failures: Causes
  readonly stalls: Causes
}

/** Sorts incidents by what explains them. */
export function accountFor(
  incidents: readonly Incident[],
  kills: readonly Kill[],
  denials: readonly Denial[],
): Account {
  const sort = (isWanted: (incident: Incident) => boolean): Causes => {
    const causes = { kill: [] as Incident[], denial: [] as Incident[], none: [] as Incident[] }
    for (const incident of incidents.filter(isWanted)) causes[causeOf(incident, kills, denials)].push(incident)
    return causes
  }
  return { failures: sort(({ event }) => event !== 'stall'), stalls: sort(({ event }) => event === 'stall') }
}
