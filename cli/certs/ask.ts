import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  CONFIGMAP_ROTATION,
  formatRotationRequest,
  type RotationAnswer,
  type RotationKind,
  type RotationRequest,
  type RotationStatus,
} from '../../api/rotation.ts'
import { CliError } from '../errors.ts'
import { patiently, pendingRequest, type RotationPlace, readRotation, writeRequest } from './rotation.ts'

/** The webhook looks every few seconds; nothing is hurried by asking more often. */
const POLL_MS = 500

/** A name that no other request has, and that says when it was made: `rotate-20260131T120000Z-3fa9c1`. */
export function requestId(type: RotationRequest['type'], at: Date): string {
  const time = at.toISOString().replace(/[-:]|\.\d+/g, '')
  return `${type}-${time}-${randomBytes(3).toString('hex')}`
}

export interface AskOptions extends RotationPlace {
  readonly timeoutSeconds: number
  /** For what a person should know meanwhile. */
  readonly note: (line: string) => void
}

export interface Answered {
  readonly answer: RotationAnswer
  readonly status: RotationStatus
}

/**
 * Writes the request and waits until the webhook has answered it. Rejects with CliError `certs-unanswered` or
 * `certs-replaced`, and with ApiError where it could not be written or read.
 */
export async function ask(kind: RotationKind, request: RotationRequest, options: AskOptions): Promise<Answered> {
  const { namespace, timeoutSeconds, note } = options
  const pending = pendingRequest((await readRotation(options))[kind])
  if (pending !== undefined) note(`takes the place of the request ${pending.id}, which was not answered yet`)
  await writeRequest(options, kind, formatRotationRequest(request))
  note(`asked as ${request.id}`)
  const limit = AbortSignal.timeout(timeoutSeconds * 1_000)
  for (;;) {
    const view = (await patiently(() => readRotation(options), note, limit))[kind]
    const { status } = view
    if (status?.answered?.request === request.id) return { answer: status.answered, status }
    if (view.request?.id !== request.id) {
      const other = view.request === undefined ? 'no request' : `the request ${view.request.id}`
      throw new CliError('certs-replaced', `${request.id} was not answered: ${other} stands in its place`)
    }
    if (limit.aborted) {
      const why = view.problems.length === 0 ? '' : ` (${view.problems.join(' ')})`
      const withdraw = `kubectl -n ${namespace} patch configmap ${CONFIGMAP_ROTATION} --type merge -p '{"data":{"${kind}":""}}'`
      throw new CliError(
        'certs-unanswered',
        `no replica of the webhook answered ${request.id} within ${timeoutSeconds} s${why}; it stands, and is taken ` +
          `when one does; to withdraw it: ${withdraw}`,
      )
    }
    await sleep(POLL_MS)
  }
}
