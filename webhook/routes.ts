import type { ErrorRequestHandler, Express, Request, Response } from 'express'
import express from 'express'
import type { Logger } from 'pino'
import type { AcknowledgeRequest, ErrorResponse, IdentityResponse, PodIdentity } from '../api/identity.ts'
import { HEADER_PROOF, HEADER_WIT } from '../api/identity.ts'
import { PATH_REFUSALS, type ToldRefusal } from '../api/reports.ts'
import type { VerifiedWit } from '../certs/wit.ts'
import { canonicalAddress, formatAddress, parseAddress, unmapAddress } from '../policy/address.ts'
import type { Directory } from './directory/directory.ts'
import type { HttpRefusal } from './errors.ts'
import { refusalOf, WEBHOOK_ERRORS, WebhookError } from './errors.ts'
import type { Authority } from './issuer/authority.ts'
import type { Issuer } from './issuer/issuer.ts'
import {
  ACKNOWLEDGE_BODY_BYTES,
  IDENTITY_BODY_BYTES,
  MUTATE_BODY_BYTES,
  REFUSALS_BODY_BYTES,
  STREAM_BODY_BYTES,
} from './limits.ts'
import type { WebhookMetrics } from './metrics.ts'
import { parseRefusalsRequest } from './refusals.ts'
import type { Streams } from './stream.ts'
import { parseAcknowledgeRequest, parseStreamRequest } from './stream.ts'

export interface RoutesOptions {
  readonly issuer: Issuer
  readonly directory: Directory
  readonly streams: Streams
  readonly authority: Authority
  readonly metrics: WebhookMetrics
  readonly log: Logger
  /** Hears which keys a Pod's sidecar holds. */
  readonly acknowledge: (uid: string, held: AcknowledgeRequest) => void
  /** Hears what a Pod's sidecar refused. */
  readonly refused: (caller: PodIdentity, refusals: readonly ToldRefusal[]) => void
  /** Whether the cluster was seen in full. */
  readonly synced: () => boolean
  /** Answers an AdmissionReview; never rejects. */
  readonly mutate: ((review: unknown) => Promise<unknown>) | undefined
}

interface Route {
  readonly method: 'get' | 'post'
  /** Only for a WIT with its proof; the handler gets whose they are. */
  readonly authenticated?: boolean
  /** The largest body; without it none is read. */
  readonly bodyBytes?: number
  readonly handle: (request: Request, response: Response, caller: VerifiedWit | undefined) => Promise<void>
}

/** The HTTPS interface: the admission webhook, and the issuer under /v1. */
export function createRoutes(options: RoutesOptions): Express {
  const { issuer, directory, streams, authority, metrics } = options
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  // Repeated and nested parameters stay texts or lists; the proof covers the query as it was sent.
  app.set('query parser', 'simple')
  app.use(observe(options))

  const authenticate = (request: Request) =>
    issuer.authenticate({
      wit: request.get(HEADER_WIT),
      proof: request.get(HEADER_PROOF),
      htu: request.originalUrl,
      remoteAddress: remoteAddressOf(request),
    })
  const routes: Readonly<Record<string, Route>> = {
    '/mutate': {
      method: 'post',
      bodyBytes: MUTATE_BODY_BYTES,
      async handle(request, response) {
        if (options.mutate === undefined) {
          throw new WebhookError('admission-unavailable', WEBHOOK_ERRORS['admission-unavailable'])
        }
        response.json(await options.mutate(request.body))
      },
    },
    '/v1/identity': {
      method: 'post',
      bodyBytes: IDENTITY_BODY_BYTES,
      async handle(request, response) {
        try {
          const { wit, bundle } = await issuer.issue(request.body, remoteAddressOf(request))
          metrics.identities.inc({ result: 'ok' })
          response.set('cache-control', 'no-store').json({ wit, bundle } satisfies IdentityResponse)
        } catch (error) {
          metrics.identities.inc({ result: refusalOf(error).code })
          throw error
        }
      },
    },
    '/v1/bundle': {
      method: 'get',
      async handle(_, response) {
        response.json(authority.bundle())
      },
    },
    '/v1/peers': {
      method: 'get',
      authenticated: true,
      async handle(request, response, caller) {
        const { ip } = request.query
        const address = typeof ip === 'string' ? canonicalAddress(ip) : undefined
        if (address === undefined) throw new WebhookError('request-invalid', 'ip must be one IP address.')
        if (!options.synced()) {
          throw new WebhookError('cluster-unavailable', 'The cluster is not known yet: an address may have a Pod.')
        }
        // Watched first: a change between the answer and the watch would be heard by nobody.
        if (caller !== undefined) streams.watch(caller.identity.uid, address)
        response.set('cache-control', 'no-store').json(directory.lookup(address))
      },
    },
    '/v1/stream': {
      method: 'post',
      authenticated: true,
      bodyBytes: STREAM_BODY_BYTES,
      async handle(request, response, caller) {
        if (!options.synced()) throw new WebhookError('cluster-unavailable', 'The cluster is not known yet.')
        if (caller !== undefined) streams.open(caller, parseStreamRequest(request.body), response)
      },
    },
    '/v1/acknowledge': {
      method: 'post',
      authenticated: true,
      bodyBytes: ACKNOWLEDGE_BODY_BYTES,
      async handle(request, response, caller) {
        if (caller !== undefined) options.acknowledge(caller.identity.uid, parseAcknowledgeRequest(request.body))
        response.set('cache-control', 'no-store').json({})
      },
    },
    [PATH_REFUSALS]: {
      method: 'post',
      authenticated: true,
      bodyBytes: REFUSALS_BODY_BYTES,
      async handle(request, response, caller) {
        if (caller !== undefined) options.refused(caller.identity, parseRefusalsRequest(request.body))
        response.set('cache-control', 'no-store').json({})
      },
    },
  }
  for (const [path, route] of Object.entries(routes)) {
    // The caller is known before a body is read: the large ones are for sidecars alone.
    if (route.authenticated) {
      app[route.method](path, async (request, response, next) => {
        response.locals.caller = await authenticate(request)
        next()
      })
    }
    if (route.bodyBytes !== undefined) {
      app[route.method](path, express.json({ limit: route.bodyBytes, type: () => true, inflate: false }))
    }
    app[route.method](path, (request, response) => route.handle(request, response, response.locals.caller))
    app.all(path, () => {
      throw new WebhookError('method-not-allowed', `Use ${route.method.toUpperCase()} for ${path}.`)
    })
  }
  app.use(() => {
    throw new WebhookError('not-found', WEBHOOK_ERRORS['not-found'])
  })
  app.use(answerError(options.log))
  return app
}

/** The other end's address in canonical text; empty where the socket is gone already, which matches no Pod. */
function remoteAddressOf(request: Request): string {
  const text = request.socket.remoteAddress?.replace(/%.*$/, '') ?? ''
  const bytes = parseAddress(text)
  return bytes === undefined ? '' : formatAddress(unmapAddress(bytes))
}

const ENDPOINTS: ReadonlySet<string> = new Set([
  ...['/mutate', '/v1/identity', '/v1/bundle', '/v1/peers', '/v1/stream', '/v1/acknowledge', PATH_REFUSALS],
])

/** Counts and logs each request once it is answered; without headers, query or body, where tokens are. */
function observe({ metrics, log }: RoutesOptions): express.RequestHandler {
  return (request, response, next) => {
    const endpoint = ENDPOINTS.has(request.path) ? request.path : 'other'
    const started = performance.now()
    let observed = false
    const onAnswer = () => {
      if (observed) return
      observed = true
      const seconds = (performance.now() - started) / 1_000
      // Nothing sent: the client went away first.
      const code = response.headersSent ? response.statusCode : 499
      metrics.requests.inc({ endpoint, code })
      metrics.requestSeconds.observe({ endpoint }, seconds)
      const { refusal } = response.locals
      const fields = {
        endpoint,
        method: request.method,
        remoteAddress: remoteAddressOf(request),
        code,
        refusal,
        seconds,
      }
      if (code >= 400) log.warn(fields, 'request refused')
      else log.debug(fields, 'request answered')
    }
    response.on('finish', onAnswer).on('close', onAnswer)
    next()
  }
}

/** Every error as JSON {error: {code, message}}. Express knows the handler by its four parameters. */
function answerError(log: Logger): ErrorRequestHandler {
  return (error: unknown, _request, response, _next) => {
    const refusal = bodyRefusal(error) ?? refusalOf(error)
    if (refusal.code === 'internal') log.error({ err: describe(error) }, 'request failed')
    response.locals.refusal = refusal.code
    if (response.headersSent) return void response.destroy()
    const { code, message, retryAfterSeconds } = refusal
    if (retryAfterSeconds !== undefined) response.set('retry-after', String(retryAfterSeconds))
    // A body that is still arriving is not waited for.
    if (refusal.status === 413) response.set('connection', 'close')
    response.status(refusal.status).json({ error: { code, message } } satisfies ErrorResponse)
  }
}

/** What body-parser found wrong: it throws http-errors with a `type`. */
function bodyRefusal(error: unknown): HttpRefusal | undefined {
  if (typeof error !== 'object' || error === null || !('type' in error) || !('status' in error)) return undefined
  if (error.type === 'entity.too.large') {
    return { status: 413, code: 'request-too-large', message: WEBHOOK_ERRORS['request-too-large'] }
  }
  const status = typeof error.status === 'number' && error.status >= 400 && error.status < 500 ? error.status : 400
  return { status, code: 'request-invalid', message: 'The body is not plain JSON in UTF-8.' }
}

/** Name, code and stack without message: messages of other libraries may quote what was sent. */
function describe(error: unknown) {
  if (!(error instanceof Error)) return { name: typeof error }
  const stack = error.stack?.split('\n').filter((line) => /^\s+at /.test(line))
  return { name: error.name, code: (error as NodeJS.ErrnoException).code, stack }
}
