/**
 * What operators and the webhook say to each other of the rotation of keys: two ConfigMaps in Synguard's namespace, each
 * with an entry for the identity keys and one for the serving CAs. Neither holds a key (docs/rotation.md). The status is
 * read by api/rotation-status.ts.
 */

/** Operators write it; an entry is `EVENT NAME`, for example `identity: rotate monday`. */
export const CONFIGMAP_ROTATION = 'synguard-rotation'
/** The webhook writes it, and operators read it. */
export const CONFIGMAP_ROTATION_STATUS = 'synguard-rotation-status'

/** What is rotated; also the keys of both ConfigMaps. */
export const ROTATION_KINDS = ['identity', 'serving'] as const
export type RotationKind = (typeof ROTATION_KINDS)[number]

/** What an operator may ask for, by the names that certs/rotation/transitions.ts gives the events. */
export const ROTATION_REQUESTS = ['rotate', 'compromised', 'force', 'abort'] as const

export interface RotationRequest {
  /** Unlike that of the request before, so that each is taken once. */
  readonly id: string
  readonly type: (typeof ROTATION_REQUESTS)[number]
  /** Of rotate: sidecars are not waited for. */
  readonly force?: true
}

/** As labels' values are, and as the time of day may be written. */
const REQUEST_ID = /^[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,61}[A-Za-z0-9])?$/
/** More than the longest request has. */
const REQUEST_CHARACTERS = 100

/** The entry's value: `rotate NAME`, `rotate NAME force`, `compromised NAME`, `force NAME` or `abort NAME`. */
export function formatRotationRequest({ id, type, force }: RotationRequest): string {
  return `${type} ${id}${force ? ' force' : ''}`
}

/**
 * The request for one kind in the ConfigMap's `data`, undefined where there is none or it cannot be read; and what is
 * wrong, as sentences that begin with the entry's key: of this entry, and of those that belong to no kind.
 */
export function parseRotationRequest(
  kind: RotationKind,
  data: Readonly<Record<string, unknown>> | undefined,
): { readonly request?: RotationRequest; readonly problems: readonly string[] } {
  const kinds: readonly string[] = ROTATION_KINDS
  const stray = Object.keys(data ?? {}).filter((key) => !kinds.includes(key))
  const problems = stray.slice(0, STRAY_MAX).map((key) => `${quote(key)}: is neither ${ROTATION_KINDS.join(' nor ')}.`)
  const value = Object.hasOwn(data ?? {}, kind) ? data?.[kind] : undefined
  if (value === undefined || value === null || value === '') return { problems }
  const request = parseRequest(value)
  return typeof request === 'string' ? { problems: [`${kind}: ${request}.`, ...problems] } : { request, problems }
}

/** Entries of no kind that are named. */
const STRAY_MAX = 4
const WANTED = '"rotate NAME", "rotate NAME force", "compromised NAME", "force NAME" or "abort NAME"'

function parseRequest(value: unknown): RotationRequest | string {
  if (typeof value !== 'string') return `is no text; write ${WANTED}`
  if (value.length > REQUEST_CHARACTERS) return `is longer than ${REQUEST_CHARACTERS} characters; write ${WANTED}`
  const [event = '', id, option, ...rest] = value.trim().split(/\s+/)
  const type = ROTATION_REQUESTS.find((known) => known === event)
  if (type === undefined) return `the event ${quote(event)} is none of ${ROTATION_REQUESTS.join(', ')}`
  const events: readonly string[] = ROTATION_REQUESTS
  // So that "rotate force" is not taken for a request of that name.
  if (id === undefined || events.includes(id)) return `the request's name is missing; write "${type} NAME"`
  if (!REQUEST_ID.test(id)) return `the name ${quote(id)} is not 1 to 63 letters, digits, ".", "_", ":" or "-"`
  if (option === undefined) return { id, type }
  if (type !== 'rotate' || option !== 'force' || rest.length > 0) {
    return `${quote([option, ...rest].join(' '))} is too much; write ${WANTED}`
  }
  return { id, type, force: true }
}

/** As certs/rotation/keyring.ts has them. */
export const ROTATION_PHASES = ['none', 'idle', 'prepared', 'offered', 'switched', 'draining'] as const
export const ROTATION_KEY_STATES = ['prepared', 'active', 'previous'] as const
/** `unknown`: the replica that answered came to its end before it wrote what came of it. */
export const ROTATION_OUTCOMES = ['taken', 'refused', 'unknown'] as const

/** All times are seconds since the epoch by the writer's clock, in the ConfigMap RFC 3339 in UTC. */
export interface RotationStatus {
  /** When this was so. Also written where nothing changed, each ROTATION_STATUS_SECONDS. */
  readonly at: number
  readonly phase: (typeof ROTATION_PHASES)[number]
  /** In the order of their making. */
  readonly keys: readonly RotationStatusKey[]
  /** How many of the expected sidecars hold the latest keys, and who does not: `NAMESPACE/POD`, the first of many. */
  readonly sidecars: { readonly expected: number; readonly acknowledged: number; readonly missing: readonly string[] }
  /** What each possible step waits for; empty where none does. */
  readonly waits: readonly RotationWait[]
  /** The request that was answered last; as long as another stands in the ConfigMap, that one waits. */
  readonly answered?: RotationAnswer
  /** What keeps the rotation from going on, or a request from being read, other than a wait. */
  readonly conditions: readonly RotationCondition[]
  /** When the schedule begins the next rotation. */
  readonly scheduledAt?: number
}

export interface RotationStatusKey {
  /** The kid, or the fingerprint of a CA certificate. */
  readonly id: string
  readonly state: (typeof ROTATION_KEY_STATES)[number]
  /** When it came into this state. */
  readonly since: number
  readonly compromised?: true
  readonly forced?: true
  readonly aborted?: true
}

export interface RotationWait {
  /** In docs/errors.md, "Rotation of keys". */
  readonly code: string
  readonly message: string
  /** The first of those waited for: replicas' names, or `NAMESPACE/POD` of sidecars. */
  readonly names?: readonly string[]
  /** How many they are in all, where `names` are not all. */
  readonly count?: number
  /** The earliest time of the step if they never answer. */
  readonly until?: number
}

export interface RotationAnswer {
  /** The request's id. */
  readonly request: string
  readonly outcome: (typeof ROTATION_OUTCOMES)[number]
  /** Of a refused one: in docs/errors.md, with its sentence. */
  readonly code?: string
  readonly message?: string
}

export interface RotationCondition {
  /** In docs/errors.md: `rotation-request`, `authority-key`, `cluster-unavailable`, … */
  readonly code: string
  /** What is wrong, where, and what mends it. */
  readonly message: string
  readonly since?: number
}

/** Whoever steps writes the status at least so often: one that is much older is nobody's, and no replica steps. */
export const ROTATION_STATUS_SECONDS = 60
/** Names are for a person to begin with; the numbers say how many they are. */
export const ROTATION_NAMES_MAX = 20
/** Of a message; far more than any of ours has. */
export const ROTATION_TEXT_CHARACTERS = 1_000
/** Beside each other they would hide the one that matters. */
const CONDITIONS_MAX = 8

/**
 * The entries of one kind for the status ConfigMap: the whole as indented JSON under the kind's name, and for `kubectl
 * wait` the phase and the request answered last, alone, as `KIND-phase` and `KIND-answered`. Names, messages and
 * conditions are cut to what parseRotationStatus() takes.
 */
export function formatRotationStatus(kind: RotationKind, status: RotationStatus): Readonly<Record<string, string>> {
  const { at, phase, keys, sidecars, waits, answered, conditions, scheduledAt } = status
  const whole = {
    at: formatTime(at),
    phase,
    keys: keys.map(({ id, state, since, compromised, forced, aborted }) => {
      return { id, state, since: formatTime(since), compromised, forced, aborted }
    }),
    sidecars: {
      expected: sidecars.expected,
      acknowledged: sidecars.acknowledged,
      missing: sidecars.missing.slice(0, ROTATION_NAMES_MAX),
    },
    waits: waits.map(({ code, message, names, count = 0, until }) => ({
      code,
      message: cut(message),
      ...(names !== undefined && { names: names.slice(0, ROTATION_NAMES_MAX), count: Math.max(count, names.length) }),
      ...(until !== undefined && { until: formatTime(until) }),
    })),
    ...(answered !== undefined && {
      answered: {
        request: answered.request,
        outcome: answered.outcome,
        code: answered.code,
        ...(answered.message !== undefined && { message: cut(answered.message) }),
      },
    }),
    conditions: conditions.slice(0, CONDITIONS_MAX).map(({ code, message, since }) => {
      return { code, message: cut(message), ...(since !== undefined && { since: formatTime(since) }) }
    }),
    ...(scheduledAt !== undefined && { scheduledAt: formatTime(scheduledAt) }),
  }
  return {
    [kind]: `${JSON.stringify(whole, undefined, 2)}\n`,
    [`${kind}-phase`]: phase,
    [`${kind}-answered`]: answered?.request ?? '',
  }
}

function formatTime(seconds: number): string {
  return new Date(Math.floor(seconds) * 1_000).toISOString().replace('.000', '')
}

/** What somebody wrote, for a message: as long as a line, and without what a terminal would act upon. */
function quote(text: string): string {
  return `"${(text.length > 60 ? `${text.slice(0, 60)}…` : text).replaceAll(/\p{C}/gu, '\ufffd')}"`
}

function cut(text: string): string {
  const line = text.replaceAll(/\s+/g, ' ')
  const short = line.length > ROTATION_TEXT_CHARACTERS ? `${line.slice(0, ROTATION_TEXT_CHARACTERS - 1)}…` : line
  return short.replaceAll(/\p{C}/gu, '\ufffd')
}
