import type { Protocol } from '../../api/identity.ts'
import { canonicalAddress } from '../../policy/address.ts'
import { portNameProblem } from '../../policy/syntax.ts'
import { CliError } from '../errors.ts'

/** What is asked about: one connection. */
export interface Query {
  readonly from: EndName
  readonly to: EndName
  /** A number, or the name of a port of the destination. */
  readonly port: number | string
  readonly protocol: Protocol
}

/** An end as people name it; `any` is a Pod or a Service, whichever there is. */
export type EndName =
  | { readonly kind: 'address'; readonly address: string }
  | { readonly kind: 'pod' | 'service' | 'any'; readonly namespace: string; readonly name: string }

const PROTOCOLS: readonly Protocol[] = ['TCP', 'UDP', 'SCTP']
const KINDS: Readonly<Record<string, 'pod' | 'service'>> = { pod: 'pod', svc: 'service', service: 'service' }
const NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/

/** Reads the options; throws `cli-usage` that names the one that is wrong. */
export function parseQuery(values: {
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly port?: string | undefined
  readonly protocol?: string | undefined
}): Query {
  const from = parseEnd('--from', values.from)
  const to = parseEnd('--to', values.to)
  if (from.kind === 'service') throw new CliError('cli-usage', '--from is a Service, which opens no connections')
  const protocolText = (values.protocol ?? 'TCP').toUpperCase()
  const protocol = PROTOCOLS.find((known) => known === protocolText)
  if (protocol === undefined) {
    throw new CliError('cli-usage', `--protocol "${values.protocol}" is none of ${PROTOCOLS.join(', ')}`)
  }
  return { from, to, port: parsePort(values.port), protocol }
}

function parseEnd(option: string, text: string | undefined): EndName {
  if (text === undefined || text === '') throw new CliError('cli-usage', `${option} is missing`)
  const address = canonicalAddress(text)
  if (address !== undefined) return { kind: 'address', address }
  const parts = text.split('/')
  const [namespace = '', ...rest] = parts
  const name = rest.at(-1) ?? ''
  const kind = rest.length === 1 ? 'any' : rest.length === 2 ? KINDS[rest[0] ?? ''] : undefined
  if (kind === undefined || !NAME.test(namespace) || !NAME.test(name)) {
    const forms = 'NAMESPACE/NAME, NAMESPACE/pod/NAME, NAMESPACE/svc/NAME or an IP address'
    throw new CliError('cli-usage', `${option} "${text}" is not ${forms}`)
  }
  return { kind, namespace, name }
}

function parsePort(text: string | undefined): number | string {
  if (text === undefined || text === '') throw new CliError('cli-usage', '--port is missing')
  if (/^\d+$/.test(text)) {
    const port = Number(text)
    if (port >= 1 && port <= 65_535) return port
    throw new CliError('cli-usage', `--port ${text} must be from 1 to 65535`)
  }
  const problem = portNameProblem(text)
  if (problem !== undefined) throw new CliError('cli-usage', `--port "${text}" ${problem}`)
  return text
}

/** As it was asked for. */
export function formatEnd(end: EndName): string {
  return end.kind === 'address' ? end.address : `${end.namespace}/${end.name}`
}
