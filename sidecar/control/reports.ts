/** What this sidecar tells of denials and connections: `synguard audit`, `synguard flows`, its log, and the issuer. */
import { readFileSync } from 'node:fs'
import type { Mode, PodIdentity } from '../../api/identity.ts'
import { type AuditReport, type FlowsReport, PATH_AUDIT, PATH_FLOWS, PATH_REFUSALS } from '../../api/reports.ts'
import type { ConnectionEnds } from '../datapath/connection-key.ts'
import type { FromWorker, ToWorker } from '../datapath/messages.ts'
import { ControlError } from './errors.ts'
import type { FlowReviewOptions } from './flow-review.ts'
import type { IdentityTable } from './identity-table.ts'
import type { IssuerHttp } from './issuer-http.ts'
import type { LogSink } from './log.ts'
import type { PolicyView } from './policy-view.ts'
import { createRefusalEvents } from './refusal-events.ts'
import { createRefusalLog } from './refusal-log.ts'
import { type DenialContext, reportedDenial, reportedPod } from './reported.ts'
import type { RunningConnections } from './running-connections.ts'

type Told = Extract<FromWorker, { type: 'refusal' | 'denials' | 'opened' }>
type Answer = Exclude<Told, { type: 'refusal' }>
type AnswerOf<Type extends Answer['type']> = Extract<Answer, { type: Type }>
type Question = Extract<ToWorker, { id: number }>

/** The packet path answers at its next wake-up; one that has died answers nothing. */
const ANSWER_MILLISECONDS = 5_000
/** Who asks again within this time gets the same report: a listing takes time from first contacts. */
const REPORT_MILLISECONDS = 1_000
/** Denials that `synguard flows` shows. */
const LAST_DENIALS = 20
const SEND_MILLISECONDS = 5_000
const ACCOUNTING = '/proc/sys/net/netfilter/nf_conntrack_acct'

export interface ReportsOptions {
  readonly pod: () => Pick<PodIdentity, 'namespace' | 'name' | 'labels'>
  readonly mode: () => Mode
  readonly tell: (message: Question) => void
  readonly connections: Pick<RunningConnections, 'list' | 'listDenied'>
  readonly policy: PolicyView['policy']
  readonly table: Pick<IdentityTable, 'rows'>
  readonly currentIdentity: FlowReviewOptions['currentIdentity']
  readonly http: Pick<IssuerHttp, 'send'>
  readonly authenticate: (path: string) => Promise<Record<string, string>>
  readonly now: () => number
  readonly log: LogSink
}

export interface Reports {
  /** By path, for the health server. They reject with ControlError `worker-silent`, and with NetlinkError. */
  readonly documents: Readonly<Record<string, () => Promise<unknown>>>
  /** Takes an answer of the packet path, or a refusal, which is logged and told to the issuer. */
  take(told: Told): void
}

export function createReports(options: ReportsOptions): Reports {
  const { now } = options
  const waiting = new Map<number, (answer: Answer) => void>()
  let questions = 0

  function ask<Type extends Answer['type']>(question: Omit<Extract<Question, { type: Type }>, 'id'>) {
    const id = ++questions
    const { promise, resolve, reject } = Promise.withResolvers<AnswerOf<Type>>()
    const timer = setTimeout(() => {
      waiting.delete(id)
      reject(new ControlError('worker-silent', `no answer within ${ANSWER_MILLISECONDS / 1_000} s`))
    }, ANSWER_MILLISECONDS).unref()
    waiting.set(id, (answer) => {
      clearTimeout(timer)
      resolve(answer as AnswerOf<Type>)
    })
    options.tell({ ...question, id } as Question)
    return promise
  }

  async function openedAt(connections: readonly ConnectionEnds[]): Promise<readonly number[]> {
    return (await ask<'opened'>({ type: 'opened', connections })).at
  }

  function context(): DenialContext {
    const newest = new Map<string, { identity: PodIdentity; issuedAt: number }>()
    for (const row of options.table.rows()) {
      const known = newest.get(row.identity.uid)
      if (known === undefined || known.issuedAt < row.issuedAt) newest.set(row.identity.uid, row)
    }
    return {
      policy: options.policy(),
      currentIdentity({ uid }) {
        const row = newest.get(uid)
        const identity = row && options.currentIdentity(row.identity, row.issuedAt)
        return identity === 'void' ? undefined : identity
      },
    }
  }

  async function denials() {
    const { snapshot, since } = await ask<'denials'>({ type: 'denials' })
    const told = context()
    return {
      head: {
        pod: reportedPod(options.pod()),
        mode: options.mode(),
        at: new Date(now()).toISOString(),
        since: new Date(since).toISOString(),
      },
      rows: snapshot.rows.map((row) => reportedDenial(row, told)),
      unlisted: snapshot.unlisted,
    }
  }

  async function audit(): Promise<AuditReport> {
    const { head, rows, unlisted } = await denials()
    const { running, unlisted: unlistedRunning } = await options.connections.listDenied()
    return { ...head, denials: rows, unlistedDenials: unlisted, running, unlistedRunning }
  }

  async function flows(): Promise<FlowsReport> {
    const { head, rows } = await denials()
    const refusals = rows.toSorted((a, b) => b.last.localeCompare(a.last)).slice(0, LAST_DENIALS)
    return { ...head, ...(await options.connections.list(openedAt)), accounting: isAccounting(), refusals }
  }

  /** The same report for all who ask at once, and shortly after. */
  function shared<Value>(make: () => Promise<Value>): () => Promise<Value> {
    let last: Promise<Value> | undefined
    return () => {
      if (last !== undefined) return last
      const made = make()
      last = made
      const forget = () => {
        last = undefined
      }
      made.then(() => setTimeout(forget, REPORT_MILLISECONDS).unref(), forget)
      return made
    }
  }

  const logRefusal = createRefusalLog(options.log)
  const events = createRefusalEvents({
    denials: async () => (await ask<'denials'>({ type: 'denials' })).snapshot.rows,
    async send(body) {
      const headers = await options.authenticate(PATH_REFUSALS)
      return options.http.send({ method: 'POST', path: PATH_REFUSALS, headers, body, timeoutMs: SEND_MILLISECONDS })
    },
    now,
    log: options.log,
  })

  return {
    documents: { [PATH_AUDIT]: shared(audit), [PATH_FLOWS]: shared(flows) },
    take(told) {
      if (told.type === 'refusal') {
        logRefusal(told.report)
        if (told.report.enforced) events.noted()
        return
      }
      waiting.get(told.id)?.(told)
      waiting.delete(told.id)
    },
  }
}

function isAccounting(): boolean {
  try {
    return readFileSync(ACCOUNTING, 'utf8').trim() === '1'
  } catch {
    return false
  }
}
