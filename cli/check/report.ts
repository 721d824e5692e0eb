import type { Facts } from './facts.ts'
import type { Finding } from './finding.ts'
import { stateOf } from './installation.ts'

/** What it all comes to. */
export type Result = 'fine' | 'not-installed' | 'fix' | 'blind'

/** The exit status of each. */
export const STATUS_OF: Readonly<Record<Result, number>> = { fine: 0, fix: 1, blind: 2, 'not-installed': 3 }

const SENTENCES: Readonly<Record<Result, string>> = {
  fine: 'Nothing to mend',
  'not-installed': 'Nothing to mend before the installation',
  fix: 'To mend',
  blind: 'Your rights show nothing of Synguard here',
}

/** `blind` where not even whether Synguard is installed could be seen, nor anything to mend. */
export function resultOf({ installation }: Facts, findings: readonly Finding[]): Result {
  if (findings.some(({ status }) => status === 'fix')) return 'fix'
  const state = stateOf(installation)
  if (state === 'unknown') return 'blind'
  return state === 'absent' ? 'not-installed' : 'fine'
}

/** One line a finding, and one that sums them up. */
export function formatFindings(findings: readonly Finding[], result: Result): string {
  const widest = Math.max(...findings.map(({ check }) => check.length))
  const lines = findings.map(({ status, check, message, fix }) =>
    `${status.padEnd(6)}  ${check.padEnd(widest)}  ${message}${fix === undefined ? '' : `; ${fix}`}`.trimEnd(),
  )
  const count = (wanted: Finding['status']) => findings.filter(({ status }) => status === wanted).length
  const counts = `${count('ok')} ok, ${count('fix')} to mend, ${count('unseen')} not seen`
  return [...lines.map(onOneLine), '', `${SENTENCES[result]}: ${counts}`].join('\n')
}

/** The API server's messages may have several lines. */
function onOneLine(line: string): string {
  return line.replace(/\s*\n\s*/g, ' ')
}
