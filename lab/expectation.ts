import { readFileSync } from 'node:fs'
import { LabError } from './errors.ts'
import type { Result } from './reachability.ts'

export interface Expectation {
  readonly from: string
  readonly to: string
  readonly port: number
  readonly protocol: string
  readonly reachable: boolean
}

const keyOf = ({ from, to, port, protocol }: Omit<Expectation, 'reachable'>) => `${from} -> ${to} ${port}/${protocol}`

/** The expectations in JSON text; protocol defaults to TCP. Throws `lab-expectation`, which names the entry. */
export function parseExpectations(text: string, fileName: string): Expectation[] {
  const bad = (what: string) => new LabError('lab-expectation', `${fileName}: ${what}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw bad(`is not JSON: ${cause instanceof Error ? cause.message : cause}`)
  }
  if (!Array.isArray(value)) throw bad('must be an array of {from, to, port, protocol, reachable}')
  return value.map((entry: unknown, index) => {
    const { from, to, port, protocol = 'TCP', reachable } = (entry ?? {}) as Record<string, unknown>
    if (typeof from !== 'string') throw bad(`[${index}].from must be "namespace/pod", "node" or "external"`)
    if (typeof to !== 'string') throw bad(`[${index}].to must be "namespace/pod"`)
    if (typeof port !== 'number') throw bad(`[${index}].port must be a number`)
    if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP') {
      throw bad(`[${index}].protocol must be TCP, UDP or SCTP`)
    }
    if (typeof reachable !== 'boolean') throw bad(`[${index}].reachable must be true or false`)
    return { from, to, port, protocol, reachable }
  })
}

/** parseExpectations() of a file. */
export function readExpectations(path: string): Expectation[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new LabError('lab-expectation', `${path} cannot be read`, { cause })
  }
  return parseExpectations(text, path)
}

/** A line for each expectation that the results do not meet; connections that nobody expected anything of are not looked at. */
export function findDifferences(results: readonly Result[], expectations: readonly Expectation[]): string[] {
  const byKey = new Map(results.map((result) => [keyOf(result), result]))
  const word = (reachable: boolean) => (reachable ? 'reachable' : 'not reachable')
  return expectations.flatMap((expected) => {
    const key = keyOf(expected)
    const result = byKey.get(key)
    if (result === undefined) return [`${key}: expected ${word(expected.reachable)}, but no such connection was tried`]
    if (result.reachable === expected.reachable) return []
    return [
      `${key}: expected ${word(expected.reachable)}, is ${word(result.reachable)} (${result.decidedBy}; ${result.reason})`,
    ]
  })
}
