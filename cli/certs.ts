import { setTimeout as sleep } from 'node:timers/promises'
import { ROTATION_KINDS, type RotationKind, type RotationRequest } from '../api/rotation.ts'
import { readArguments, requireArgument } from './arguments.ts'
import { ask, requestId } from './certs/ask.ts'
import { fixOf } from './certs/fixes.ts'
import { faultsOf, formatAnswer, formatViews, viewsAsJson } from './certs/format.ts'
import { patiently, type RotationPlace, type RotationViews, readRotation } from './certs/rotation.ts'
import { CliError } from './errors.ts'

export const CERTS_HELP = `synguard certs status [--watch] [--json]
synguard certs rotate identity|serving [--force | --compromised]
synguard certs force identity|serving
synguard certs abort identity|serving

Rotates the keys that sign identities, or the CA of the webhook's certificates, while traffic runs, and tells how far it
is. It writes a request into a ConfigMap and reads the status from another; the webhook does the rest (docs/rotation.md).
It takes the rights of the ClusterRole synguard-operator, bound in Synguard's namespace. No key is read.

  status         the keys by their names, state and age, how many sidecars hold them, what the next step waits for
    --watch      again whenever something changes, until you interrupt it
  rotate         makes a new key, and puts it to use once everybody knows it: identity in a little more than an hour, serving in
                 about ten minutes, longer where a sidecar is silent
    --force      without waiting for sidecars: those that lack the new key refuse peers until they have it
    --compromised
                 the keys are known to others: a new one at once, and the old ones end after a minute at most; a Pod that has
                 no identity by the new one until then refuses peers, and is refused
  force          no longer waits for sidecars in the rotation under way
  abort          takes the rotation under way back

  -n, --namespace NS   Synguard's namespace (synguard)
  --timeout SECONDS    how long to wait for the webhook's answer to a request (90)
  --kubeconfig FILE    as kubectl's; also $KUBECONFIG
  --context NAME       one of its contexts
  --json               status: {"identity","serving"}, each {"status","request","faults"}, with --watch one a line;
                       requests: {"request","outcome","code","message","fix"}

Ends with 0 if the request was taken or the status is as it should be (a rotation that waits is), with 1 if the request
was refused or not answered or the status says what is wrong, with 2 if it could not ask: bad usage, no API server, or no
right to.`

const OPTIONS = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  namespace: { type: 'string', short: 'n' },
  json: { type: 'boolean' },
} as const
const STATUS_OPTIONS = { ...OPTIONS, watch: { type: 'boolean' } } as const
const REQUEST_OPTIONS = { ...OPTIONS, timeout: { type: 'string' } } as const
const ROTATE_OPTIONS = { ...REQUEST_OPTIONS, force: { type: 'boolean' }, compromised: { type: 'boolean' } } as const

const ANSWER_SECONDS = 90
const WATCH_MS = 1_000

const note = (line: string) => process.stderr.write(`${line}\n`)
const answer = (text: string) => process.stdout.write(`${text}\n`)

/** `synguard certs`; returns the exit status. */
export async function runCerts([verb, ...args]: readonly string[]): Promise<number> {
  switch (verb) {
    case 'status':
      return runStatus(args)
    case 'rotate':
      return runRotate(args)
    case 'force':
    case 'abort': {
      const { values, positional } = readArguments(args, REQUEST_OPTIONS, 'kind')
      return runRequest(kindOf(positional), { type: verb }, values)
    }
    default:
      throw new CliError('cli-usage', `certs takes status, rotate, force or abort, not "${verb ?? ''}"`)
  }
}

function kindOf(positional: string | undefined): RotationKind {
  const given = requireArgument(positional, ROTATION_KINDS.join(' or '))
  const kind = ROTATION_KINDS.find((known) => known === given)
  if (kind === undefined) throw new CliError('cli-usage', `"${given}" is neither ${ROTATION_KINDS.join(' nor ')}`)
  return kind
}

interface PlaceOptions {
  readonly kubeconfig?: string
  readonly context?: string
  readonly namespace?: string
}

async function withPlace<Result>(
  options: PlaceOptions,
  use: (place: RotationPlace) => Promise<Result>,
): Promise<Result> {
  // The Kubernetes client takes a second to load, which no other command needs.
  const { connectTo } = await import('./check/connect.ts')
  const cluster = connectTo({ kubeconfig: options.kubeconfig, context: options.context })
  try {
    return await use({ client: cluster.client, namespace: options.namespace ?? 'synguard' })
  } finally {
    cluster.close()
  }
}

async function runStatus(args: readonly string[]): Promise<number> {
  const { values } = readArguments(args, STATUS_OPTIONS)
  const show = (views: RotationViews, now: number) => {
    if (values.json !== true) return formatViews(views, now)
    return JSON.stringify(viewsAsJson(views, now), undefined, values.watch === true ? undefined : 2)
  }
  return withPlace(values, async (place) => {
    if (values.watch === true) return watchStatus(place, show)
    const [views, now] = [await readRotation(place), Date.now() / 1_000]
    answer(show(views, now))
    return ROTATION_KINDS.some((kind) => faultsOf(views[kind], now).length > 0) ? 1 : 0
  })
}

/** Until this process is ended. */
async function watchStatus(place: RotationPlace, show: (views: RotationViews, now: number) => string): Promise<never> {
  let shown = ''
  for (;;) {
    const views = await patiently(() => readRotation(place), note)
    const now = Date.now() / 1_000
    // What grows with time alone is no change.
    const seen = JSON.stringify(viewsAsJson(views, now), (key, value: unknown) => (key === 'at' ? undefined : value))
    if (seen !== shown) answer(show(views, now))
    shown = seen
    await sleep(WATCH_MS)
  }
}

async function runRotate(args: readonly string[]): Promise<number> {
  const { values, positional } = readArguments(args, ROTATE_OPTIONS, 'kind')
  const kind = kindOf(positional)
  const { force = false, compromised = false } = values
  if (force && compromised) {
    throw new CliError('cli-usage', '--force and --compromised: in an emergency sidecars are not waited for anyway')
  }
  if (compromised) return runRequest(kind, { type: 'compromised' }, values)
  return runRequest(kind, { type: 'rotate', ...(force && { force: true as const }) }, values)
}

async function runRequest(
  kind: RotationKind,
  asked: Omit<RotationRequest, 'id'>,
  values: PlaceOptions & { readonly timeout?: string; readonly json?: boolean },
): Promise<number> {
  const timeoutSeconds = readSeconds(values.timeout)
  const request = { id: requestId(asked.type, new Date()), ...asked }
  return withPlace(values, async (place) => {
    const { answer: given, status } = await ask(kind, request, { ...place, timeoutSeconds, note })
    const fix = given.outcome === 'refused' && given.code !== undefined ? fixOf(given.code, kind) : undefined
    if (values.json === true) answer(JSON.stringify({ ...given, fix }, undefined, 2))
    else {
      const place = given.outcome === 'refused' ? '' : `; ${kind} is now ${status.phase}: synguard certs status --watch`
      answer(`${formatAnswer(given)}${place}${fix === undefined ? '' : `\n${fix}`}`)
    }
    return given.outcome === 'refused' ? 1 : 0
  })
}

function readSeconds(text: string | undefined): number {
  if (text === undefined) return ANSWER_SECONDS
  const seconds = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (seconds < 1) throw new CliError('cli-usage', `--timeout ${text} must be a whole number of seconds from 1 on`)
  return seconds
}
