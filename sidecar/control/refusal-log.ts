/** Tells refusals in the log: each kind at once, then as a count. */
import type { RefusalReport } from '../datapath/gate.ts'
import { REFUSALS } from '../handshake/reasons.ts'
import { createLimitedLog, type LogSink } from './log.ts'

export function createRefusalLog(log: LogSink): (report: RefusalReport) => void {
  const limited = createLimitedLog({ log })
  return (report) => {
    const { enforced, ...fields } = report
    const remote = report.direction === 'ingress' ? report.source : report.destination
    const key = `${report.direction} ${report.refusal} ${report.peer || remote} ${report.destinationPort}`
    const message = enforced ? 'connection refused' : 'connection would be refused'
    limited.report('warn', key, { ...fields, reason: REFUSALS[report.refusal] }, message)
  }
}
