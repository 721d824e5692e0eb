import { ROTATION_KINDS, type RotationKind, type RotationStatus } from '../../../api/rotation.ts'
import { fixOf } from '../../certs/fixes.ts'
import { faultsOf, formatAnswer } from '../../certs/format.ts'
import { pendingRequest, type RotationView } from '../../certs/rotation.ts'
import type { Facts } from '../facts.ts'
import { type Check, count, type Found, listNames, mend, note, ofSeen, ok } from '../finding.ts'

const DAY = 86_400
/** Replicas take each other's news within seconds, and one that ended counts for a minute. */
const REPLICAS_SECONDS = 600
/** What is due is done within seconds; clocks may differ by two minutes. */
const LATE_SECONDS = 600
/** Without a schedule somebody should have thought of it. */
const OLD_SECONDS = 365 * DAY

function checkRotation({ installation, atMs }: Facts): readonly Found[] {
  return ofSeen('the rotation of keys', installation.rotation, (views) =>
    ROTATION_KINDS.flatMap((kind) => checkKind(kind, views[kind], atMs / 1_000, installation.namespace)),
  )
}

function checkKind(kind: RotationKind, view: RotationView, now: number, namespace: string): readonly Found[] {
  const logs = `kubectl -n ${namespace} logs deployment/synguard-webhook`
  const { status } = view
  const faults = faultsOf(view, now).map((fault) => {
    const [, code = ''] = /\[([a-z-]+)\]$/.exec(fault) ?? []
    return mend(fault.includes(`${kind}: `) ? fault : `${kind}: ${fault}`, fixOf(code, kind) ?? logs)
  })
  if (status === undefined) return faults
  const found = [...faults, ...checkWaits(kind, status, now, logs), ...checkRequests(kind, view)]
  const late = checkAge(kind, status, now, logs)
  return [
    ...found,
    ...(late === undefined ? [] : [late]),
    ...(found.length === 0 && !late ? [sumUp(kind, status, now)] : []),
  ]
}

/** Waits that have lasted longer than they should. */
function checkWaits(kind: RotationKind, { keys, waits }: RotationStatus, now: number, logs: string): readonly Found[] {
  const since = Math.max(...keys.map((key) => key.since))
  return waits.flatMap(({ code, message, names = [], until }): Found[] => {
    const named = names.length === 0 ? '' : ` ${listNames(names)}`
    const text = `${kind}: ${message}${named} [${code}]`
    const fix = fixOf(code, kind) ?? logs
    if (code === 'rotation-keys-lost') return [mend(text, fix)]
    const end = until === undefined ? since + REPLICAS_SECONDS : until + LATE_SECONDS
    return now > end ? [mend(`${text}, for longer than it should`, fix)] : []
  })
}

function checkRequests(kind: RotationKind, view: RotationView): readonly Found[] {
  const pending = pendingRequest(view)
  const answered = view.status?.answered
  return [
    ...(pending === undefined ? [] : [note(`${kind}: the request ${pending.id} is not answered yet`)]),
    ...(answered?.outcome === 'refused'
      ? [note(`${kind}: the last request was refused: ${formatAnswer(answered)}`)]
      : []),
  ]
}

function checkAge(kind: RotationKind, status: RotationStatus, now: number, logs: string): Found | undefined {
  const { keys, phase, scheduledAt } = status
  if (scheduledAt !== undefined && phase === 'idle' && now > scheduledAt + LATE_SECONDS) {
    return mend(`${kind}: a rotation was due by schedule and has not begun`, logs)
  }
  const active = keys.find(({ state }) => state === 'active')
  if (active === undefined || scheduledAt !== undefined || now < active.since + OLD_SECONDS) return undefined
  const message = `${kind}: the active key is ${days(now - active.since)} old, and no schedule rotates it`
  return note(message, `synguard certs rotate ${kind}`)
}

function sumUp(kind: RotationKind, { phase, keys, sidecars }: RotationStatus, now: number): Found {
  const active = keys.find(({ state }) => state === 'active')
  if (phase === 'idle' && active !== undefined) return ok(`${kind}: one key, ${days(now - active.since)} old`)
  if (active === undefined) return note(`${kind}: no keys yet`)
  return ok(`${kind}: a rotation is under way (${phase}), ${sidecars.acknowledged} of ${sidecars.expected} sidecars`)
}

const days = (seconds: number): string => count(Math.max(0, Math.floor(seconds / DAY)), 'day')

export const ROTATION_CHECKS: readonly Check[] = [{ name: 'key-rotation', needsInstallation: true, run: checkRotation }]
