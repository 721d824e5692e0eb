/** Looks from time to time whether the Pod's rules are still those of the init step. */
import { QUEUE_OTHER, QUEUE_TCP, SIDECAR_UID } from '../../api/names.ts'
import { findExpected, rulesDiffer } from '../rules/apply.ts'
import type { Condition } from './health.ts'
import type { LogSink } from './log.ts'

export interface RulesCheckOptions {
  readonly refusal: 'reset' | 'drop'
  readonly intervalMs: number
  /** Hears of each check's result. */
  readonly onCondition: (condition: Condition) => void
  readonly log: LogSink
}

export function startRulesCheck(options: RulesCheckOptions): void {
  async function check(): Promise<void> {
    try {
      const differences = await findDifferences(options.refusal)
      if (differences.length > 0) options.log.error({ differences }, 'rules differ')
      const reason = differences.length === 0 ? 'as installed' : differences.slice(0, 3).join('; ')
      options.onCondition({ name: 'rules', ok: differences.length === 0, reason })
    } catch (error) {
      options.onCondition({ name: 'rules', ok: false, reason: (error as Error).message })
    }
  }

  void check()
  setInterval(() => void check(), options.intervalMs)
}

async function findDifferences(refusal: 'reset' | 'drop'): Promise<readonly string[]> {
  const expected = await findExpected()
  if (expected === undefined) return ['no rules of Synguard are installed']
  const options = { queueTcp: QUEUE_TCP, queueOther: QUEUE_OTHER, sidecarUid: SIDECAR_UID, refusal }
  return rulesDiffer({ ...expected, options })
}
