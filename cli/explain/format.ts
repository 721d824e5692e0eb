import { stringify } from 'yaml'
import { formatPolicies } from '../../policy/explain.ts'
import { listNames } from '../check/finding.ts'
import type { Answer, JudgedWay } from './answer.ts'
import type { Verdict } from './verdict.ts'

/** The answer for a terminal. Ways on which both ends decide the same for the same reasons are told once. */
export function formatAnswer(answer: Answer): string {
  const { from, to, port, protocol, ways } = answer
  const groups = [...Map.groupBy(ways, groupOf).values()]
  const allowed = ways.filter((way) => way.allowed).length
  const some = allowed === 0 ? 'denied' : `allowed to ${allowed} of ${ways.length} endpoints`
  const source = answer.source === undefined ? '' : ` (${answer.source})`
  return [
    `${from}${source} to ${to}, ${protocol}/${port}: ${answer.allowed ? 'allowed' : some}`,
    ...groups.flatMap((group) => ['', ...formatGroup(from, group)]),
  ].join('\n')
}

/** The same text for ways that need not be told apart. */
function groupOf({ allowed, egress, ingress, service }: JudgedWay): string {
  const key = ({ outcome, refusal, decision, guard }: Verdict) => [outcome, refusal, decision, guard]
  return JSON.stringify([allowed, service, key(egress), key(ingress)])
}

function formatGroup(from: string, ways: readonly JudgedWay[]): string[] {
  const [first, ...others] = ways
  if (first === undefined) return []
  const { dialled, endpoint, service, translatedBy } = first
  const at = joinPort(dialled.address, dialled.port)
  const through = service === undefined ? [] : [`through Service ${service}`]
  const translated = translatedBy === undefined ? [] : [`seen as coming from node ${translatedBy}`]
  const same = others.map((way) => nameOf(way))
  return [
    [`${first.source} to ${at}`, ...through, `to ${nameOf(first)}`, ...translated].join(', '),
    ...(same.length === 0 ? [] : [`the same for ${listNames(same)}`]),
    ...formatEnd(`source ${from}`, first.egress),
    ...formatEnd(`destination ${endpoint?.pod ?? endpoint?.address ?? service ?? at}`, first.ingress),
  ]
}

function nameOf({ endpoint }: JudgedWay): string {
  if (endpoint === undefined) return 'no endpoint'
  const at = joinPort(endpoint.address, endpoint.port)
  return endpoint.pod === undefined ? at : `${endpoint.pod} at ${at}`
}

function joinPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

const OUTCOMES: Readonly<Record<Verdict['outcome'], string>> = {
  allowed: '',
  denied: '',
  tolerated: '; the mode lets it pass',
  unjudged: '',
}

function formatEnd(name: string, verdict: Verdict): string[] {
  const { guard, reason, outcome, refusal, peer, direction, policies = [], wouldAllow, suggestion } = verdict
  const code = refusal === undefined ? '' : ` [${refusal}]`
  const lines = [`  ${name}: ${formatGuard(guard)}`, `    ${reason}${code}${OUTCOMES[outcome]}`]
  if (peer !== undefined) lines.push(`    it sees ${peer}`)
  lines.push(...formatPolicies(direction, policies).map((line) => `    ${line}`))
  if (wouldAllow.length > 0) lines.push('    What would allow it:', ...wouldAllow.map((line) => `      ${line}`))
  if (suggestion !== undefined) {
    const yaml = stringify(suggestion).trimEnd().split('\n')
    lines.push('    Or this policy beside the others:', ...yaml.map((line) => `      ${line}`))
  }
  return lines
}

function formatGuard(guard: Verdict['guard']): string {
  if (guard === undefined) return 'not guarded'
  const { mode, modeBy, ready, revoked } = guard
  return [
    'guarded',
    modeBy === undefined ? mode : `${mode} (${modeBy})`,
    ...(ready ? [] : ['its sidecar is not ready, so nothing new passes']),
    ...(revoked ? ['revoked by an operator'] : []),
  ].join(', ')
}
