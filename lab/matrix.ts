import type { Result } from './reachability.ts'

const pad = (text: string, width: number) => text.padEnd(width)

/** The results as a table, a row a source and a column a port (`+` reached, `x` not), and a line for each denial. */
export function formatMatrix(results: readonly Result[]): string {
  const sources = [...new Set(results.map(({ from }) => from))]
  const targetOf = ({ to, port, protocol }: Result) => `${to}:${port}/${protocol}`
  const targets = [...new Set(results.map(targetOf))]
  const cells = new Map(results.map((result) => [`${result.from} ${targetOf(result)}`, result.reachable ? '+' : 'x']))
  const sourceWidth = Math.max(4, ...sources.map((source) => source.length))
  const columnWidth = String(targets.length).length
  const row = (name: string, columns: readonly string[]) =>
    `${pad(name, sourceWidth)}  ${columns.map((cell) => cell.padStart(columnWidth)).join(' ')}`
  const lines = [
    ...targets.map((target, index) => `[${index + 1}] ${target}`),
    '',
    row(
      'from',
      targets.map((_, index) => String(index + 1)),
    ),
    ...sources.map((source) =>
      row(
        source,
        targets.map((target) => cells.get(`${source} ${target}`) ?? '.'),
      ),
    ),
    '',
    '+ reached   x not reached   . itself',
  ]
  const denials = results.filter(({ reachable, reason }) => !reachable || reason.startsWith('network and engine'))
  if (denials.length > 0) lines.push('')
  for (const denial of denials) {
    lines.push(`${denial.from} -> ${targetOf(denial)}: ${denial.decidedBy} (${denial.reason})`)
  }
  return lines.join('\n')
}
