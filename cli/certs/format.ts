import {
  formatRotationStatus,
  ROTATION_KINDS,
  ROTATION_STATUS_SECONDS,
  type RotationAnswer,
  type RotationKind,
  type RotationStatus,
  type RotationWait,
} from '../../api/rotation.ts'
import { listNames } from '../check/finding.ts'
import { fixOf } from './fixes.ts'
import { pendingRequest, type RotationView, type RotationViews } from './rotation.ts'

const PHASES: Readonly<Record<RotationStatus['phase'], string>> = {
  none: 'no keys yet',
  idle: 'one key, and no rotation under way',
  prepared: 'a new key is made; replicas begin to give it out',
  offered: 'all replicas give the new key out; sidecars take it up',
  switched: 'the new key signs; replicas leave the old one',
  draining: 'the new key signs; what the old one signed comes to its end',
}

/** After so long nobody steps: several times what may lie between two writings, and what two clocks may differ. */
const STALE_SECONDS = 5 * ROTATION_STATUS_SECONDS

/** Sentences on what is not as it should be; waits are as they should be. */
export function faultsOf({ status, problems }: RotationView, now: number): readonly string[] {
  if (status === undefined) return problems
  const conditions = status.conditions.map(({ code, message }) => `${message} [${code}]`)
  const isStale = now - status.at > STALE_SECONDS
  const stale = `no replica of the webhook has written this status since ${formatTime(status.at)}`
  // What the webhook says too is said once, in its words.
  const unsaid = problems.filter((problem) => !status.conditions.some(({ message }) => problem.endsWith(message)))
  return [...(isStale ? [stale] : []), ...unsaid, ...conditions]
}

/** The whole as text for people; `now` in seconds since the epoch. */
export function formatViews(views: RotationViews, now: number): string {
  return ROTATION_KINDS.map((kind) => formatView(kind, views[kind], now)).join('\n\n')
}

function formatView(kind: RotationKind, view: RotationView, now: number): string {
  const { status } = view
  const lines = status === undefined ? [`${kind}  not known`] : formatStatus(kind, status, now)
  const pending = pendingRequest(view)
  const asked = pending === undefined ? [] : [line('request', `${pending.id}: ${pending.type}, not answered yet`)]
  const faults = faultsOf(view, now).map((fault) => line('wrong', fault))
  const codes = status?.conditions.map(({ code }) => code) ?? []
  const fixes = codes.flatMap((code) => fixOf(code, kind) ?? []).map((fix) => line('fix', fix))
  return [...lines, ...asked, ...faults, ...fixes].join('\n')
}

const line = (name: string, text: string) => `  ${name.padEnd(8)}  ${text}`

function formatStatus(kind: RotationKind, status: RotationStatus, now: number): readonly string[] {
  const { phase, keys, sidecars, waits, answered, scheduledAt } = status
  const widest = Math.max(0, ...keys.map(({ id }) => id.length))
  const missing = sidecars.expected - sidecars.acknowledged
  const without =
    missing > 0 ? `; without them: ${listNames(sidecars.missing, 20)}${more(sidecars.missing, missing)}` : ''
  return [
    `${kind}  ${phase}: ${PHASES[phase]}`,
    ...keys.map(({ id, state, since, ...flags }) => {
      const marks = (['compromised', 'forced', 'aborted'] as const).filter((flag) => flags[flag]).join(', ')
      const time = `since ${formatTime(since)} (${formatSpan(now - since)})`
      return line('key', `${id.padEnd(widest)}  ${state.padEnd(8)}  ${time}${marks && `, ${marks}`}`)
    }),
    line('sidecars', `${sidecars.acknowledged} of ${sidecars.expected} hold the latest keys${without}`),
    ...waits.flatMap((wait) => formatWait(kind, wait, now)),
    ...(answered === undefined ? [] : [line('request', formatAnswer(answered))]),
    ...(scheduledAt === undefined ? [] : [line('schedule', `the next one begins at ${formatTime(scheduledAt)}`)]),
  ]
}

function formatWait(kind: RotationKind, { code, message, names = [], count = 0, until }: RotationWait, now: number) {
  const named = names.length === 0 ? '' : ` ${names.join(', ')}${more(names, count)};`
  const end = until === undefined ? '' : ` goes on by itself at ${formatTime(until)} (${formatWhen(until - now)})`
  const fix = fixOf(code, kind)
  const text = `${message}${named}${end} [${code}]`
  return [line('waits', text), ...(fix === undefined ? [] : [line('fix', fix)])]
}

/** `monday: refused: A rotation is under way. [rotation-running]` */
export function formatAnswer({ request, outcome, code, message }: RotationAnswer): string {
  const unknown = outcome === 'unknown' ? 'answered; the replica ended before it wrote what came of it' : outcome
  return `${request}: ${unknown}${message ? `: ${message}` : ''}${code ? ` [${code}]` : ''}`
}

function more(names: readonly string[], count: number): string {
  return count > names.length ? ` and ${count - names.length} more` : ''
}

function formatTime(seconds: number): string {
  return new Date(seconds * 1_000).toISOString().replace('.000', '')
}

function formatWhen(seconds: number): string {
  return seconds > 0 ? `in ${formatSpan(seconds)}` : 'due'
}

/** `50 s`, `12 min`, `30 h`, `12 d` */
function formatSpan(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 120) return `${whole} s`
  if (whole < 7_200) return `${Math.round(whole / 60)} min`
  return whole < 172_800 ? `${Math.round(whole / 3_600)} h` : `${Math.round(whole / 86_400)} d`
}

/** The whole for programs: the status as its ConfigMap has it, the request not answered yet, and what is wrong. */
export function viewsAsJson(views: RotationViews, now: number) {
  const entries = ROTATION_KINDS.map((kind) => {
    const view = views[kind]
    const pending = pendingRequest(view)
    const status = view.status === undefined ? undefined : statusAsJson(kind, view.status)
    return [kind, { status, request: pending, faults: faultsOf(view, now) }]
  })
  return Object.fromEntries(entries) as Readonly<Record<RotationKind, unknown>>
}

function statusAsJson(kind: RotationKind, status: RotationStatus): unknown {
  return JSON.parse(formatRotationStatus(kind, status)[kind] ?? '')
}
