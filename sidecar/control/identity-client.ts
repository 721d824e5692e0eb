import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { SynguardError } from '../../api/errors.ts'
import { HEADER_PROOF, HEADER_WIT, type IdentityRequest, type TrustBundle } from '../../api/identity.ts'
import { exportPublicJwk, jwkThumbprint } from '../../certs/authority.ts'
import { SKEW_SECONDS } from '../../certs/limits.ts'
import { createRequestProof, createTokenProof } from '../../certs/possession.ts'
import { type VerifiedWit, verifyWit } from '../../certs/wit.ts'
import { decodeWitParts, type WitParts } from '../../certs/wit-parts.ts'
import { type BackoffLimits, backoffMs, jitterMs } from './backoff.ts'
import { ControlError, IssuerRefusal } from './errors.ts'
import type { IssuerHttp } from './issuer-http.ts'
import { parseIdentityResponse } from './issuer-messages.ts'
import type { LogSink } from './log.ts'

/** The own identity: what a handshake and a request need of it. The key never leaves the process's memory. */
export interface OwnIdentity {
  /** The WIT in compact form. */
  readonly wit: string
  readonly parts: WitParts
  readonly verified: VerifiedWit
  readonly privateKey: KeyObject
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number
  /** The trust bundle that came with it. */
  readonly bundle: TrustBundle
}

export interface IdentityClientOptions {
  readonly http: IssuerHttp
  /** File of the projected token, read for each request: the kubelet renews it. */
  readonly tokenPath: string
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string }
  readonly trustDomain: string
  /** The `iss` claim that the WIT must have. */
  readonly issuer: string
  readonly skewSeconds?: number
  readonly retry?: BackoffLimits
  readonly timeoutMs?: number
  /** No renewal comes sooner after the last than this, but one that is asked for. */
  readonly minRenewalMs?: number
  readonly now: () => number
  readonly random: () => number
  readonly log: LogSink
  /** Hears of each new identity, in order. */
  readonly onIdentity: (identity: OwnIdentity, reason: string) => void | Promise<void>
  readonly onFailure?: (error: SynguardError) => void
}

export interface IdentityClient {
  start(): void
  /** The identity held, expired or not; undefined before the first. */
  current(): OwnIdentity | undefined
  /** Obtains a new identity with a fresh key, at a random time within spreadMs (0: at once). */
  renew(reason: string, spreadMs?: number): void
  stop(): void
}

const RETRY: BackoffLimits = { initialMs: 500, maxMs: 30_000 }
/** The issuer waits up to 5 s for a Pod's addresses before it answers. */
const TIMEOUT_MS = 15_000
const MIN_RENEWAL_MS = 1000
/** Of the half life: renewals of Pods that started together spread out. */
const RENEWAL_JITTER = 0.1
/** Above half and its jitter, so that with a clock in step it changes nothing. */
const LATEST_RENEWAL = 0.6

/** Keeps the Pod's identity: obtains it, renews it at half of its life, tries again with backoff where that fails. */
export function createIdentityClient(options: IdentityClientOptions): IdentityClient {
  const { now, random, log } = options
  const retry = options.retry ?? RETRY
  const aborter = new AbortController()
  let held: OwnIdentity | undefined
  let timer: NodeJS.Timeout | undefined
  let dueAtMs = Number.POSITIVE_INFINITY
  let obtaining = false
  let askedMeanwhile: string | undefined
  let failures = 0

  function schedule(waitMs: number, reason: string): void {
    if (aborter.signal.aborted) return
    clearTimeout(timer)
    dueAtMs = now() + waitMs
    timer = setTimeout(() => void run(reason), waitMs)
  }

  async function run(reason: string): Promise<void> {
    obtaining = true
    dueAtMs = Number.POSITIVE_INFINITY
    try {
      const identity = await obtain()
      if (aborter.signal.aborted) return
      held = identity
      failures = 0
      const renewInMs = Math.round(renewalWaitMs(identity))
      schedule(renewInMs, 'half-life')
      log.info({ reason, expiresAt: new Date(identity.expiresAtMs).toISOString(), renewInMs }, 'identity obtained')
      await options.onIdentity(identity, reason)
    } catch (error) {
      if (!aborter.signal.aborted) failed(error, reason)
    } finally {
      obtaining = false
      // Asked for while the request was under way: its answer may be older than what made somebody ask.
      if (askedMeanwhile !== undefined && failures === 0) schedule(0, askedMeanwhile)
      askedMeanwhile = undefined
    }
  }

  function failed(error: unknown, reason: string): void {
    const asked = error instanceof IssuerRefusal ? (error.retryAfterMs ?? 0) : 0
    const retryInMs = Math.round(Math.max(backoffMs(failures, retry, random), asked))
    failures += 1
    schedule(retryInMs, reason)
    const told = error instanceof Error ? error : new Error(String(error))
    const code = 'code' in told ? told.code : 'internal'
    log.warn({ reason, code, error: told.message, attempt: failures, retryInMs }, 'no identity obtained')
    if (told instanceof SynguardError) options.onFailure?.(told)
  }

  function renewalWaitMs(identity: OwnIdentity): number {
    const { issuedAt, expiresAt } = identity.verified
    const halfLifeMs = jitterMs(((expiresAt - issuedAt) * 1000) / 2, RENEWAL_JITTER, random)
    // With a clock that is ahead part of the life is gone already: then no later than at this share of what is left.
    const latestMs = (identity.expiresAtMs - now()) * LATEST_RENEWAL
    return Math.max(Math.min(halfLifeMs, latestMs), options.minRenewalMs ?? MIN_RENEWAL_MS)
  }

  async function obtain(): Promise<OwnIdentity> {
    const token = await readToken(options.tokenPath)
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const proof = await createTokenProof(privateKey, { token, now: seconds(now()) })
    const body: IdentityRequest = { token, proof }
    const answer = await options.http.send({
      method: 'POST',
      path: '/v1/identity',
      body,
      timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
      signal: aborter.signal,
    })
    const { wit, bundle } = parseIdentityResponse(answer)
    const verified = await verifyWit(wit, bundle, {
      now: seconds(now()),
      trustDomain: options.trustDomain,
      issuer: options.issuer,
      skewSeconds: options.skewSeconds ?? SKEW_SECONDS,
    })
    checkOwn(verified, privateKey)
    return { wit, parts: decodeWitParts(wit), verified, privateKey, expiresAtMs: verified.expiresAt * 1000, bundle }
  }

  function checkOwn(verified: VerifiedWit, privateKey: KeyObject): void {
    const { uid, namespace, name } = verified.identity
    const { pod } = options
    if (uid !== pod.uid || namespace !== pod.namespace || name !== pod.name) {
      throw new ControlError(
        'identity-mismatch',
        `the WIT is for ${namespace}/${name}, this is ${pod.namespace}/${pod.name}`,
      )
    }
    if (verified.cnfThumbprint !== jwkThumbprint(exportPublicJwk(privateKey))) {
      throw new ControlError('identity-mismatch', 'the WIT is bound to another key than the one that asked for it')
    }
  }

  return {
    start: () => schedule(0, 'start'),
    current: () => held,
    renew(reason, spreadMs = 0) {
      if (obtaining) {
        askedMeanwhile = reason
        return
      }
      const waitMs = random() * spreadMs
      // A renewal that is due earlier serves as well; a retry keeps its backoff, or many asks would defeat it.
      if (failures === 0 && now() + waitMs < dueAtMs) schedule(waitMs, reason)
    },
    stop() {
      aborter.abort()
      clearTimeout(timer)
    },
  }
}

/** The headers that authenticate a request for `path` (path and query): WIT and proof. Rejects with `identity-missing`. */
export async function authenticateRequest(
  identity: OwnIdentity | undefined,
  path: string,
  nowMs: number,
): Promise<Record<string, string>> {
  if (identity === undefined) throw new ControlError('identity-missing', `${path} needs an identity: none is held yet`)
  const proof = await createRequestProof(identity.privateKey, { htu: path, now: seconds(nowMs) })
  return { [HEADER_WIT]: identity.wit, [HEADER_PROOF]: proof }
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000)
}

async function readToken(path: string): Promise<string> {
  const token = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new ControlError('credentials-unreadable', `${path} cannot be read (${error.code ?? error.message})`)
  })
  if (token.trim() === '') throw new ControlError('credentials-unreadable', `${path} is empty`)
  return token.trim()
}
